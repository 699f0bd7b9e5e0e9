//! `rootstock status`: once, or again and again.

mod board;
mod overview;
mod page;
#[cfg(test)]
mod tests;
mod watch;

use jiff::Timestamp;
use kube::Client;
use serde_json::json;

use crate::Outcome;
use crate::api::{self, Scope};
use crate::args::{Connection, Output, StatusArgs};
use crate::error::Error;
use crate::runtime::Runtime;
use crate::screen::Screen;
use crate::text::Line;

pub(crate) use overview::summary;

pub(crate) async fn run(
    args: &StatusArgs,
    connection: &Connection,
    client: &Client,
    screen: &mut Screen<'_>,
    clock: fn() -> Timestamp,
) -> Result<Outcome, Error> {
    let scope = Scope::new(client, args.all_namespaces, args.namespace.as_deref());
    let view = View { name: args.name.as_deref(), scope: &scope, connection };
    if args.watch {
        return watch::run(&view, args.output, client, screen, clock).await;
    }
    let mut runtimes = match (&args.name, &scope) {
        (Some(name), Scope::Namespace(namespace)) => {
            vec![Runtime::read(&api::get(client, namespace, name).await?)]
        }
        _ => api::list(client, &scope).await?.iter().map(Runtime::read).collect(),
    };
    runtimes.sort_by_key(Runtime::path);
    match args.output {
        Output::Json => {
            let document = match (&args.name, runtimes.first()) {
                (Some(_), Some(runtime)) => runtime.to_json(),
                _ => json!({
                    "containerRuntimes": runtimes.iter().map(Runtime::to_json).collect::<Vec<_>>(),
                }),
            };
            screen.print_json(&format!("{document:#}"))?;
        }
        Output::Table => {
            let lines = view.lines(&runtimes, clock(), screen.width());
            screen.print_cut(lines)?;
        }
    }
    Ok(match (&args.name, runtimes.first()) {
        (Some(_), Some(runtime)) if runtime.stands() => Outcome::Stands,
        _ => Outcome::Done,
    })
}

/// What is looked at.
struct View<'a> {
    name: Option<&'a str>,
    scope: &'a Scope,
    connection: &'a Connection,
}

impl View<'_> {
    /// What a person sees of it.
    fn lines(&self, runtimes: &[Runtime], now: Timestamp, width: Option<usize>) -> Vec<Line> {
        match (self.name, runtimes) {
            (Some(_), [runtime]) => page::lines(runtime, self.connection, now, width),
            (Some(name), _) => {
                let gone = format!("no ContainerRuntime {name} {}", self.scope.in_words());
                vec![Line::plainly(&gone)]
            }
            (None, []) => {
                let none = format!("no ContainerRuntimes {}", self.scope.in_words());
                let elsewhere = match self.scope {
                    Scope::All => "",
                    Scope::Namespace(_) => "; -A shows those of all namespaces",
                };
                vec![Line::plainly(&(none + elsewhere))]
            }
            (None, _) => {
                let namespaces = matches!(self.scope, Scope::All);
                overview::lines(runtimes, namespaces, now, width)
            }
        }
    }
}
