//! The tables that `up` ends with.

use comfy_table::{ContentArrangement, LineStyle, Table, TableStyle};

use crate::seed::snapshot::{ContainerRuntime, Document, Node};

/// A line below the header and no others: tables stay calm, and grep finds whole
/// rows. They fit into 80 columns; the JSON document has the rest.
const STYLE: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// One row for each ContainerRuntime.
pub(super) fn container_runtimes(document: &Document) -> Table {
    let mut table = table(&["NAMESPACE", "RUNTIME", "OPERATION", "HEALTHY", "REASON"]);
    for resource in &document.container_runtimes {
        let operation = resource.last_operation.as_ref();
        let operation = operation.map(|last| format!("{} {}", last.operation, last.state));
        table.add_row([
            resource.namespace.clone(),
            resource.name.clone(),
            operation.unwrap_or_else(|| "none yet".to_owned()),
            if resource.is_healthy() { "yes" } else { "no" }.to_owned(),
            why(resource),
        ]);
    }
    table
}

/// One row for each node.
pub(super) fn nodes(document: &Document) -> Table {
    let mut table = table(&["SHOOT", "NODE", "POOL", "RUNTIMES", "RESTARTS"]);
    for node in &document.nodes {
        table.add_row([
            node.shoot.clone(),
            node.name.clone(),
            node.pool.clone(),
            runtimes(node),
            node.containerd_restarts.to_string(),
        ]);
    }
    table
}

/// One row for each thing that is not as it should be.
pub(super) fn missing(rows: &[(String, String)]) -> Table {
    let mut table = table(&["MISSING", "WHY"]);
    // Messages are long; a hundred columns can be read everywhere.
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(100);
    for (what, why) in rows {
        table.add_row([what, why]);
    }
    table
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(STYLE);
    table.set_header(header.iter().copied());
    table
}

fn why(resource: &ContainerRuntime) -> String {
    let worst = resource.conditions.iter().find(|condition| condition.status != "True");
    let shown = worst.or_else(|| resource.condition("SystemComponentsHealthy"));
    shown.map_or_else(String::new, |condition| condition.reason.clone())
}

fn runtimes(node: &Node) -> String {
    let texts = node.runtimes.iter().map(|runtime| {
        format!("{} {} {}", runtime.runtime, runtime.version, runtime.phase).trim().to_owned()
    });
    or_nothing(texts.collect::<Vec<_>>().join("\n"))
}

fn or_nothing(text: String) -> String {
    if text.is_empty() { "none".to_owned() } else { text }
}
