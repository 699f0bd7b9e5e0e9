//! Programs that are kept running: the controller and the agents.
//!
//! Each is a process of its own (this very program started again under another
//! name), so that killing one is real. A [`Process`] is started again when it
//! dies, as a Deployment or a kubelet would do, and dies with its parent: it is
//! killed when the last handle goes, and it ends by itself when its standard
//! input ends, which the kernel sees to even if the parent is killed.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// The hidden flag that makes a program end with its parent.
pub const LEASH: &str = "--leash";

/// The first pause before a program is started again; it doubles up to the second figure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A program that ran this long is taken to have been healthy: its next pause is short again.
const SETTLED: Duration = Duration::from_secs(10);
/// How often CPU time and memory are read. They can't be read after the end,
/// so a program's last moments count only up to the last look.
const SAMPLE: Duration = Duration::from_millis(200);
/// How long a program may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// What a program used, over all its incarnations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Seconds of CPU time, user and system.
    pub cpu_seconds: f64,
    /// The largest resident set of any incarnation, in bytes.
    pub peak_memory_bytes: u64,
    /// How often it was started.
    pub starts: u32,
}

impl Usage {
    /// The larger of each figure.
    #[must_use]
    pub fn larger(self, other: Self) -> Self {
        Self {
            cpu_seconds: self.cpu_seconds.max(other.cpu_seconds),
            peak_memory_bytes: self.peak_memory_bytes.max(other.peak_memory_bytes),
            starts: self.starts.max(other.starts),
        }
    }
}

/// All programs of one world, by name.
#[derive(Clone, Debug)]
pub struct Processes {
    program: Arc<PathBuf>,
    logs: Arc<PathBuf>,
    running: Arc<Mutex<BTreeMap<String, Process>>>,
}

/// A handle on one program that is kept running.
#[derive(Clone, Debug)]
pub struct Process {
    control: watch::Sender<Control>,
    state: watch::Receiver<State>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wanted {
    Running,
    /// Not now; the handle can let it go on.
    Held,
    Stopped,
}

#[derive(Clone, Copy, Debug)]
struct Control {
    wanted: Wanted,
    /// Counts up; the supervisor kills once for each.
    kills: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    pid: Option<u32>,
    ended: bool,
    usage: Usage,
}

impl Processes {
    /// Programs are `program` with other arguments; each logs to `<logs>/<name>.log`.
    pub fn new(program: PathBuf, logs: PathBuf) -> Self {
        Self { program: Arc::new(program), logs: Arc::new(logs), running: Arc::default() }
    }

    /// Starts `program` with `arguments` and keeps it running.
    ///
    /// # Errors
    /// The log file can't be opened.
    pub fn start(&self, name: &str, arguments: Vec<String>) -> io::Result<Process> {
        let path = self.logs.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(path)?;
        let (control, controlled) = watch::channel(Control { wanted: Wanted::Running, kills: 0 });
        let (state, observed) = watch::channel(State::default());
        let supervisor = Supervisor {
            name: name.to_owned(),
            program: Arc::clone(&self.program),
            arguments,
            log,
            control: controlled,
            state,
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "the supervisor ends with its last handle, which is how it is joined"
        )]
        tokio::spawn(supervisor.run());
        let process = Process { control, state: observed };
        self.lock().insert(name.to_owned(), process.clone());
        Ok(process)
    }

    /// The program that was started under `name`.
    pub fn get(&self, name: &str) -> Option<Process> {
        self.lock().get(name).cloned()
    }

    /// What each program has used so far, by name.
    pub fn usage(&self) -> BTreeMap<String, Usage> {
        self.lock().iter().map(|(name, process)| (name.clone(), process.usage())).collect()
    }

    /// Stops all programs, politely first, and waits until they have ended.
    pub async fn stop_all(&self) {
        let all: Vec<Process> = self.lock().values().cloned().collect();
        for process in &all {
            process.want(Wanted::Stopped);
        }
        for process in &all {
            process.stop().await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Process>> {
        // A map of handles can't be half changed.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// The process id of the incarnation that runs at this moment.
    pub fn pid(&self) -> Option<u32> {
        self.state.borrow().pid
    }

    /// What it has used so far.
    pub fn usage(&self) -> Usage {
        self.state.borrow().usage
    }

    /// Kills it with SIGKILL and waits until it is dead. It is started again by itself.
    pub async fn kill(&self) {
        let Some(pid) = self.pid() else { return };
        self.control.send_modify(|control| control.kills += 1);
        self.wait(|state| state.pid != Some(pid)).await;
    }

    /// Kills it and does not start it again before [`Process::release`].
    pub async fn hold(&self) {
        self.control.send_modify(|control| {
            control.kills += 1;
            control.wanted = Wanted::Held;
        });
        self.wait(|state| state.pid.is_none()).await;
    }

    /// Lets a held program run again.
    pub fn release(&self) {
        self.want(Wanted::Running);
    }

    /// Asks it to end, makes it end where it does not, and waits for that.
    pub async fn stop(&self) {
        self.want(Wanted::Stopped);
        self.wait(|state| state.ended).await;
    }

    fn want(&self, wanted: Wanted) {
        self.control.send_modify(|control| {
            if control.wanted != Wanted::Stopped {
                control.wanted = wanted;
            }
        });
    }

    async fn wait(&self, condition: impl FnMut(&State) -> bool) {
        // An error means that the supervisor has gone, and the program with it.
        let _ = self.state.clone().wait_for(condition).await;
    }
}

struct Supervisor {
    name: String,
    program: Arc<PathBuf>,
    arguments: Vec<String>,
    log: std::fs::File,
    control: watch::Receiver<Control>,
    state: watch::Sender<State>,
}

impl Supervisor {
    async fn run(mut self) {
        let mut pause = BACKOFF.0;
        while self.may_start().await {
            let started = Instant::now();
            match self.spawn() {
                Ok(child) => {
                    let ended = self.attend(child).await;
                    tracing::debug!(program = %self.name, ?ended, "ended");
                }
                Err(error) => {
                    tracing::warn!(program = %self.name, %error, "could not be started");
                }
            }
            self.state.send_modify(|state| state.pid = None);
            if started.elapsed() > SETTLED {
                pause = BACKOFF.0;
            }
            // Both are cancel-safe: a timer, and a watch that keeps what was not seen.
            tokio::select! {
                () = sleep(pause) => {}
                _ = self.control.wait_for(|control| control.wanted != Wanted::Running) => {}
            }
            pause = (pause * 2).min(BACKOFF.1);
        }
        self.state.send_modify(|state| state.ended = true);
    }

    /// Waits while held; false once it must not start again.
    async fn may_start(&mut self) -> bool {
        match self.control.wait_for(|control| control.wanted != Wanted::Held).await {
            Ok(control) => control.wanted == Wanted::Running,
            Err(_) => false,
        }
    }

    fn spawn(&self) -> io::Result<Child> {
        Command::new(self.program.as_path())
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(self.log.try_clone()?)
            .stderr(self.log.try_clone()?)
            // Ctrl-C on the terminal is for the parent, which then ends its children.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Stays with one incarnation until it has ended.
    async fn attend(&mut self, mut child: Child) -> io::Result<ExitStatus> {
        let pid = child.id();
        // The leash: waiting for a child would close what it holds of its input.
        let _leash = child.stdin.take();
        let before = self.state.borrow().usage;
        self.state.send_modify(|state| {
            state.pid = pid;
            state.usage.starts += 1;
        });
        let kills = self.control.borrow().kills;
        let mut look = interval(SAMPLE);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // `wait` is cancel-safe by its documentation, as are a tick and a watch.
            let politely = tokio::select! {
                ended = child.wait() => return ended,
                _ = look.tick() => None,
                politely = asked_to_end(&mut self.control, kills) => Some(politely),
            };
            self.sample(pid, before);
            if let Some(politely) = politely {
                return end(&mut child, politely).await;
            }
        }
    }

    fn sample(&self, pid: Option<u32>, before: Usage) {
        let Some((cpu_seconds, peak)) = pid.and_then(read_usage) else { return };
        self.state.send_if_modified(|state| {
            state.usage.cpu_seconds = before.cpu_seconds + cpu_seconds;
            state.usage.peak_memory_bytes = before.peak_memory_bytes.max(peak);
            // Nobody waits for these figures.
            false
        });
    }
}

/// Waits until the program should end, and says whether it may do so by itself.
async fn asked_to_end(control: &mut watch::Receiver<Control>, kills: u32) -> bool {
    let asked = control.wait_for(|c| c.kills != kills || c.wanted != Wanted::Running).await;
    // Without a handle there is nobody left to wait for it.
    asked.is_ok_and(|control| control.kills == kills)
}

async fn end(child: &mut Child, politely: bool) -> io::Result<ExitStatus> {
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    if politely && let Some(pid) = pid {
        // The child was not waited for yet, so the id is still its own.
        if kill_process(pid, Signal::TERM).is_ok()
            && let Ok(ended) = timeout(GRACE, child.wait()).await
        {
            return ended;
        }
    }
    child.start_kill()?;
    child.wait().await
}

/// CPU seconds and the peak resident set in bytes, from /proc.
fn read_usage(pid: u32) -> Option<(f64, u64)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some((cpu_seconds(&stat)?, peak_memory(&status)?))
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    // The second field is the program's name in parentheses and may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user: u32 = fields.nth(11)?.parse().ok()?;
    let system: u32 = fields.next()?.parse().ok()?;
    // Linux shows both in 1/100 s to user space, whatever its own tick is.
    Some(f64::from(user + system) / 100.0)
}

fn peak_memory(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Ends this program when its standard input ends, that is, with its parent.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        // Whatever comes is thrown away; an error is an end too.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(1);
    });
}

#[cfg(test)]
mod tests;
