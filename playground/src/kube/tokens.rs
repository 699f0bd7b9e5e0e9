//! ServiceAccount tokens: JSON Web Tokens under a key that only this API knows.
//!
//! Issuing and checking are pure, time and randomness are arguments. Whether the
//! ServiceAccount and the Pod of a token still exist is asked of the store.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// The issuer, and the audience of tokens that ask for none.
pub(super) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Signs and reads tokens.
pub(super) struct Tokens {
    key: [u8; 32],
}

/// For whom a token is made.
#[derive(Debug)]
pub(super) struct Grant<'a> {
    pub(super) account: &'a Value,
    pub(super) pod: Option<&'a Value>,
    pub(super) node: Option<(&'a str, Option<&'a str>)>,
    pub(super) audiences: Vec<String>,
    pub(super) expires: Timestamp,
}

/// What a token says, its signature and lifetime checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) id: String,
    pub(super) namespace: String,
    pub(super) account: Bound,
    pub(super) pod: Option<Bound>,
    pub(super) node: Option<Bound>,
    pub(super) audiences: Vec<String>,
}

/// An object by name and uid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bound {
    pub(super) name: String,
    pub(super) uid: String,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self { key }
    }

    /// Makes a token.
    pub(super) fn issue(&self, grant: &Grant<'_>, id: &str, now: Timestamp) -> String {
        let bound = |object: &Value| json!({"name": object["metadata"]["name"], "uid": object["metadata"]["uid"]});
        let account = &grant.account["metadata"];
        let mut private =
            json!({"namespace": account["namespace"], "serviceaccount": bound(grant.account)});
        if let Some(pod) = grant.pod {
            private["pod"] = bound(pod);
        }
        if let Some((name, uid)) = grant.node {
            private["node"] = json!({"name": name});
            if let Some(uid) = uid {
                private["node"]["uid"] = json!(uid);
            }
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let subject = format!(
            "system:serviceaccount:{}:{}",
            text(&account["namespace"]),
            text(&account["name"])
        );
        let claims = json!({
            "aud": grant.audiences, "exp": grant.expires.as_second(), "iat": now.as_second(),
            "nbf": now.as_second(), "iss": ISSUER, "jti": id, "sub": subject, "kubernetes.io": private,
        });
        let encode = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed =
            format!("{}.{}", encode(json!({"alg": "HS256", "typ": "JWT"})), encode(claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(self.mac(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    /// Reads a token.
    ///
    /// # Errors
    /// It is not one of ours, or its time is over.
    pub(super) fn read(&self, token: &str, now: Timestamp) -> Result<Claims, &'static str> {
        const FOREIGN: &str = "invalid bearer token";
        let (signed, signature) = token.rsplit_once('.').ok_or(FOREIGN)?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).map_err(|_| FOREIGN)?;
        // Compared by their hashes, so that time tells nothing about the right one.
        if Sha256::digest(&signature) != Sha256::digest(self.mac(signed.as_bytes())) {
            return Err(FOREIGN);
        }
        let (_, payload) = signed.split_once('.').ok_or(FOREIGN)?;
        let payload = BASE64_URL_SAFE_NO_PAD.decode(payload).map_err(|_| FOREIGN)?;
        let claims: Value = serde_json::from_slice(&payload).map_err(|_| FOREIGN)?;
        if claims["exp"].as_i64().is_none_or(|end| now.as_second() >= end) {
            return Err("[invalid bearer token, service account token has expired]");
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let private = &claims["kubernetes.io"];
        let bound = |value: &Value| Bound { name: text(&value["name"]), uid: text(&value["uid"]) };
        let optional = |value: &Value| value.is_object().then(|| bound(value));
        Ok(Claims {
            id: text(&claims["jti"]),
            namespace: text(&private["namespace"]),
            account: bound(&private["serviceaccount"]),
            pod: optional(&private["pod"]),
            node: optional(&private["node"]),
            audiences: claims["aud"].as_array().into_iter().flatten().map(text).collect(),
        })
    }

    /// HMAC with SHA-256 (RFC 2104).
    fn mac(&self, message: &[u8]) -> [u8; 32] {
        let padded = |byte: u8| {
            let mut block = [byte; 64];
            block.iter_mut().zip(self.key).for_each(|(b, k)| *b ^= k);
            block
        };
        let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
        Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
    }
}

impl Claims {
    /// `system:serviceaccount:<namespace>:<name>`.
    pub(super) fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.account.name)
    }

    /// The groups of every ServiceAccount.
    pub(super) fn groups(&self) -> Vec<String> {
        vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{}", self.namespace),
            "system:authenticated".to_owned(),
        ]
    }

    /// What a TokenReview tells beside name and groups.
    pub(super) fn extra(&self) -> Value {
        let mut extra =
            json!({"authentication.kubernetes.io/credential-id": [format!("JTI={}", self.id)]});
        for (what, bound) in [("pod", &self.pod), ("node", &self.node)] {
            if let Some(bound) = bound {
                extra[format!("authentication.kubernetes.io/{what}-name")] = json!([bound.name]);
                if !bound.uid.is_empty() {
                    extra[format!("authentication.kubernetes.io/{what}-uid")] = json!([bound.uid]);
                }
            }
        }
        extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_tokens_in_their_time() {
        let tokens = Tokens::new([7; 32]);
        let now = Timestamp::from_second(1_000_000).unwrap();
        let later = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).unwrap();
        let account =
            json!({"metadata": {"name": "agent", "namespace": "kube-system", "uid": "u1"}});
        let pod = json!({"metadata": {"name": "p", "uid": "u2"}});
        let grant = Grant {
            account: &account,
            pod: Some(&pod),
            node: Some(("n", Some("u3"))),
            audiences: vec!["rootstock".into()],
            expires: later(600),
        };
        let token = tokens.issue(&grant, "id", now);
        let claims = tokens.read(&token, later(599)).unwrap();
        assert_eq!(claims.user(), "system:serviceaccount:kube-system:agent");
        assert_eq!(claims.audiences, ["rootstock"]);
        assert_eq!(
            claims.extra(),
            json!({"authentication.kubernetes.io/credential-id": ["JTI=id"],
                "authentication.kubernetes.io/pod-name": ["p"], "authentication.kubernetes.io/pod-uid": ["u2"],
                "authentication.kubernetes.io/node-name": ["n"], "authentication.kubernetes.io/node-uid": ["u3"]})
        );
        assert!(tokens.read(&token, later(600)).is_err());
        assert!(Tokens::new([8; 32]).read(&token, now).is_err());
        let (head, _) = token.rsplit_once('.').unwrap();
        for bad in [
            head.to_owned(),
            format!("{head}."),
            format!("{token}A"),
            format!("x{token}"),
            String::new(),
        ] {
            assert!(tokens.read(&bad, now).is_err(), "{bad}");
        }
    }

    #[test]
    fn mac_is_hmac() {
        // RFC 4231, test case 3 has a key of 20 bytes; ours are 32, padded with zeros alike.
        let mut key = [0; 32];
        key[..20].fill(0xaa);
        let mac = Tokens::new(key).mac(&[0xdd; 50]);
        assert_eq!(mac[..4], [0x77, 0x3e, 0xa9, 0x1e]);
    }
}
