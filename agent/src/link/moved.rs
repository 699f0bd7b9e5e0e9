//! Whether the controller is elsewhere by now, or has another CA: the files are
//! looked at while a stream is open, too.
//!
//! A control plane that moves to another seed leaves its old endpoint behind,
//! and nobody there may be left to end the streams. And when a new CA is there
//! the certificate is renewed over the connection that is open, so that it is
//! the new one's long before the old one is trusted no longer.

use std::path::Path;
use std::time::Duration;

use rootstock_daemon::error::Chain;
use rustls_pki_types::TrustAnchor;
use tokio::time::Instant;

use super::connect::{self, EndpointSource};
use crate::net;
use crate::rootfs::random;

/// How often the files are looked at. A kubelet brings a changed ConfigMap
/// within a minute or so.
const LOOK: Duration = Duration::from_secs(30);
/// Within what time the agents of a shoot move, so that they do not enrol in
/// one instant. In milliseconds.
const SPREAD: u64 = 5000;
/// Within what time they renew their certificates for a new CA, in
/// milliseconds. The controller gives a shoot 20 each second: 6000 nodes.
const RENEWAL_SPREAD: u64 = 300_000;

/// What the files say that is new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// The controller is elsewhere.
    Moved,
    /// There is a CA that the certificate's issuer did not know.
    NewAuthority,
}

/// The files, and what of them is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    pub(super) endpoint: &'a EndpointSource,
    pub(super) ca_file: &'a Path,
    /// The endpoint that the stream was opened to.
    pub(super) url: &'a str,
    /// The CAs that were known when the certificate was asked for.
    pub(super) authorities: &'a [TrustAnchor<'static>],
}

/// Waits until the endpoint is another one than that which a stream was opened
/// to, or there is a new CA. What can't be read or used is none.
pub(super) async fn news(known: Known<'_>) -> News {
    let mut unusable = None;
    let mut renewal: Option<Instant> = None;
    loop {
        let look = Instant::now() + LOOK;
        tokio::time::sleep_until(renewal.map_or(look, |renewal| renewal.min(look))).await;
        if renewal.is_some_and(|renewal| renewal <= Instant::now()) {
            return News::NewAuthority;
        }
        if renewal.is_none() && has_new_authority(&known).await {
            let wait = Duration::from_millis(random() % RENEWAL_SPREAD);
            tracing::info!(?wait, "there is a new CA: the certificate is renewed");
            renewal = Some(Instant::now() + wait);
        }
        let EndpointSource::File(path) = known.endpoint else { continue };
        let now = match connect::read_endpoint(path).await {
            Ok(now) => now,
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "the endpoint can't be read");
                continue;
            }
        };
        if now == known.url || unusable.as_ref() == Some(&now) {
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
        tokio::time::sleep(wait).await;
        return News::Moved;
    }
}

/// Whether the file has a CA that was not known. One that is gone is no reason
/// for anything: the controller ends the streams that are.
async fn has_new_authority(known: &Known<'_>) -> bool {
    let pem = match connect::read_file(known.ca_file).await {
        Ok(pem) => pem,
        Err(error) => {
            tracing::debug!(error = %Chain(&error), "the CAs can't be read");
            return false;
        }
    };
    net::authorities(&pem)
        .is_ok_and(|now| now.roots.iter().any(|anchor| !known.authorities.contains(anchor)))
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
            assert_eq!(self.news(&[]).await, News::Moved);
        }

        async fn news(&self, authorities: &[TrustAnchor<'static>]) -> News {
            let (endpoint, ca_file) = (&self.endpoint, &self.dir.path().join("ca.crt"));
            news(Known { endpoint, ca_file, url: HERE, authorities }).await
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
        let ca_file = Path::new("/nowhere");
        let wait = news(Known { endpoint: &endpoint, ca_file, url: HERE, authorities: &[] });
        assert!(timeout(Duration::from_secs(3600), wait).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_ca_is_a_reason_to_renew_and_an_old_one_that_goes_is_none() {
        let files = Files::new();
        let pem = || {
            let key = rcgen::KeyPair::generate().unwrap();
            rcgen::CertificateParams::default().self_signed(&key).unwrap().pem()
        };
        let (old, new) = (pem(), pem());
        files.write("ca.crt", &old);
        let known = net::authorities(old.as_bytes()).unwrap().roots;
        let wait = files.news(&known);
        let mut wait = std::pin::pin!(wait);
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, &mut wait).await.is_err(), "nothing has changed");
        files.write("ca.crt", &format!("{new}{old}"));
        let begun = Instant::now();
        assert_eq!(timeout(hour, wait).await.unwrap(), News::NewAuthority);
        let most = LOOK + Duration::from_millis(RENEWAL_SPREAD);
        assert!(begun.elapsed() <= most, "{:?}", begun.elapsed());
        let both = net::authorities(format!("{new}{old}").as_bytes()).unwrap().roots;
        files.write("ca.crt", &new);
        assert!(timeout(hour, files.news(&both)).await.is_err(), "the old one has gone");
        // Who is elsewhere meanwhile is not waited for.
        files.write("ca.crt", &format!("{}{new}", pem()));
        files.write("endpoint", THERE);
        assert_eq!(timeout(hour, files.news(&both)).await.unwrap(), News::Moved);
    }
}
