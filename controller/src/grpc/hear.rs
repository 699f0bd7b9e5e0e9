//! What a node says on its stream, given on to the directory.

use rootstock_core::bandwidth::{Request, Shrunk};
use rootstock_core::desired::Generation;
use rootstock_proto::v1::{self, node_message};
use rootstock_proto::{MAX_TYPES, report};
use tonic::Status;

use super::seat::Seat;
use super::{Directory, RefusedItem};
use crate::bandwidth::Line;

/// Gives on what a node says, item by item: one that can't be read is skipped
/// and counted.
pub(super) fn hear<D: Directory>(
    seat: &Seat<D>,
    line: &mut Line,
    skipped: &mut u64,
    message: v1::NodeMessage,
) -> Result<(), Status> {
    use node_message::Kind;
    let (node, directory) = (&seat.node, &seat.directory);
    match message.kind {
        Some(Kind::Report(wire)) => {
            let generation = Generation(wire.generation);
            let (good, bad) = report::bundles(wire)?;
            for invalid in &bad {
                tracing::debug!(%node, %invalid, "item of a report skipped");
            }
            *skipped += u64::try_from(bad.len()).unwrap_or(u64::MAX);
            directory.report(node, generation, good);
        }
        Some(Kind::Accept(accept)) => {
            directory.accepted(node, Generation(accept.generation));
        }
        Some(Kind::Refuse(refuse)) => {
            let generation = Generation(refuse.generation);
            let mut items = Vec::new();
            // Each type and the whole: more can't be meant.
            for item in refuse.items.into_iter().take(MAX_TYPES + 1) {
                match RefusedItem::try_from(item) {
                    Ok(item) => items.push(item),
                    Err(invalid) => {
                        tracing::debug!(%node, %invalid, "item of a refusal skipped");
                        *skipped += 1;
                    }
                }
            }
            directory.refused(node, generation, items);
        }
        Some(Kind::Hello(_)) => {
            return Err(Status::invalid_argument("Hello is said once"));
        }
        Some(Kind::PullRequest(wire)) => match Request::try_from(wire) {
            Ok(request) => line.ask(|| directory.puller(node), request),
            Err(invalid) => {
                tracing::debug!(%node, %invalid, "request skipped");
                *skipped += 1;
            }
        },
        Some(Kind::GrantShrunk(wire)) => {
            line.keep(|| directory.puller(node), Shrunk::try_from(wire)?);
        }
        // A slot is asked for by the phase, and no steps are kept; the
        // confirmation of a removal is in the report too.
        Some(
            Kind::SlotRequest(_)
            | Kind::Steps(_)
            | Kind::InUse(_)
            | Kind::RemovalConfirmed(_),
        )
        // A newer agent may say what this controller does not know.
        | None => tracing::trace!(%node, "message ignored"),
    }
    Ok(())
}
