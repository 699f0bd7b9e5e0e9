//! Tokens: where a registry has them given out, and who is shown the credential for one.
//!
//! A registry answers whom it does not know with a challenge that names a
//! realm, and a client shows its credential there. The name is the registry's
//! word alone: it must not lead the credential to somebody else.

use std::net::IpAddr;

use http::header::WWW_AUTHENTICATE;
use oci_client::secrets::RegistryAuth;
use reqwest::Url;
use rootstock_core::reference::Repository;
use serde::Deserialize;

use crate::client::{Base, Client};
use crate::fetch::{Trouble, body};

/// The largest answer with a token. A token has 1 KiB to 8 KiB.
const MAX_ANSWER: usize = 64 << 10;

/// What a registry wants to see.
pub(crate) enum Wanted {
    /// The credential itself, or nothing.
    Nothing,
    /// A token, which is this one.
    Token(String),
}

/// A challenge of a registry that wants a token.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    realm: String,
    service: Option<String>,
}

/// A token service's answer, by either of the names that it may have.
#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Client {
    /// The token that the registry wants for what `actions` are done with `repository`.
    pub(crate) async fn wanted(
        &self,
        repository: &Repository,
        actions: &str,
    ) -> Result<Wanted, Trouble> {
        if let RegistryAuth::Bearer(token) = &self.auth {
            return Ok(Wanted::Token(token.clone()));
        }
        let what = "its token";
        let answer = self.http.get(format!("{}/v2/", self.base.url)).send().await;
        let answer = answer.map_err(Trouble::Unreachable)?;
        let challenges = answer.headers().get_all(WWW_AUTHENTICATE).iter();
        let challenge = challenges.filter_map(|value| value.to_str().ok()).find_map(challenge);
        let Some(Challenge { realm, service }) = challenge else { return Ok(Wanted::Nothing) };

        let login = match &self.auth {
            RegistryAuth::Basic(user, secret) => Some((user, secret)),
            RegistryAuth::Anonymous | RegistryAuth::Bearer(_) => None,
        };
        let mut url = self.base.realm(&realm, login.is_some())?;
        url.query_pairs_mut()
            .append_pair("scope", &format!("repository:{repository}:{actions}"))
            .extend_pairs(service.map(|service| ("service", service)));
        let mut request = self.http.get(url);
        if let Some((user, secret)) = login {
            request = request.basic_auth(user, Some(secret));
        }
        let mut answer = request.send().await.map_err(Trouble::Unreachable)?;
        let bytes = body(&mut answer, MAX_ANSWER, what).await?;
        token(&bytes).map(Wanted::Token)
    }
}

impl Base {
    /// The realm as a URL, if a registry may lead a client there: not out of
    /// TLS, and with a credential only to itself or, with TLS, to its
    /// neighbours, as `registry.gitlab.com` leads to `gitlab.com`.
    fn realm(&self, realm: &str, with_login: bool) -> Result<Url, Trouble> {
        let refused = |why| {
            let realm = realm.chars().filter(|c| !c.is_control()).take(200).collect();
            Trouble::Realm { realm, why }
        };
        let url = Url::parse(realm).map_err(|_| refused("it is no URL"))?;
        let own = Url::parse(&self.url).map_err(|_| refused("the registry has no URL"))?;
        let secret = !url.username().is_empty() || url.password().is_some();
        if !matches!(url.scheme(), "http" | "https") || secret {
            return Err(refused("it is not a plain http:// or https:// URL"));
        }
        if own.scheme() == "https" && url.scheme() != "https" {
            return Err(refused("it leads from https to http"));
        }
        let hosts = (own.host_str().unwrap_or_default(), url.host_str().unwrap_or_default());
        let same =
            hosts.0 == hosts.1 || own.scheme() == "https" && are_neighbours(hosts.0, hosts.1);
        if with_login && !same {
            return Err(refused("the credential is not shown to another host"));
        }
        Ok(url)
    }
}

/// Whether the second host lies in the domain that the first one lies in: one
/// of two labels at least, since `com` is nobody's.
fn are_neighbours(registry: &str, realm: &str) -> bool {
    let Some((_, domain)) = registry.split_once('.') else { return false };
    let named = registry.trim_matches(['[', ']']).parse::<IpAddr>().is_err();
    let within =
        realm.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'));
    let below = realm.strip_suffix(registry).is_some_and(|front| front.ends_with('.'));
    named && (below || domain.contains('.') && within)
}

/// The first challenge for a token in a header: `Bearer key="value",…`, also
/// behind others.
fn challenge(header: &str) -> Option<Challenge> {
    let mut rest = header;
    let mut found = Challenge { realm: String::new(), service: None };
    let mut bearer = false;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let word = &rest[..end];
        rest = rest[end..].trim_start_matches([' ', '\t']);
        if word.is_empty() && !rest.starts_with('=') || rest.is_empty() {
            break;
        }
        let Some(value) = rest.strip_prefix('=') else {
            // A word without a value is a scheme: the parameters that follow are its own.
            if bearer && !found.realm.is_empty() {
                break;
            }
            bearer = word.eq_ignore_ascii_case("bearer");
            found = Challenge { realm: String::new(), service: None };
            continue;
        };
        let (value, behind) = text(value.trim_start_matches([' ', '\t']));
        rest = behind;
        if word.eq_ignore_ascii_case("realm") {
            found.realm = value;
        } else if word.eq_ignore_ascii_case("service") {
            found.service = Some(value);
        }
    }
    (bearer && !found.realm.is_empty()).then_some(found)
}

/// A value, in quotes or not, and what is behind it.
fn text(value: &str) -> (String, &str) {
    let Some(quoted) = value.strip_prefix('"') else {
        let end = value.find([' ', '\t', ',']).unwrap_or(value.len());
        return (value[..end].to_owned(), &value[end..]);
    };
    let (mut text, mut escaped) = (String::new(), false);
    for (at, c) in quoted.char_indices() {
        match c {
            '"' if !escaped => return (text, &quoted[at + 1..]),
            '\\' if !escaped => escaped = true,
            _ => {
                text.push(c);
                escaped = false;
            }
        }
    }
    // It does not end: what of it is there is not what was meant.
    (String::new(), "")
}

/// The token in an answer, if it can stand in a header.
fn token(json: &[u8]) -> Result<String, Trouble> {
    let unusable = || Trouble::Unexpected("its token can't be read".to_owned());
    let answer: Answer = serde_json::from_slice(json).map_err(|_| unusable())?;
    let given = [answer.token, answer.access_token].into_iter().flatten();
    given
        .into_iter()
        .find(|token| !token.is_empty())
        .filter(|token| token.bytes().all(|b| b.is_ascii_graphic()))
        .ok_or_else(unusable)
}

#[cfg(test)]
mod tests;
