//! What goes wrong, where, and what to do about it.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kubeconfig can't be used.
    #[error("failed to use the kubeconfig{}", .path.as_ref().map(|p| format!(" {}", p.display())).unwrap_or_default())]
    Kubeconfig {
        /// The file, where one was named.
        path: Option<PathBuf>,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The API knows no ContainerRuntimes.
    #[error("failed to {doing}: this cluster has no ContainerRuntimes")]
    NotServed {
        /// What was tried.
        doing: String,
    },
    /// There is no such ContainerRuntime.
    #[error("no ContainerRuntime {name:?} in namespace {namespace:?}")]
    NotFound {
        /// Where it was looked for.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The user may not.
    #[error("failed to {doing}: {message}")]
    Forbidden {
        /// What was tried.
        doing: String,
        /// The API's words.
        message: String,
    },
    /// The API refused it for another reason.
    #[error("failed to {doing}: {message}")]
    Refused {
        /// What was tried.
        doing: String,
        /// The API's words.
        message: String,
    },
    /// The API did not answer as it should.
    #[error("failed to {doing}")]
    Request {
        /// What was tried.
        doing: String,
        /// Why.
        #[source]
        source: kube::Error,
    },
    /// The API did not answer at all.
    #[error("failed to {doing}: no answer in {seconds} s")]
    Silent {
        /// What was tried.
        doing: String,
        /// For how long.
        seconds: u64,
    },
    /// A rollout would not be changed by it.
    #[error("{0}")]
    Pointless(String),
    /// The controller did not take up what was asked for.
    #[error("{what}: asked to {verb}, and the controller has not taken that up in {seconds} s")]
    NotTaken {
        /// Namespace and name.
        what: String,
        /// What was asked for.
        verb: &'static str,
        /// How long it was waited for.
        seconds: u64,
    },
    /// Somebody else asked for something else meanwhile.
    #[error("{what}: asked to {verb}, and somebody else asked to {other} meanwhile")]
    Overruled {
        /// Namespace and name.
        what: String,
        /// What was asked for.
        verb: &'static str,
        /// What is asked for now.
        other: String,
    },
    /// Some of several failed; each was said.
    #[error("{failed} of {all} failed")]
    Some {
        /// How many.
        failed: usize,
        /// Of how many.
        all: usize,
    },
    /// Nothing can be printed.
    #[error("failed to write the output")]
    Output(#[source] io::Error),
}

impl Error {
    /// Sorts what the API answered to `doing`.
    pub(crate) fn of_request(doing: String, error: kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Self::Request { doing, source: error };
        };
        let message = status.message.clone();
        match status.code {
            404 => Self::NotServed { doing },
            401 | 403 => Self::Forbidden { doing, message },
            _ if message.is_empty() => {
                Self::Refused { doing, message: format!("the API answered {}", status.code) }
            }
            _ => Self::Refused { doing, message },
        }
    }

    /// What to do about it, as the end of a message.
    pub fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Self::Kubeconfig { .. } => {
                "name one with --kubeconfig or $KUBECONFIG, and a context of it with --context"
            }
            Self::NotServed { .. } => {
                "use the kubeconfig of a Gardener seed, or of a plain cluster in which Rootstock runs"
            }
            Self::NotFound { .. } => "see what there is: rootstock status -A",
            Self::Forbidden { .. } => {
                "you need get, list, watch and patch of containerruntimes.extensions.gardener.cloud"
            }
            Self::Request { .. } | Self::Silent { .. } => {
                "check the API server's address in the kubeconfig, and the network path to it"
            }
            Self::NotTaken { .. } => {
                "check that a rootstock-controller runs and leads; it takes this up when it does"
            }
            Self::Overruled { .. } => "agree with them, then ask again",
            Self::Refused { .. } | Self::Pointless(_) | Self::Some { .. } | Self::Output(_) => {
                return None;
            }
        })
    }

    /// The error and its causes on one line, each said once.
    pub fn chain(&self) -> String {
        let mut said = self.to_string();
        let mut source = self.source();
        while let Some(error) = source {
            let text = error.to_string();
            if !said.contains(&text) {
                said = format!("{said}: {text}");
            }
            source = error.source();
        }
        said
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
