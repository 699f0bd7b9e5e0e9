//! Who a node is, and how it proves that.
//!
//! ```text
//!  agent: key + request + projected token ─▶ Enroller ─▶ TokenReview, Pod, Node at that shoot's API
//!                                                   └─▶ ShootCa::sign ─▶ certificate of 24 h
//!  later: certificate ─▶ TLS handshake (this shoot's CA) ─▶ Peer: the NodeId in it, and until when
//! ```
//!
//! Each shoot has a certificate authority of its own, and the certificate
//! names the shoot too: two checks, either of which keeps shoots apart.
//!
//! * [`ca`]: one authority of a shoot; [`authorities`]: those that it has at a time
//! * [`rotation`]: which these are, and which of them signs what
//! * [`enrol`]: who gets a certificate
//! * [`peer`]: reading one

use std::fmt;

use rootstock_core::name::{InvalidName, NodeName, ShootName, Uid};

pub mod authorities;
pub mod ca;
pub mod enrol;
#[cfg(test)]
pub(crate) mod fixtures;
mod limit;
pub mod peer;
pub mod rotation;
mod token;

/// One node of one shoot, for as long as its Node object lives.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId {
    /// The shoot.
    pub shoot: ShootName,
    /// The name of the Node.
    pub name: NodeName,
    /// The UID of the Node: a Node that is made anew under the same name is another one.
    pub uid: Uid,
}

impl NodeId {
    /// The identity as it stands in a certificate: `spiffe://<shoot>/node/<name>/<uid>`.
    pub fn to_spiffe(&self) -> String {
        format!("spiffe://{}/node/{}/{}", self.shoot, self.name, self.uid)
    }

    /// Reads what [`to_spiffe`](Self::to_spiffe) writes, and nothing else.
    pub fn from_spiffe(uri: &str) -> Result<Self, InvalidIdentity> {
        let path = uri.strip_prefix("spiffe://").ok_or(InvalidIdentity::Scheme)?;
        let parts: Vec<&str> = path.splitn(5, '/').collect();
        let [shoot, "node", name, uid] = parts.as_slice() else {
            return Err(InvalidIdentity::Shape);
        };
        Ok(Self { shoot: shoot.parse()?, name: name.parse()?, uid: uid.parse()? })
    }
}

impl fmt::Display for NodeId {
    /// For people and logs: shoot and name.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.shoot, self.name)
    }
}

/// A text that is not a node's identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidIdentity {
    /// It is not a SPIFFE ID.
    #[error("the identity is not a spiffe:// URI")]
    Scheme,
    /// It is a SPIFFE ID of something else.
    #[error("the identity is not of the form spiffe://<shoot>/node/<name>/<uid>")]
    Shape,
    /// One of its names is malformed.
    #[error(transparent)]
    Name(#[from] InvalidName),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        /// What is read is written the same again: two texts are never one node.
        #[test]
        fn any_identity_has_one_form(
            text in "\\PC{0,40}", parts in prop::collection::vec("(one|node|[a-z0-9./ %-]{0,9})", 0..6),
        ) {
            let made = [format!("spiffe://{}", parts.join("/")), format!("spiffe://one/node/{text}")];
            for uri in made.iter().chain([&text]) {
                if let Ok(id) = NodeId::from_spiffe(uri) {
                    prop_assert_eq!(&id.to_spiffe(), uri);
                    prop_assert_eq!(id.to_string().matches('/').count(), 1);
                }
            }
        }
    }

    #[test]
    fn identities_are_read_as_they_are_written() {
        let id = NodeId {
            shoot: "shoot--garden--one".parse().unwrap(),
            name: "node-1.example.org".parse().unwrap(),
            uid: "9b5f0c1e-0000-4000-8000-000000000001".parse().unwrap(),
        };
        assert_eq!(NodeId::from_spiffe(&id.to_spiffe()).unwrap(), id);
        assert_eq!(id.to_string(), "shoot--garden--one/node-1.example.org");
    }

    #[test]
    fn other_shapes_are_refused() {
        for (uri, want) in [
            ("https://one/node/a/1", "spiffe://"),
            ("SPIFFE://one/node/a/1", "spiffe://"),
            ("spiffe://one/node/a", "form"),
            ("spiffe://one/node/a/1/", "form"),
            ("spiffe://one/node/a/1/x", "form"),
            ("spiffe://one/pod/a/1", "form"),
            ("spiffe://one//node/a/1", "form"),
            ("spiffe:///node/a/1", "invalid shoot name"),
            ("spiffe://user@one/node/a/1", "invalid shoot name"),
            ("spiffe://one/node/../1", "invalid node name"),
            ("spiffe://one/node/a%2fb/1", "invalid node name"),
            ("spiffe://one/node/a/1?x=y", "invalid uid"),
        ] {
            let error = NodeId::from_spiffe(uri).unwrap_err().to_string();
            assert!(error.contains(want), "{uri}: {error}");
        }
    }
}
