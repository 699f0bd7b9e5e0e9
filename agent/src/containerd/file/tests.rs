#![expect(clippy::disallowed_methods, reason = "the other program is not confined")]

use std::cell::Cell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rootstock_core::path::BinaryRoots;

use super::*;

const BEFORE_BOTH: &str = "version = 2\nroot = \"/a\"\n";
const OURS: &str = "version = 2\nroot = \"/a\"\n[ours]\n";
const THEIRS: &str = "version = 2\nroot = \"/a\"\nimports = [\"/theirs.toml\"]\n";

/// How another program writes the file.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// As gardener-node-agent does it: truncated when it is opened.
    TruncateAtOpen,
    /// Opened, and truncated only when the first byte is written.
    TruncateLater,
    /// A file beside it, which then takes its name.
    Rename,
}

/// The other program: five steps, each at its moment.
struct Other {
    path: PathBuf,
    manner: Manner,
    open: Option<File>,
    done: usize,
}

impl Other {
    const STEPS: usize = 4;

    fn step(&mut self) {
        let half = THEIRS.len() / 2;
        match (self.done, self.manner) {
            (0, Manner::TruncateAtOpen) => self.open = Some(File::create(&self.path).unwrap()),
            (0, Manner::TruncateLater) => {
                self.open = Some(OpenOptions::new().write(true).open(&self.path).unwrap());
            }
            (0, Manner::Rename) => {
                self.open = Some(File::create(self.path.with_extension("theirs")).unwrap());
            }
            (1, manner) => {
                let file = self.open.as_mut().unwrap();
                if let Manner::TruncateLater = manner {
                    file.set_len(0).unwrap();
                }
                file.write_all(&THEIRS.as_bytes()[..half]).unwrap();
            }
            (2, _) => self.open.as_mut().unwrap().write_all(&THEIRS.as_bytes()[half..]).unwrap(),
            (3, Manner::Rename) => {
                std::fs::rename(self.path.with_extension("theirs"), &self.path).unwrap();
            }
            (3, _) => self.open = None,
            _ => {}
        }
        self.done += 1;
    }
}

fn node(dir: &Path) -> Rootfs {
    let rootfs = Rootfs::open(dir, BinaryRoots::default()).unwrap();
    rootfs.make_folder(FOLDER).unwrap().replace(FILE, BEFORE_BOTH.as_bytes(), 0o644).unwrap();
    rootfs
}

/// What the journal knows of a write.
fn record(before: &str, content: &str) -> Record {
    Record {
        config: Some(Digest::of(content.as_bytes())),
        displaced: Some(Digest::of(before.as_bytes())),
        ..Record::default()
    }
}

/// The moments between our steps: before, three in `put`, after, and after a look.
const MOMENTS: usize = 6;

/// Every way to spread the other program's steps over these moments.
fn schedules() -> Vec<[usize; Other::STEPS]> {
    let mut all = Vec::new();
    for a in 0..MOMENTS {
        for b in a..MOMENTS {
            for c in b..MOMENTS {
                for d in c..MOMENTS {
                    all.push([a, b, c, d]);
                }
            }
        }
    }
    all
}

#[test]
fn whenever_another_program_writes_its_last_word_stands() {
    for manner in [Manner::TruncateAtOpen, Manner::TruncateLater, Manner::Rename] {
        for schedule in schedules() {
            let dir = tempfile::tempdir().unwrap();
            let rootfs = node(dir.path());
            let path = dir.path().join("etc/containerd/config.toml");
            let mut other = Other { path, manner, open: None, done: 0 };
            let moment = Cell::new(0);
            let mut others = || {
                while other.done < Other::STEPS && schedule[other.done] <= moment.get() {
                    other.step();
                }
                moment.set(moment.get() + 1);
            };
            others();
            let put = put_between(&rootfs, Some(BEFORE_BOTH), OURS, &mut others).unwrap();
            others();
            // A look too early takes nothing away.
            let record = record(BEFORE_BOTH, OURS);
            settle_displaced(&rootfs, &record, Duration::from_secs(3600)).unwrap();
            while moment.get() < MOMENTS {
                others();
            }
            settle_displaced(&rootfs, &record, Duration::ZERO).unwrap();
            let now = read(&rootfs).unwrap().unwrap();
            assert_eq!(now, THEIRS, "{manner:?} {schedule:?} {put:?}");
            let left = rootfs.folder(FOLDER).unwrap().unwrap().names().unwrap();
            assert_eq!(left, [FILE], "{manner:?} {schedule:?}");
        }
    }
}

#[test]
fn alone_it_is_in_place_and_what_was_displaced_goes_after_a_while() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = node(dir.path());
    assert_eq!(put(&rootfs, Some("other"), OURS).unwrap(), Put::Moved);
    assert_eq!(read(&rootfs).unwrap().as_deref(), Some(BEFORE_BOTH));
    assert_eq!(put(&rootfs, Some(BEFORE_BOTH), OURS).unwrap(), Put::Written);
    assert_eq!(read(&rootfs).unwrap().as_deref(), Some(OURS));
    let record = record(BEFORE_BOTH, OURS);
    assert!(settle_displaced(&rootfs, &record, Duration::from_secs(3600)).unwrap());
    // One write right after another, as a rollback is.
    assert_eq!(put(&rootfs, Some(OURS), BEFORE_BOTH).unwrap(), Put::Written);
    assert!(!settle_displaced(&rootfs, &record, Duration::ZERO).unwrap());
    assert_eq!(read(&rootfs).unwrap().as_deref(), Some(BEFORE_BOTH));
    assert_eq!(rootfs.folder(FOLDER).unwrap().unwrap().names().unwrap(), [FILE]);
}

#[test]
fn where_there_is_no_file_one_is_made_unless_another_program_was_first() {
    let dir = tempfile::tempdir().unwrap();
    let rootfs = Rootfs::open(dir.path(), BinaryRoots::default()).unwrap();
    assert_eq!(put(&rootfs, None, OURS).unwrap(), Put::Written);
    assert_eq!(put(&rootfs, None, OURS).unwrap(), Put::Moved);
    assert_eq!(read(&rootfs).unwrap().as_deref(), Some(OURS));
}
