//! What can be read of a token without asking anyone.
//!
//! Nothing here says that a token is good: that is for the shoot's API. It
//! only keeps that API from being asked about tokens that can't be.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;

/// The audience that the agent's token is for.
pub(super) const AUDIENCE: &str = "rootstock";
/// Whose token it is.
pub(super) const SUBJECT: &str = "system:serviceaccount:kube-system:rootstock-agent";
/// The largest token, in bytes. A projected token has 1 KiB to 2 KiB.
const MAX_SIZE: usize = 16 * 1024;
/// How far this clock and the API server's may be apart, in seconds.
const LEEWAY: i64 = 60;

/// A token that can't be the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is empty, too large, or has characters that no token has.
    #[error("the token is not one: 1 to 16384 visible ASCII characters are expected")]
    Malformed,
    /// Its time is over.
    #[error("the token has expired")]
    Expired,
    /// It was made for something else.
    #[error("the token is not for audience rootstock")]
    Audience,
    /// It is someone else's.
    #[error("the token is not that of ServiceAccount kube-system/rootstock-agent")]
    Subject,
}

#[derive(Deserialize)]
struct Claims {
    sub: Option<String>,
    aud: Option<Audiences>,
    exp: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    Many(Vec<String>),
}

/// Refuses a token that the API server would refuse, as far as that can be
/// seen. A token that is not a JWT is opaque and passes.
pub(super) fn precheck(token: &str, now: Timestamp) -> Result<(), TokenError> {
    if token.is_empty() || token.len() > MAX_SIZE || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(TokenError::Malformed);
    }
    let Some(claims) = claims(token) else { return Ok(()) };
    if claims.exp.is_some_and(|exp| exp.saturating_add(LEEWAY) < now.as_second()) {
        return Err(TokenError::Expired);
    }
    let audience = match claims.aud {
        None => false,
        Some(Audiences::One(one)) => one == AUDIENCE,
        Some(Audiences::Many(many)) => many.iter().any(|one| one == AUDIENCE),
    };
    if !audience {
        return Err(TokenError::Audience);
    }
    if claims.sub.as_deref() != Some(SUBJECT) {
        return Err(TokenError::Subject);
    }
    Ok(())
}

fn claims(token: &str) -> Option<Claims> {
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts.as_slice() else { return None };
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn jwt(claims: &Value) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims.to_string()))
    }

    #[test]
    fn tokens_are_judged_by_what_can_be_read() {
        let now = Timestamp::from_second(1_000_000).unwrap();
        let good = json!({"sub": SUBJECT, "aud": ["rootstock"], "exp": 1_000_100});
        let with = |key: &str, value: Value| {
            let mut claims = good.clone();
            claims[key] = value;
            jwt(&claims)
        };
        let table = [
            (jwt(&good), Ok(())),
            (with("aud", json!("rootstock")), Ok(())),
            (with("exp", json!(999_950)), Ok(())),
            (with("exp", json!(999_900)), Err(TokenError::Expired)),
            (with("aud", json!(["https://kubernetes.default.svc"])), Err(TokenError::Audience)),
            (with("aud", json!([])), Err(TokenError::Audience)),
            (with("aud", Value::Null), Err(TokenError::Audience)),
            (with("sub", json!("system:serviceaccount:default:x")), Err(TokenError::Subject)),
            (with("sub", Value::Null), Err(TokenError::Subject)),
            ("opaque-token".to_owned(), Ok(())),
            ("not.a.jwt".to_owned(), Ok(())),
            (String::new(), Err(TokenError::Malformed)),
            ("a b".to_owned(), Err(TokenError::Malformed)),
            ("ä".to_owned(), Err(TokenError::Malformed)),
            ("a".repeat(MAX_SIZE + 1), Err(TokenError::Malformed)),
        ];
        for (token, want) in table {
            assert_eq!(precheck(&token, now), want, "{:.60}", token);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// Whatever is shown as a token, the API is asked about none that is
        /// too large, no text, or says itself that it is something else.
        #[test]
        fn any_token_is_passed_on_or_refused(
            text in "(?s).{0,80}", part in any::<Vec<u8>>(), exp: i64,
            audience in "(rootstock|api)", subject in prop_oneof![Just(SUBJECT), Just("admin")],
        ) {
            let now = Timestamp::from_second(1_000_000).unwrap();
            let odd = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(part));
            for token in [&text, &odd] {
                if precheck(token, now).is_ok() {
                    prop_assert!(!token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()));
                }
            }
            let token = jwt(&json!({"sub": subject, "aud": [audience], "exp": exp}));
            let good = subject == SUBJECT && audience == AUDIENCE && exp >= 1_000_000 - LEEWAY;
            prop_assert_eq!(precheck(&token, now).is_ok(), good);
        }
    }
}
