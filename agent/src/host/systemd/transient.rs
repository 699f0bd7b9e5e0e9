//! Programs of the node, run by its service manager and not by the agent.
//!
//! The agent's Pod has neither these programs nor the right to start them: a
//! transient unit runs them on the node, with pipes of ours for what they
//! write, as `systemd-run --pipe --wait --collect` does. No shell is involved.

use std::fs::File;
use std::io::{self, ErrorKind, PipeReader, Read as _};
use std::time::Duration;

use tokio::net::unix::pipe::Receiver;
use zbus::{Fd, OwnedObjectPath, Variant};

use super::unit::{SERVICE, Systemd};
use crate::rootfs::random;

/// How long a program may take; both that are run here take milliseconds. The
/// service manager ends it then, also when the agent is gone.
const LIMIT: Duration = Duration::from_secs(30);
/// How much longer the service manager may take to say so.
const GRACE: Duration = Duration::from_secs(15);
/// The most that is read of a program's output, in bytes.
const MAX_STDOUT: usize = 4 << 20;
/// The most that is kept of its errors, in bytes: their end.
const MAX_STDERR: usize = 64 << 10;

/// What came of a program.
#[derive(Debug)]
pub(super) struct Output {
    /// How it failed; none where it did not.
    pub(super) failed: Option<String>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// Why a program could not be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("systemd does not answer")]
    Bus(#[from] zbus::Error),
    #[error("the pipe to it broke")]
    Pipe(#[from] io::Error),
    #[error("it wrote more than {MAX_STDOUT} bytes")]
    TooMuch,
    #[error("it has no text as output")]
    NoText,
    #[error("no answer within {0:?}")]
    Late(Duration),
    #[error("the system bus closed")]
    Closed,
}

/// Runs a program of the node by its absolute path there, and waits for it.
pub(super) async fn run(systemd: &Systemd, argv: &[&str]) -> Result<Output, RunError> {
    let limit = LIMIT + GRACE;
    tokio::time::timeout(limit, start(systemd, argv)).await.unwrap_or(Err(RunError::Late(limit)))
}

async fn start(systemd: &Systemd, argv: &[&str]) -> Result<Output, RunError> {
    let (stdout, out) = io::pipe()?;
    let (stderr, err) = io::pipe()?;
    let (mut stdout, mut stderr) = (Captured::new(stdout)?, Captured::new(stderr)?);
    let name = format!("rootstock-{:016x}.service", random());
    let mut jobs = systemd.jobs().await?;
    let job: OwnedObjectPath = {
        let properties = properties(argv, Fd::from(&out), Fd::from(&err));
        // No units beside it.
        let none: Vec<(&str, Vec<(&str, Variant<'_>)>)> = Vec::new();
        let ask = (name.as_str(), "fail", properties, none);
        systemd.manager.call("StartTransientUnit", &ask).await?
    };
    // Only the program and the service manager write from here on.
    drop((out, err));
    let pump = async {
        let both = tokio::try_join!(stdout.fill(MAX_STDOUT, true), stderr.fill(MAX_STDERR, false));
        match both {
            // Both are closed; the job's end is what counts.
            Ok(((), ())) => std::future::pending().await,
            Err(error) => error,
        }
    };
    // Cancel-safe: the job's end is only awaited here, and a read that is
    // dropped has read nothing.
    let result = tokio::select! {
        result = jobs.end(&job) => result?.ok_or(RunError::Closed)?,
        error = pump => return Err(error),
    };
    // The service manager may hold its ends of the pipes for as long as it
    // keeps the unit: what is in them now is all.
    let stdout = stdout.rest(MAX_STDOUT, true)?;
    let stderr = stderr.rest(MAX_STDERR, false)?;
    let failed = if result == "done" {
        None
    } else {
        let unit = systemd.unit(&name).await?;
        let outcome: String = unit.property(SERVICE, "Result").await?;
        let status: i32 = unit.property(SERVICE, "ExecMainStatus").await?;
        Some(format!("job {result}, result {outcome}, exit status {status}"))
    };
    Ok(Output {
        failed,
        stdout: String::from_utf8(stdout).map_err(|_| RunError::NoText)?,
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// The unit's properties; all are known to systemd since version 236.
fn properties<'a>(argv: &[&'a str], out: Fd<'a>, err: Fd<'a>) -> Vec<(&'static str, Variant<'a>)> {
    let program = argv.first().copied().unwrap_or_default();
    // systemd would put variables in place of what begins with a dollar sign.
    let words: Vec<String> = argv.iter().map(|word| word.replace('$', "$$")).collect();
    let command = vec![(program, words, false)];
    let limit = u64::try_from(LIMIT.as_micros()).unwrap_or(u64::MAX);
    vec![
        ("Description", format!("Rootstock asks {program}").into()),
        // Its job ends when the program does.
        ("Type", "oneshot".into()),
        ("TimeoutStartUSec", limit.into()),
        ("ExecStart", Variant::from(command)),
        ("StandardOutputFileDescriptor", out.into()),
        ("StandardErrorFileDescriptor", err.into()),
        // Kept until it was asked how it ended, and no longer: the reference
        // ends with our connection, also when the agent is killed.
        ("AddRef", true.into()),
        ("CollectMode", "inactive-or-failed".into()),
    ]
}

/// What comes through a pipe.
struct Captured {
    pipe: Receiver,
    bytes: Vec<u8>,
}

impl Captured {
    fn new(pipe: PipeReader) -> io::Result<Self> {
        Ok(Self { pipe: Receiver::from_owned_fd(pipe.into())?, bytes: Vec::new() })
    }

    /// Reads until the other end is closed. Cancel-safe.
    async fn fill(&mut self, limit: usize, strict: bool) -> Result<(), RunError> {
        let mut buffer = [0; 8 << 10];
        loop {
            self.pipe.readable().await?;
            match self.pipe.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(read) => keep(&mut self.bytes, &buffer[..read], limit, strict)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Everything, with what is still in the pipe.
    fn rest(mut self, limit: usize, strict: bool) -> Result<Vec<u8>, RunError> {
        // By the kernel's word and not by tokio's, which may not have heard of
        // the last bytes yet.
        let mut pipe = File::from(self.pipe.into_nonblocking_fd()?);
        let mut buffer = [0; 8 << 10];
        loop {
            match pipe.read(&mut buffer) {
                Ok(0) => return Ok(self.bytes),
                Ok(read) => keep(&mut self.bytes, &buffer[..read], limit, strict)?,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(self.bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Adds to what was read: a strict limit is an error, another one drops the beginning.
fn keep(bytes: &mut Vec<u8>, more: &[u8], limit: usize, strict: bool) -> Result<(), RunError> {
    bytes.extend_from_slice(more);
    let over = bytes.len().saturating_sub(limit);
    if over > 0 && strict {
        return Err(RunError::TooMuch);
    }
    bytes.drain(..over);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[tokio::test]
    async fn what_is_in_the_pipe_is_read_although_it_stays_open() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut captured = Captured::new(reader).unwrap();
        writer.write_all(b"one ").unwrap();
        let read = captured.fill(100, true);
        tokio::time::timeout(Duration::from_millis(50), read).await.unwrap_err();
        writer.write_all(b"two").unwrap();
        assert_eq!(captured.rest(100, true).unwrap(), b"one two");
        drop(writer);
    }

    #[test]
    fn output_has_a_limit_and_of_errors_the_end_is_kept() {
        let mut bytes = Vec::new();
        for _ in 0..3 {
            keep(&mut bytes, b"abc", 4, false).unwrap();
        }
        assert_eq!(bytes, b"cabc");
        assert!(matches!(keep(&mut bytes, b"d", 4, true), Err(RunError::TooMuch)));
    }

    #[test]
    fn the_unit_s_properties_have_the_types_that_systemd_wants() {
        let (_reader, writer) = io::pipe().unwrap();
        let list = properties(&["/bin/x", "a b", "$c"], Fd::from(&writer), Fd::from(&writer));
        let types: Vec<_> = list
            .iter()
            .map(|(name, value)| format!("{name} {}", value.value_signature()))
            .collect();
        let want = [
            "Description s",
            "Type s",
            "TimeoutStartUSec t",
            "ExecStart a(sasb)",
            "StandardOutputFileDescriptor h",
            "StandardErrorFileDescriptor h",
            "AddRef b",
            "CollectMode s",
        ];
        assert_eq!(types, want);
    }
}
