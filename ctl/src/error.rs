//! What goes wrong, where, and what to do about it.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use kube::client::AuthError;

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
    /// The exec plugin that the kubeconfig names gave no credentials.
    #[error("failed to {doing}: the kubeconfig's exec plugin gave no credentials: {message}")]
    Plugin {
        /// What was tried.
        doing: String,
        /// How it failed. It is never what the plugin printed for the client to
        /// read, nor how it was called: both may have secrets in them.
        message: String,
    },
    /// The API does not know the user.
    #[error("failed to {doing}: {message}")]
    Unauthorized {
        /// What was tried.
        doing: String,
        /// The API's words.
        message: String,
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
            return match plugin_failure(&error) {
                Some(message) => Self::Plugin { doing, message },
                None => Self::Request { doing, source: error },
            };
        };
        let message = match status.message.as_str() {
            "" => format!("the API answered {}", status.code),
            said => said.to_owned(),
        };
        match status.code {
            404 => Self::NotServed { doing },
            401 => Self::Unauthorized { doing, message },
            403 => Self::Forbidden { doing, message },
            _ => Self::Refused { doing, message },
        }
    }

    /// Sorts why there is no client.
    pub(crate) fn of_kubeconfig(path: Option<PathBuf>, error: kube::Error) -> Self {
        match plugin_failure(&error) {
            Some(message) => Self::Plugin { doing: "connect".to_owned(), message },
            None => Self::Kubeconfig { path, source: error.into() },
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
            Self::Plugin { .. } => {
                "run the plugin by itself (`users[].user.exec` of the kubeconfig): it has to be in \
                 your PATH, and may want you to log in"
            }
            Self::Unauthorized { .. } => {
                "log in again: the kubeconfig's token or certificate has expired, or is another cluster's"
            }
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

/// How an exec plugin failed, if that is what lies behind an error.
fn plugin_failure(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let Some(failure) = error.downcast_ref::<AuthError>() else {
        return error.source().and_then(plugin_failure);
    };
    match failure {
        AuthError::AuthExecStart(error) => Some(format!("it can't be started: {error}")),
        AuthError::AuthExecRun { out, .. } => {
            let said = String::from_utf8_lossy(&out.stderr);
            let last = said.trim().lines().last().map(|said| format!(": {said}"));
            Some(format!("it ended with {}{}", out.status, last.unwrap_or_default()))
        }
        AuthError::AuthExecParse(_) => Some("what it printed can't be read".to_owned()),
        AuthError::ExecPluginFailed
        | AuthError::AuthExecSerialize(_)
        | AuthError::AuthExec(_)
        | AuthError::MissingCommand
        | AuthError::ExecMissingClusterInfo
        | AuthError::UnrefreshableTokenResponse
        | AuthError::MalformedTokenExpirationDate(_) => Some(failure.to_string()),
        AuthError::InvalidBasicAuth(_)
        | AuthError::InvalidBearerToken(_)
        | AuthError::ReadTokenFile(..)
        | AuthError::ParseTokenKey(_)
        | AuthError::NoValidNativeRootCA(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{ExitStatus, Output};

    use super::*;

    fn run(code: i32, stderr: &str) -> AuthError {
        let (status, stderr) = (ExitStatus::from_raw(code << 8), stderr.as_bytes().to_vec());
        let out = Box::new(Output { status, stdout: b"token: s3cret".to_vec(), stderr });
        AuthError::AuthExecRun { cmd: "KEY=s3cret gardenlogin".to_owned(), out }
    }

    #[test]
    fn a_plugin_that_fails_is_named_wherever_it_does() {
        let missing = || io::Error::new(io::ErrorKind::NotFound, "no such file");
        let table = [
            (AuthError::AuthExecStart(missing()), "it can't be started: no such file"),
            (run(1, "usage\nlog in first\n"), "it ended with exit status: 1: log in first"),
            (run(2, ""), "it ended with exit status: 2"),
            (AuthError::ExecPluginFailed, "exec-plugin response did not contain a status"),
        ];
        for (failure, want) in table {
            // At the beginning, and when a token is to be had again.
            let begun = Error::of_kubeconfig(None, kube::Error::Auth(failure));
            let want = |doing| {
                format!(
                    "failed to {doing}: the kubeconfig's exec plugin gave no credentials: {want}"
                )
            };
            assert_eq!(begun.chain(), want("connect"));
            assert!(begun.advice().unwrap().contains("users[].user.exec"));
        }
        let later = kube::Error::Service(Box::new(run(1, "")));
        let later = Error::of_request("list".to_owned(), later);
        assert!(later.chain().ends_with("it ended with exit status: 1"), "{later:?}");
        assert!(!format!("{later:?} {}", later.chain()).contains("s3cret"));
        // The rest is no plugin's.
        let file = || AuthError::ReadTokenFile(missing(), "/token".into());
        let error = Error::of_kubeconfig(None, kube::Error::Auth(file()));
        assert!(matches!(error, Error::Kubeconfig { .. }), "{error:?}");
        let error = Error::of_request(String::new(), kube::Error::Service(Box::new(file())));
        assert!(matches!(error, Error::Request { .. }), "{error:?}");
    }
}
