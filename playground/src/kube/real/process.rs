//! A child process whose output goes to a file.

use std::{
    ffi::OsString,
    hash::{BuildHasher as _, RandomState},
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};

use super::RealError;

/// After that a child is killed.
const GRACE: Duration = Duration::from_secs(5);
/// Bytes of a log that an error quotes.
const TAIL: usize = 2000;

/// Where ports are looked for, and how often.
const FIRST_PORT: u64 = 16 << 10;
const PORTS: u64 = 16 << 10;
const TRIES: u32 = 100;

/// A child process that ends with its handle.
#[derive(Debug)]
pub(super) struct Process {
    program: &'static str,
    pub(super) child: Child,
    log: PathBuf,
}

impl Process {
    pub(super) async fn start(
        program: &'static str,
        assets: &Path,
        dir: &Path,
        log: &str,
        flags: &[(&str, OsString)],
    ) -> Result<Self, RealError> {
        let log = dir.join(format!("{log}.log"));
        let open = async {
            tokio::fs::create_dir_all(dir).await?;
            let file = tokio::fs::File::create(&log).await?.into_std().await;
            Ok((file.try_clone()?, file))
        };
        let (out, err) =
            open.await.map_err(|source| RealError::File { path: log.clone(), source })?;
        let path = assets.join(program);
        let mut command = Command::new(&path);
        for (flag, value) in flags {
            let mut argument = OsString::from(flag);
            argument.push("=");
            argument.push(value);
            command.arg(argument);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err)
            // Ctrl-C at the terminal is for us: we end the children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| RealError::Run { program: path, source })?;
        Ok(Self { program, child, log })
    }

    pub(super) async fn failed(&self, what: String) -> RealError {
        let text = tokio::fs::read(&self.log).await.unwrap_or_default();
        let tail = String::from_utf8_lossy(&text[text.len().saturating_sub(TAIL)..]).into_owned();
        RealError::NotReady { program: self.program, what, log: self.log.clone(), tail }
    }

    pub(super) async fn stop(&mut self) {
        let group = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(group) = group
            && let Err(error) = kill_process_group(group, Signal::TERM)
        {
            tracing::debug!(%error, program = self.program, "already ended");
        }
        if tokio::time::timeout(GRACE, self.child.wait()).await.is_err()
            && let Err(error) = self.child.kill().await
        {
            tracing::debug!(%error, program = self.program, "can't be killed");
        }
    }
}

/// A port that is free, for programs that can't tell which one the system gave
/// them. It takes seconds until they bind it: from below the ports that the system
/// gives to whoever asks for any (Linux: from 32768 on), hardly anybody gets
/// it meanwhile.
pub(super) fn free_port() -> Result<u16, RealError> {
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for _ in 0..TRIES {
        // The hasher's keys are random; that is all that is needed of it.
        let random = RandomState::new().hash_one(());
        let port = u16::try_from(FIRST_PORT + random % PORTS).unwrap_or(u16::MAX);
        match TcpListener::bind(("127.0.0.1", port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = error,
        }
    }
    Err(RealError::Port(last))
}
