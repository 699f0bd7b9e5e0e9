//! The task that stands for election, and renews while it leads.

use std::time::Duration;

use kube::Client;
use rootstock_core::election::{Act, Election, Times, Write};
use rootstock_daemon::error::Chain;
use rootstock_daemon::{Readiness, Shutdown};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Term;
use super::lease::{LeaseApi, Written};

/// The Lease's name, and what Readiness calls it.
const LEASE: &str = "rootstock-controller";

/// How long giving the Lease back may take as a whole, where it lasts for
/// minutes: a process that was told to end has a grace of seconds.
const RELEASE: Duration = Duration::from_secs(5);

/// Stands for election.
pub(crate) struct Candidate {
    lease: LeaseApi,
    election: Election,
    times: Times,
    origin: Instant,
    terms: watch::Sender<Option<Term>>,
    /// Nobody acts in a term's name any more.
    left: CancellationToken,
    readiness: Readiness,
    /// What is wrong is said once, until it is something else.
    trouble: Option<String>,
}

/// Why a request about the Lease was in vain.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("the API refused the Lease")]
    Api(#[from] kube::Error),
    #[error("the API did not answer about the Lease in time")]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("the answer is not waited for, because this controller ends")]
    Ends,
}

impl Candidate {
    /// A candidate of this name, for a Lease that lasts so long. It goes when
    /// `left` says that nobody acts in its name any more.
    pub(crate) fn new(
        client: Client,
        namespace: &str,
        (identity, duration): (String, Duration),
        terms: watch::Sender<Option<Term>>,
        left: CancellationToken,
        readiness: Readiness,
    ) -> Self {
        let times = Times::of(duration);
        let lease = LeaseApi::new(client, namespace, LEASE, duration);
        let election = Election::new(identity, times);
        readiness.await_for(LEASE, "the Lease by which a leader is elected can't be read yet");
        let (origin, trouble) = (Instant::now(), None);
        Self { lease, election, times, origin, terms, left, readiness, trouble }
    }

    /// Runs until the shutdown, and then until nobody acts any more.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        loop {
            self.publish();
            if shutdown.has_begun() && self.terms.borrow().is_none() {
                break;
            }
            match self.election.act(self.now()) {
                // Cancel-safe: both wait for what stays so.
                Act::Wait(until) => tokio::select! {
                    () = tokio::time::sleep_until(self.origin + until) => {}
                    () = self.left.cancelled() => break,
                    () = shutdown.begun(), if self.terms.borrow().is_none() => break,
                },
                // Neither is broken off while anybody acts in a term's name:
                // what a write did would not be known.
                Act::Read => self.read().await,
                Act::Write(write) => self.write(&write).await,
            }
        }
        if let Some(term) = self.terms.send_replace(None) {
            term.0.over.cancel();
        }
        self.release().await;
        Ok(())
    }

    async fn read(&mut self) {
        let patience = self.patience(self.now());
        match until_left(&self.left, within(patience, self.lease.read())).await {
            Ok(record) => {
                self.readiness.done(LEASE);
                if record.is_some() {
                    self.well();
                }
                self.election.saw(record, self.now());
            }
            Err(error) => self.ill(&error),
        }
    }

    async fn write(&mut self, write: &Write) {
        let sent = self.now();
        let patience = self.patience(sent);
        match until_left(&self.left, within(patience, self.lease.write(write))).await {
            Ok(Written::Done(version)) => {
                self.well();
                self.election.wrote(write, version, sent, self.now());
            }
            Ok(Written::Refused) => self.election.refused(self.now()),
            Err(error) => self.ill(&error),
        }
    }

    /// Lets another one lead at once.
    async fn release(&mut self) {
        let Some(act) = self.election.release(self.now()) else { return };
        let patience = RELEASE.min(self.times.patience());
        match within(patience, self.give_back(act)).await {
            Ok(true) => tracing::info!("gave the Lease back"),
            Ok(false) => tracing::info!("the Lease is another's already"),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "the Lease is not given back: it ends by itself");
            }
        }
    }

    /// Gives the Lease back, if it is this replica's. A renewal whose answer
    /// was lost has made another version of it: so it is read once.
    async fn give_back(&self, act: Act) -> Result<bool, kube::Error> {
        if let Act::Write(write) = &act
            && matches!(self.lease.write(write).await?, Written::Done(_))
        {
            return Ok(true);
        }
        match self.election.release_what(self.lease.read().await?) {
            Some(write) => Ok(matches!(self.lease.write(&write).await?, Written::Done(_))),
            None => Ok(false),
        }
    }

    /// Tells the others how it stands.
    fn publish(&self) {
        let term = self.election.term(self.now());
        self.terms.send_if_modified(|current| {
            if let (Some(current), Some(term)) = (&current, &term)
                && current.epoch() == term.epoch
            {
                current.renew(self.origin + term.until);
                return false;
            }
            if current.is_none() && term.is_none() {
                return false;
            }
            if let Some(old) = current.take() {
                old.0.over.cancel();
                tracing::warn!(epoch = old.epoch(), "no longer the leader");
            }
            if let Some(term) = term {
                let new = Term::until(term.epoch, CancellationToken::new());
                new.renew(self.origin + term.until);
                tracing::info!(epoch = term.epoch, "this controller leads");
                *current = Some(new);
            }
            true
        });
    }

    /// How long a request may take: a leader that waits longer than its term
    /// would not see it end.
    fn patience(&self, now: Duration) -> Duration {
        let left = self.election.term(now).map(|term| term.until.saturating_sub(now));
        self.times.patience().min(left.unwrap_or(Duration::MAX))
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    fn well(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!("the Lease can be reached again");
        }
    }

    fn ill(&mut self, error: &LeaseError) {
        self.election.failed(self.now());
        if matches!(error, LeaseError::Ends) {
            return;
        }
        let text = Chain(error).to_string();
        if self.trouble.as_ref() != Some(&text) {
            tracing::warn!(error = text, "the Lease can't be reached");
            self.trouble = Some(text);
        }
    }
}

async fn within<T>(
    patience: Duration,
    answer: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, LeaseError> {
    Ok(tokio::time::timeout(patience, answer).await??)
}

async fn until_left<T>(
    left: &CancellationToken,
    answer: impl Future<Output = Result<T, LeaseError>>,
) -> Result<T, LeaseError> {
    // Cancel-safe: what a write did is looked at before the Lease is given back.
    tokio::select! {
        answer = answer => answer,
        () = left.cancelled() => Err(LeaseError::Ends),
    }
}
