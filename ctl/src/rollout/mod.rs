//! `rootstock rollout`: asks something of rollouts, by one annotation each.

mod decide;
#[cfg(test)]
mod tests;
mod wait;

use std::collections::BTreeSet;

use jiff::Timestamp;
use kube::Client;
use rootstock_core::rollout::record::Command;

use self::decide::{Decision, How, decide};
use crate::api::{self, Scope};
use crate::args::RolloutArgs;
use crate::error::Error;
use crate::runtime::Runtime;
use crate::screen::Screen;
use crate::text::{Line, Tone};
use crate::{Outcome, status};

pub(crate) async fn run(
    verb: Command,
    args: &RolloutArgs,
    client: &Client,
    screen: &mut Screen<'_>,
    clock: fn() -> Timestamp,
) -> Result<Outcome, Error> {
    let scope = Scope::new(client, args.all_namespaces, args.namespace.as_deref());
    let mut runtimes = targets(args, client, &scope).await?;
    if runtimes.is_empty() {
        let none = format!("no ContainerRuntimes {}", scope.in_words());
        screen.print(&[Line::plainly(&none)])?;
        return Ok(Outcome::Done);
    }
    let all = runtimes.len();
    // All are asked before any is waited for.
    let (mut failed, mut asked) = (Vec::new(), Vec::new());
    for runtime in runtimes.drain(..) {
        match ask(verb, args, client, screen, &runtime).await {
            Ok(true) => asked.push(runtime),
            Ok(false) => {}
            Err(Error::Output(error)) => return Err(Error::Output(error)),
            Err(error) => failed.push(error),
        }
    }
    if let Some(patience) = args.patience() {
        let end = tokio::time::Instant::now() + patience;
        for before in asked {
            match wait::until_taken(client, &before, verb, end, patience).await {
                Ok(after) => screen.print(&[status::summary(&after, clock())])?,
                Err(error) => failed.push(error),
            }
        }
    }
    match (failed.len(), all) {
        (0, _) => Ok(Outcome::Done),
        (1, 1) => Err(failed.remove(0)),
        (count, all) => {
            let said = |error| Line::new(Tone::Bad, "failed: ").plain(&Error::chain(error));
            let mut lines: Vec<_> = failed.iter().map(said).collect();
            // What all of them need is said once.
            let advice: BTreeSet<_> = failed.iter().filter_map(Error::advice).collect();
            lines.extend(advice.into_iter().map(Line::advice));
            screen.note(&lines);
            Err(Error::Some { failed: count, all })
        }
    }
}

/// The runtimes that are meant, as they are now.
async fn targets(
    args: &RolloutArgs,
    client: &Client,
    scope: &Scope,
) -> Result<Vec<Runtime>, Error> {
    let mut runtimes = Vec::new();
    match scope {
        Scope::Namespace(namespace) if !args.all => {
            // A name that is not there is a slip: nothing is asked of the others then.
            for name in &args.names {
                runtimes.push(Runtime::read(&api::get(client, namespace, name).await?));
            }
        }
        Scope::Namespace(_) | Scope::All => {
            runtimes.extend(api::list(client, scope).await?.iter().map(Runtime::read))
        }
    }
    runtimes.sort_by_key(Runtime::path);
    runtimes.dedup_by_key(|runtime| runtime.path());
    Ok(runtimes)
}

/// Asks one; says whether something is asked of it now.
async fn ask(
    verb: Command,
    args: &RolloutArgs,
    client: &Client,
    screen: &mut Screen<'_>,
    runtime: &Runtime,
) -> Result<bool, Error> {
    let path = runtime.path();
    let mut say =
        |words: &str| screen.print(&[Line::new(Tone::Strong, &path).plain(": ").plain(words)]);
    let how = How { all: args.all, force: args.force };
    let before = match decide(runtime, verb, how) {
        Decision::Ask(before) => before,
        Decision::Asked => {
            say(&format!("{verb} is asked for already, and not taken up yet"))?;
            return Ok(true);
        }
        // Of all, only those are meant where it changes something.
        Decision::Pointless(why) if args.all => {
            say(&format!("left as it is: {why}"))?;
            return Ok(false);
        }
        Decision::Pointless(why) => return Err(Error::Pointless(format!("{path}: {why}"))),
    };
    let word = verb.as_str();
    api::annotate(client, &runtime.namespace, &runtime.name, word, args.dry_run).await?;
    let instead = before.map(|before| format!(", in place of {before}")).unwrap_or_default();
    match args.dry_run {
        true => say(&format!("{verb} would be asked for{instead}"))?,
        false => say(&format!("{verb} is asked for{instead}"))?,
    }
    Ok(!args.dry_run)
}
