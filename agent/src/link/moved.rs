//! Whether the controller is elsewhere by now: the files are looked at while a
//! stream is open, too.
//!
//! A control plane that moves to another seed leaves its old endpoint behind,
//! and nobody there may be left to end the streams. New CAs are no reason to
//! end one: they are read with the next connection.

use std::path::Path;
use std::time::Duration;

use rootstock_daemon::error::Chain;

use super::connect::{self, EndpointSource};
use crate::rootfs::random;

/// How often the files are looked at. A kubelet brings a changed ConfigMap
/// within a minute or so.
const LOOK: Duration = Duration::from_secs(30);
/// Within what time the agents of a shoot move, so that they do not enrol in
/// one instant. In milliseconds.
const SPREAD: u64 = 5000;

/// Waits until the endpoint is another one than that which a stream was opened
/// to. What can't be read or used is none.
pub(super) async fn moved(endpoint: &EndpointSource, ca_file: &Path, since: &str) {
    let EndpointSource::File(path) = endpoint else { return std::future::pending().await };
    let mut authorities = connect::read_file(ca_file).await.ok();
    let mut unusable = None;
    loop {
        tokio::time::sleep(LOOK).await;
        match connect::read_file(ca_file).await {
            Ok(now) if authorities.as_ref() != Some(&now) => {
                authorities = Some(now);
                tracing::info!("the controller's CAs are others: the next connection is by them");
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(error = %Chain(&error), "the CAs can't be read"),
        }
        let now = match connect::read_endpoint(path).await {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "the endpoint can't be read");
                continue;
            }
        };
        if now == since || unusable.as_ref() == Some(&now) {
            continue;
        }
        if let Err(error) = connect::parse(&now) {
            // The stream that is there is better than none.
            tracing::warn!(error = %Chain(&error), "the new endpoint is passed over");
            unusable = Some(now);
            continue;
        }
        let wait = Duration::from_millis(random() % SPREAD);
        tracing::info!(endpoint = now, ?wait, "the controller is elsewhere");
        return tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::time::{Instant, timeout};

    use super::*;

    const HERE: &str = "https://rs-a.one.example";
    const THERE: &str = "https://rs-a.two.example";

    struct Files {
        dir: TempDir,
        endpoint: EndpointSource,
    }

    impl Files {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let endpoint = EndpointSource::File(dir.path().join("endpoint"));
            let files = Self { dir, endpoint };
            files.write("endpoint", HERE);
            files.write("ca.crt", "one");
            files
        }

        #[expect(clippy::disallowed_methods, reason = "what a kubelet writes")]
        fn write(&self, name: &str, text: &str) {
            std::fs::write(self.dir.path().join(name), text).unwrap();
        }

        async fn moved(&self) {
            moved(&self.endpoint, &self.dir.path().join("ca.crt"), HERE).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_endpoint_is_seen_soon_and_not_by_all_at_once() {
        let files = Files::new();
        let wait = files.moved();
        let mut wait = std::pin::pin!(wait);
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, &mut wait).await.is_err(), "nothing has changed");
        files.write("endpoint", &format!("{THERE}\n"));
        let begun = Instant::now();
        timeout(hour, wait).await.unwrap();
        let most = LOOK + Duration::from_millis(SPREAD);
        assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
        let mut waits = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            files.moved().await;
            waits.push(begun.elapsed());
        }
        assert!(waits.iter().all(|wait| *wait >= LOOK && *wait <= most), "{waits:?}");
        waits.sort();
        waits.dedup();
        assert!(waits.len() > 10, "{waits:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_no_other_endpoint_ends_nothing() {
        let files = Files::new();
        let wait = files.moved();
        let mut wait = std::pin::pin!(wait);
        let minutes = Duration::from_secs(300);
        let changes = [("ca.crt", "two"), ("endpoint", "https://rs-a.one.example\n")];
        let worse = [("endpoint", ""), ("endpoint", "http://rs-a.two.example")];
        for (name, text) in changes.into_iter().chain(worse) {
            files.write(name, text);
            assert!(timeout(minutes, &mut wait).await.is_err(), "{name}: {text}");
        }
        let parts = ["ca.crt", "endpoint"].map(|name| files.dir.path().join(name));
        for part in &parts {
            #[expect(clippy::disallowed_methods, reason = "a volume that is away for a moment")]
            std::fs::remove_file(part).unwrap();
        }
        assert!(timeout(minutes, &mut wait).await.is_err());
        files.write("endpoint", THERE);
        timeout(minutes, wait).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_url_of_the_command_line_stays() {
        let endpoint = EndpointSource::Url(HERE.to_owned());
        let wait = moved(&endpoint, Path::new("/nowhere"), HERE);
        assert!(timeout(Duration::from_secs(3600), wait).await.is_err());
    }
}
