//! How a shoot's agents are served, from its authorities.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;

use super::authorities::OfShoot;
use crate::identity::authorities::Authorities;
use crate::identity::ca::{CaError, SERVER_LIFETIME, ShootCa};
use crate::identity::rotation::{self, Names, Roles, Rotation};

/// How often it is looked whether a certificate or a role is old enough for
/// another one. Not one long pause: a machine may sleep.
pub(super) const LOOK: Duration = Duration::from_secs(60 * 60);

/// How a shoot is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Served {
    host: String,
    roles: Roles,
    /// When the endpoint's certificate is to be replaced.
    until: Timestamp,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Roles { signer, server, trusted } = &self.roles;
        write!(f, "{server} for the endpoint, {signer} for nodes, of {}", trusted.join(", "))
    }
}

/// Why a shoot can't be served.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServingError {
    /// Nobody can sign.
    #[error("its certificate authority has ended or is not there yet")]
    NoAuthority,
    /// The certificate could not be made.
    #[error("its endpoint has no certificate")]
    Certificate(#[from] CaError),
}

/// How the shoot is to be served from now on, where that is another way than
/// `before`. A certificate that could not be replaced is replaced later.
pub(super) fn serve(
    authorities: &OfShoot,
    rotation: Rotation,
    host: &str,
    before: Option<&Served>,
) -> Result<Option<(Served, Authorities, Arc<ServerConfig>)>, ServingError> {
    let now = Timestamp::now();
    let kept: Vec<_> = authorities.values().map(|authority| authority.kept.clone()).collect();
    // Names matter to whoever makes one.
    let roles = rotation::plan(&kept, rotation, Names::Hashed, now).roles;
    let roles = roles.ok_or(ServingError::NoAuthority)?;
    let same =
        |before: &&Served| before.host == host && before.roles == roles && now < before.until;
    if before.is_some_and(|before| same(&before)) {
        return Ok(None);
    }
    let of = |name: &String| authorities.get(name).map(|authority| Arc::clone(&authority.ca));
    let (signer, server) = (of(&roles.signer), of(&roles.server));
    let (signer, server) = signer.zip(server).ok_or(ServingError::NoAuthority)?;
    let trusted: Vec<_> = roles.trusted.iter().filter_map(of).collect();
    let until = replaced_at(&server, now);
    let authorities = Authorities::new(signer, server, &trusted);
    let tls = authorities.server_config(&[host.to_owned()], now)?;
    Ok(Some((Served { host: host.to_owned(), roles, until }, authorities, tls)))
}

/// When four fifths of a certificate's life are over.
fn replaced_at(server: &ShootCa, now: Timestamp) -> Timestamp {
    let left = Duration::try_from(server.not_after().duration_since(now)).unwrap_or_default();
    let life = left.min(SERVER_LIFETIME);
    // Not again and again at the end of an authority.
    now.checked_add((life / 5 * 4).max(LOOK)).unwrap_or(Timestamp::MAX)
}
