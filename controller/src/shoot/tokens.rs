//! The tokens by which the controller speaks to shoots' APIs.
//!
//! Gardener's token requestor writes them into a Secret of each shoot and
//! renews them; one watch sees them all.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use rootstock_core::name::ShootName;
use rootstock_daemon::Shutdown;
use tokio::sync::watch;

use super::gather::{Seen, follow_secrets};
use super::secrets::{ACCESS_LABEL, ACCESS_SECRET};

/// A token. It is not printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token(pub(crate) Arc<str>);

impl Token {
    /// The one of an API for which none is needed.
    pub(super) fn none() -> Self {
        Self("".into())
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// The tokens by shoot.
pub(crate) type ByShoot = BTreeMap<ShootName, Token>;

/// Follows the tokens.
pub(crate) struct Tokens {
    pub(crate) seed: Client,
    pub(crate) tokens: watch::Sender<ByShoot>,
}

impl Tokens {
    pub(crate) async fn run(self, shutdown: Shutdown) -> anyhow::Result<()> {
        let labels = format!("{ACCESS_LABEL}=true");
        // One without a token yet is as one that is not there.
        let read = |secret: Secret| Some((shoot_of(&secret)?, token_of(&secret)));
        let take = |seen| {
            self.tokens.send_if_modified(|tokens| apply(tokens, seen));
        };
        follow_secrets(&self.seed, (&labels, "access Secrets"), &shutdown, read, take).await
    }
}

/// Takes in what was seen; tells whether anything is new.
fn apply(tokens: &mut ByShoot, seen: Seen<(ShootName, Option<Token>)>) -> bool {
    match seen {
        Seen::All(all) => {
            let all: ByShoot =
                all.into_iter().filter_map(|(shoot, token)| Some((shoot, token?))).collect();
            let changed = *tokens != all;
            *tokens = all;
            changed
        }
        Seen::Put((shoot, Some(token))) => {
            tokens.insert(shoot, token.clone()).is_none_or(|before| before != token)
        }
        // A Secret that lost its token is being renewed: the old one may serve
        // until then.
        Seen::Put((_, None)) => false,
        Seen::Gone((shoot, _)) => tokens.remove(&shoot).is_some(),
    }
}

/// The token as it is in the Secret now: after a refusal nobody waits for the watch.
pub(super) async fn look(seed: &Client, shoot: &ShootName) -> Result<Option<Token>, kube::Error> {
    let api: Api<Secret> = crate::home::beside(seed, shoot);
    Ok(api.get_opt(ACCESS_SECRET).await?.as_ref().and_then(token_of))
}

fn shoot_of(secret: &Secret) -> Option<ShootName> {
    (secret.name_any() == ACCESS_SECRET).then(|| secret.namespace())??.parse().ok()
}

fn token_of(secret: &Secret) -> Option<Token> {
    let token = secret.data.as_ref()?.get("token")?;
    let token = std::str::from_utf8(&token.0).ok()?.trim();
    (!token.is_empty()).then(|| Token(token.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_new_wakes_anybody_up() {
        let shoot = || "shoot--a--b".parse::<ShootName>().unwrap();
        let token = |text: &str| Token(text.into());
        let mut tokens = ByShoot::new();
        assert!(apply(&mut tokens, Seen::Put((shoot(), Some(token("1"))))));
        assert!(!apply(&mut tokens, Seen::Put((shoot(), Some(token("1"))))));
        assert!(!apply(&mut tokens, Seen::Put((shoot(), None))), "it is being renewed");
        assert_eq!(tokens[&shoot()], token("1"));
        assert!(!apply(&mut tokens, Seen::All(vec![(shoot(), Some(token("1")))])));
        assert!(apply(&mut tokens, Seen::All(vec![(shoot(), None)])));
        assert!(tokens.is_empty());
        assert!(!apply(&mut tokens, Seen::Gone((shoot(), None))));
    }
}
