//! A survey as aligned lines.

use std::fmt::Write as _;

use super::Survey;

/// What stands where nothing is known.
const UNKNOWN: &str = "unknown";

pub(super) fn render(survey: &Survey) -> String {
    let mut out = String::new();
    let known = |text: Option<&str>| text.unwrap_or(UNKNOWN).to_owned();
    let node = vec![
        ["architecture".to_owned(), known(survey.architecture.map(|is| is.as_str()))],
        ["kernel".to_owned(), known(survey.kernel.as_deref())],
        ["control groups".to_owned(), known(survey.cgroups.as_deref())],
        ["boot".to_owned(), known(survey.boot.as_deref())],
        ["agent".to_owned(), survey.agent.clone()],
    ];
    section(&mut out, "Node", node);
    let mut containerd = vec![["version".to_owned(), known(survey.containerd.version.as_deref())]];
    let config_version = match survey.containerd.config_version {
        Some(version) => format!("version {version}"),
        None => "no file yet".to_owned(),
    };
    match &survey.containerd.setup {
        Some(setup) => containerd.extend([
            ["unit".to_owned(), format!("{} (KillMode={})", setup.unit, setup.kill_mode)],
            ["program".to_owned(), setup.program.clone()],
            ["socket".to_owned(), setup.socket.clone()],
            ["configuration".to_owned(), format!("{} ({config_version})", setup.config)],
        ]),
        None => containerd.push(["unit".to_owned(), "not supported, see below".to_owned()]),
    }
    section(&mut out, "containerd", containerd);
    let handlers = survey.handlers.iter().map(|(name, handler)| {
        let owner = handler.runtime.as_ref().map_or("foreign", |runtime| runtime.as_str());
        let kind = handler.runtime_type.as_deref().unwrap_or_default();
        [name.to_string(), owner.to_owned(), kind.to_owned()]
    });
    section(&mut out, "Handlers", handlers.collect());
    let space = survey.free_space.iter().map(|(root, free)| [root.clone(), size(*free)]);
    section(&mut out, "Free space", space.collect());
    let bundles = survey.bundles.iter().map(|bundle| {
        let verdict = match bundle.reason {
            None => "supported".to_owned(),
            Some(reason) => format!("not supported, {}: {}", reason.as_str(), bundle.message),
        };
        [bundle.runtime.to_string(), bundle.version.clone(), verdict]
    });
    section(&mut out, "Bundles", bundles.collect());
    let obstacles = survey.obstacles.iter().map(|text| [text.clone()]);
    section(&mut out, "Obstacles", obstacles.collect());
    let all = if survey.supported() { "Everything is" } else { "Not everything is" };
    // Writing to a String does not fail.
    let _ = writeln!(out, "{all} supported.");
    out
}

/// A title and rows of aligned cells; nothing where there are none.
fn section<const N: usize>(out: &mut String, title: &str, rows: Vec<[String; N]>) {
    if rows.is_empty() {
        return;
    }
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let _ = writeln!(out, "{title}");
    for row in &rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        let _ = writeln!(out, "  {}", line.trim_end());
    }
    out.push('\n');
}

/// Bytes in the largest unit that leaves a whole part.
fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let whole = bytes >> shift;
        if whole > 0 {
            let tenth = ((bytes - (whole << shift)) * 10) >> shift;
            return format!("{whole}.{tenth} {unit}");
        }
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use rootstock_core::name::Architecture;
    use rootstock_core::status::Reason;

    use super::super::{Bundle, Handler, Runtime, Setup};
    use super::*;

    #[test]
    fn a_survey_reads_as_a_table() {
        let setup = Setup {
            unit: "containerd.service".to_owned(),
            program: "/usr/bin/containerd".to_owned(),
            socket: "/run/containerd/containerd.sock".to_owned(),
            config: "/etc/containerd/config.toml".to_owned(),
            kill_mode: "process".to_owned(),
        };
        let handler = |runtime: Option<&str>| Handler {
            runtime: runtime.map(|name| name.parse().unwrap()),
            runtime_type: Some("t.v1".to_owned()),
        };
        let mut survey = Survey {
            agent: "0.1.0".to_owned(),
            architecture: Some(Architecture::Amd64),
            kernel: Some("6.1.0".to_owned()),
            boot: None,
            cgroups: Some("v2".to_owned()),
            containerd: Runtime {
                version: Some("2.1.4".to_owned()),
                setup: Some(setup),
                config_version: Some(3),
            },
            handlers: [
                ("runc".parse().unwrap(), handler(None)),
                ("runsc".parse().unwrap(), handler(Some("gvisor"))),
            ]
            .into(),
            free_space: [("/var/bin".to_owned(), (5 << 30) + (1 << 29))].into(),
            bundles: vec![Bundle {
                runtime: "kata".parse().unwrap(),
                version: "4.1".to_owned(),
                reason: Some(Reason::PreflightUnmet),
                message: "the node has no device /dev/kvm".to_owned(),
            }],
            obstacles: Vec::new(),
        };
        let want = "\
Node
  architecture    amd64
  kernel          6.1.0
  control groups  v2
  boot            unknown
  agent           0.1.0

containerd
  version        2.1.4
  unit           containerd.service (KillMode=process)
  program        /usr/bin/containerd
  socket         /run/containerd/containerd.sock
  configuration  /etc/containerd/config.toml (version 3)

Handlers
  runc   foreign  t.v1
  runsc  gvisor   t.v1

Free space
  /var/bin  5.5 GiB

Bundles
  kata  4.1  not supported, PreflightUnmet: the node has no device /dev/kvm

Not everything is supported.
";
        assert_eq!(render(&survey), want);
        survey.bundles.clear();
        assert!(render(&survey).ends_with("\nEverything is supported.\n"));
        survey.obstacles.push("x".to_owned());
        assert!(render(&survey).contains("Obstacles\n  x\n") && !survey.supported());
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, want) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB")]
        {
            assert_eq!(size(bytes), want);
        }
    }
}
