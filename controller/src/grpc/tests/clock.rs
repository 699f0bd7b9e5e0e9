//! A clock that goes when a test says so.
//!
//! tokio's paused clock jumps to the next timer whenever all wait, and who
//! waits for the network waits too: a ping would time out while its answer is
//! in the socket. This one stands still, and what is under way arrives.

use std::sync::mpsc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// Turns of the event loop in which what was sent arrives and is answered, with room.
const TURNS: usize = 32;
const SECOND: Duration = Duration::from_secs(1);

pub(super) struct Clock {
    /// The clock does not jump while a blocking task runs; this one's ends with the channel.
    _held: mpsc::Sender<()>,
    here: UnixStream,
    there: UnixStream,
}

impl Clock {
    /// Stops the clock of the test's runtime, which must have one thread.
    pub(super) fn stop() -> Self {
        let (_held, released) = mpsc::channel::<()>();
        drop(tokio::task::spawn_blocking(move || released.recv()));
        tokio::time::pause();
        let (here, there) = UnixStream::pair().unwrap();
        Self { _held, here, there }
    }

    /// Lets what is under way arrive: each byte through a socket of our own is
    /// a turn in which every other socket is looked at.
    pub(super) async fn settle(&mut self) {
        for _ in 0..TURNS {
            self.here.write_all(&[0]).await.unwrap();
            // Room for more than there is, also after a wait that was given up:
            // a buffer that is filled would be read again without a look.
            assert!(self.there.read(&mut [0; 64]).await.unwrap() < 64);
        }
    }

    /// Lets a second pass.
    pub(super) async fn tick(&mut self) {
        self.settle().await;
        tokio::time::advance(SECOND).await;
        self.settle().await;
    }

    /// Lets time pass until it happens, and says how many seconds that took.
    pub(super) async fn until<T>(&mut self, limit: u32, what: impl Future<Output = T>) -> (T, u32) {
        let mut what = std::pin::pin!(what);
        for seconds in 0..=limit {
            tokio::select! {
                biased;
                done = &mut what => return (done, seconds),
                () = self.tick() => {}
            }
        }
        panic!("nothing within {limit} s of the test's clock");
    }
}
