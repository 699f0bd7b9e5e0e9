//! The task that publishes Events.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use rootstock_daemon::Shutdown;
use rootstock_daemon::error::Chain;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Said;
use super::series::{Act, Series, Words};

/// Who says it.
const CONTROLLER: &str = "rootstock-controller";
/// The longest note, in bytes, that Kubernetes takes.
const MAX_NOTE: usize = 1024;
/// How long the API may take: the others wait meanwhile.
const PATIENCE: Duration = Duration::from_secs(10);

/// Publishes what was said.
pub(crate) struct Publish {
    client: Client,
    said: mpsc::Receiver<Said>,
}

/// Why an Event is not there.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("the API refused")]
    Api(#[from] kube::Error),
    #[error("the API did not answer within {PATIENCE:?}")]
    Late(#[from] tokio::time::error::Elapsed),
}

impl Publish {
    pub(super) fn new(client: Client, said: mpsc::Receiver<Said>) -> Self {
        Self { client, said }
    }

    pub(crate) async fn run(mut self, shutdown: Shutdown) -> anyhow::Result<()> {
        let mut series = Series::default();
        loop {
            // Cancel-safe: a queue's `recv` loses nothing.
            let said = tokio::select! {
                said = self.said.recv() => said,
                () = shutdown.begun() => return Ok(()),
            };
            let Some(said) = said else { return Ok(()) };
            let word = said.word.as_str();
            // Cancel-safe: an Event is one request, and a courtesy.
            let published = tokio::select! {
                published = self.publish(said, &mut series) => published,
                () = shutdown.begun() => return Ok(()),
            };
            if let Err(error) = published {
                tracing::debug!(word, error = %Chain(&error), "an Event is not written");
            }
        }
    }

    async fn publish(&self, said: Said, series: &mut Series) -> Result<(), PublishError> {
        let note = cut(said.note);
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let of = (part(&said.of.namespace), part(&said.of.name), part(&said.of.uid));
        let words = Words { of, word: said.word, note: note.clone() };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &words.of.0);
        let now = Timestamp::now();
        match series.say(&words, Instant::now()) {
            Act::Nothing => Ok(()),
            Act::Count { name, count } => {
                let series_now = json!({"count": count, "lastObservedTime": MicroTime(now)});
                let patch = Patch::Merge(json!({"series": series_now}));
                let params = PatchParams::default();
                let patched = tokio::time::timeout(PATIENCE, api.patch(&name, &params, &patch));
                let patched = patched.await?;
                if let Err(kube::Error::Api(status)) = &patched
                    && status.code == 404
                {
                    series.lost(&words);
                }
                patched?;
                Ok(())
            }
            Act::Create => {
                let name = format!("{}.{:x}", words.of.1, now.as_nanosecond());
                let event = Event {
                    metadata: ObjectMeta {
                        name: Some(name.clone()),
                        namespace: said.of.namespace.clone(),
                        ..ObjectMeta::default()
                    },
                    event_time: Some(MicroTime(now)),
                    type_: Some(said.word.kind().to_owned()),
                    reason: Some(said.word.as_str().to_owned()),
                    action: Some(said.word.action().to_owned()),
                    note: Some(note),
                    regarding: Some(said.of),
                    reporting_controller: Some(CONTROLLER.to_owned()),
                    reporting_instance: Some(CONTROLLER.to_owned()),
                    ..Event::default()
                };
                tokio::time::timeout(PATIENCE, api.create(&PostParams::default(), &event))
                    .await??;
                series.created(words, name, Instant::now());
                Ok(())
            }
        }
    }
}

/// Cuts a note at a character.
fn cut(mut note: String) -> String {
    if note.len() > MAX_NOTE {
        note.truncate(note.floor_char_boundary(MAX_NOTE - '…'.len_utf8()));
        note.push('…');
    }
    note
}
