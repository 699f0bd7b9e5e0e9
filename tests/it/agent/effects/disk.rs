//! What of a node's disk is sure to be there after a power cut.
//!
//! A file's bytes are sure once the file was synced, and a name once its
//! folder was. Anything since may be there or not: names in the order of the
//! changes, as a journal keeps them, and each file and folder for itself.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rootstock_agent::rootfs::{Effect, Kind};

type Names = BTreeMap<String, usize>;

/// The folder that is gone after a boot whatever was done.
const VOLATILE: &str = "run";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Content {
    bytes: Vec<u8>,
    mode: u32,
}

#[derive(Debug)]
enum Item {
    Folder { sure: Names, since: Vec<Names> },
    File { sure: Content, now: Content },
    Link(PathBuf),
}

impl Item {
    fn folder() -> Self {
        Self::Folder { sure: Names::new(), since: Vec::new() }
    }

    fn file() -> Self {
        let empty = Content { bytes: Vec::new(), mode: 0o600 };
        Self::File { sure: empty.clone(), now: empty }
    }
}

/// The disk of a node.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// The first one is the root.
    items: Vec<Item>,
}

impl Disk {
    /// Everything that is there now is sure.
    pub(super) fn new(root: &Path) -> Self {
        let mut disk = Self { root: root.to_owned(), items: Vec::new() };
        disk.read(root);
        disk
    }

    fn read(&mut self, path: &Path) -> usize {
        let id = self.items.len();
        let meta = path.symlink_metadata().unwrap();
        if meta.is_symlink() {
            self.items.push(Item::Link(fs::read_link(path).unwrap()));
        } else if meta.is_dir() {
            self.items.push(Item::folder());
            let mut names = Names::new();
            for entry in fs::read_dir(path).unwrap() {
                let name = entry.unwrap().file_name().into_string().unwrap();
                if path != self.root || name != VOLATILE {
                    let below = self.read(&path.join(&name));
                    names.insert(name, below);
                }
            }
            self.items[id] = Item::Folder { sure: names, since: Vec::new() };
        } else {
            let now = content(path).unwrap();
            self.items.push(Item::File { sure: now.clone(), now });
        }
        id
    }

    /// An effect has happened.
    pub(super) fn note(&mut self, effect: &Effect) {
        let (folder, name) = effect.path.rsplit_once('/').unwrap();
        let folder = self.find(folder);
        match effect.kind {
            Kind::MakeFolder => self.add(folder, name, Item::folder()),
            Kind::Create => self.add(folder, name, Item::file()),
            Kind::Append if self.names(folder).contains_key(name) => {}
            Kind::Append => self.add(folder, name, Item::file()),
            Kind::Link => {
                let to = fs::read_link(self.root.join(&effect.path[1..])).unwrap();
                self.add(folder, name, Item::Link(to));
            }
            Kind::Write(_) | Kind::SetMode => {
                let there = content(&self.root.join(&effect.path[1..])).unwrap();
                if let Item::File { now, .. } = self.item(folder, name) {
                    *now = there;
                }
            }
            Kind::SyncFile => {
                if let Item::File { sure, now } = self.item(folder, name) {
                    sure.clone_from(now);
                }
            }
            Kind::SyncFolder => {
                if let Item::Folder { sure, since } = &mut self.items[folder]
                    && let Some(last) = since.pop()
                {
                    *sure = last;
                    since.clear();
                }
            }
            Kind::Rename | Kind::Exchange => {
                let (to_folder, to) = effect.other.as_ref().unwrap().rsplit_once('/').unwrap();
                assert_eq!(self.find(to_folder), folder, "one folder can be synced as a whole");
                self.change(folder, |names| {
                    let moved = names.remove(name).unwrap();
                    let there = names.insert(to.to_owned(), moved);
                    if let (Kind::Exchange, Some(there)) = (effect.kind, there) {
                        names.insert(name.to_owned(), there);
                    }
                });
            }
            Kind::Remove => self.change(folder, |names| {
                names.remove(name).unwrap();
            }),
        }
    }

    fn find(&self, path: &str) -> usize {
        path.split('/').filter(|part| !part.is_empty()).fold(0, |at, part| self.names(at)[part])
    }

    fn names(&self, folder: usize) -> &Names {
        match &self.items[folder] {
            Item::Folder { sure, since } => since.last().unwrap_or(sure),
            Item::File { .. } | Item::Link(_) => panic!("no folder"),
        }
    }

    fn item(&mut self, folder: usize, name: &str) -> &mut Item {
        let id = self.names(folder)[name];
        &mut self.items[id]
    }

    fn add(&mut self, folder: usize, name: &str, item: Item) {
        let id = self.items.len();
        self.items.push(item);
        self.change(folder, |names| {
            names.insert(name.to_owned(), id);
        });
    }

    fn change(&mut self, folder: usize, change: impl FnOnce(&mut Names)) {
        let mut names = self.names(folder).clone();
        change(&mut names);
        if let Item::Folder { since, .. } = &mut self.items[folder] {
            since.push(names);
        }
    }

    /// The power is cut: the node has what is sure, and of the rest what
    /// `pick` picks from so many possibilities, of which the first is nothing.
    pub(super) fn cut(&self, pick: &mut dyn FnMut(usize) -> usize) {
        for entry in fs::read_dir(&self.root).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with(VOLATILE) {
                fs::remove_dir_all(path).unwrap();
            }
        }
        self.write(0, &self.root, pick);
    }

    fn write(&self, id: usize, path: &Path, pick: &mut dyn FnMut(usize) -> usize) {
        match &self.items[id] {
            Item::Link(to) => symlink(to, path).unwrap(),
            Item::Folder { sure, since } => {
                fs::create_dir_all(path).unwrap();
                let picked = if since.is_empty() { 0 } else { pick(since.len() + 1) };
                let names = if picked == 0 { sure } else { &since[picked - 1] };
                for (name, id) in names {
                    self.write(*id, &path.join(name), pick);
                }
            }
            Item::File { sure, now } => {
                let picked = if sure == now { 0 } else { pick(3) };
                let Content { bytes, mode } = if picked == 0 { sure } else { now };
                // What was appended to is sure to be there up to the append.
                let least = if bytes.starts_with(&sure.bytes) { sure.bytes.len() } else { 0 };
                let most =
                    if picked == 2 { usize::midpoint(least, bytes.len()) } else { bytes.len() };
                fs::write(path, &bytes[..most]).unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
    }
}

fn content(path: &Path) -> std::io::Result<Content> {
    let mode = path.symlink_metadata()?.permissions().mode() & 0o7777;
    Ok(Content { bytes: fs::read(path)?, mode })
}
