//! Which containerd the node has, and whether this agent may change it.

use super::unit::{SERVICE, Systemd, UNIT};
use super::{CONTAINERD, SOCKET};
use crate::containerd::{FILE, FOLDER};
use crate::host::Installation;

/// Distributions that bring a containerd of their own, by their units.
const DISTRIBUTIONS: [(&str, &[&str]); 4] = [
    ("k3s", &["k3s.service", "k3s-agent.service"]),
    ("rke2", &["rke2-server.service", "rke2-agent.service"]),
    ("k0s", &["k0scontroller.service", "k0sworker.service"]),
    ("microk8s", &["snap.microk8s.daemon-containerd.service"]),
];

/// systemd's `ExecStart`: path, arguments, and how its last run went.
type ExecStart = (String, Vec<String>, bool, u64, u64, u64, u64, u32, i32, i32);

/// Looks for containerd; `Err` within says why this one is not for us.
pub(super) async fn find(systemd: &Systemd) -> zbus::Result<Result<Installation, String>> {
    let unit = systemd.unit(CONTAINERD).await?;
    let load: String = unit.property(UNIT, "LoadState").await?;
    let active: String = unit.property(UNIT, "ActiveState").await?;
    let runs = load == "loaded" && active == "active";
    if !runs && let Some((name, its)) = distribution(systemd).await? {
        return Ok(Err(format!(
            "the containerd of {name} ({its}) is not supported: its configuration and its socket \
             are its own; Rootstock needs a node with a plain {CONTAINERD}"
        )));
    }
    if load != "loaded" {
        return Ok(Err(format!(
            "there is no {CONTAINERD} on this node (systemd says {load}): install containerd with \
             its unit, or unmask it"
        )));
    }
    let commands: Vec<ExecStart> = unit.property(SERVICE, "ExecStart").await?;
    let environment: Vec<String> = unit.property(SERVICE, "Environment").await?;
    let kill_mode: String = unit.property(SERVICE, "KillMode").await?;
    let argv = commands.into_iter().next().map(|command| command.1).unwrap_or_default();
    Ok(read(&argv, &environment, kill_mode))
}

/// A distribution whose unit is on the node.
async fn distribution(systemd: &Systemd) -> zbus::Result<Option<(&'static str, &'static str)>> {
    for (name, units) in DISTRIBUTIONS {
        for its in units {
            let unit = systemd.unit(its).await?;
            let load: String = unit.property(UNIT, "LoadState").await?;
            if load == "loaded" {
                return Ok(Some((name, *its)));
            }
        }
    }
    Ok(None)
}

/// Why a restart of the unit would do harm.
pub(super) fn harm(kill_mode: &str) -> Option<String> {
    // Any other mode ends the shims with containerd, and with them every pod.
    (kill_mode != "process").then(|| {
        format!(
            "{CONTAINERD} has KillMode={kill_mode}: a restart would end every pod; set \
             KillMode=process in its unit"
        )
    })
}

/// What the unit's command says, and whether it fits what is mounted for the agent.
fn read(
    argv: &[String],
    environment: &[String],
    kill_mode: String,
) -> Result<Installation, String> {
    let (program, options) = command(argv, environment)?;
    let config = option(&options, &["--config", "-c"]);
    let config = config.unwrap_or_else(|| format!("{FOLDER}/{FILE}"));
    let socket = option(&options, &["--address", "-a"]).unwrap_or_else(|| SOCKET.to_owned());
    if config != format!("{FOLDER}/{FILE}") {
        return Err(format!(
            "{CONTAINERD} reads its configuration from {config}, only {FOLDER}/{FILE} is \
             supported: start it with --config {FOLDER}/{FILE}"
        ));
    }
    // On every node with systemd, /var/run leads to /run.
    let plain = socket.strip_prefix("unix://").unwrap_or(&socket);
    let plain =
        plain.strip_prefix("/var").filter(|rest| rest.starts_with("/run/")).unwrap_or(plain);
    if plain != SOCKET {
        return Err(format!(
            "{CONTAINERD} listens at {socket}, only {SOCKET} is supported: start it without --address"
        ));
    }
    if let Some(harm) = harm(&kill_mode) {
        return Err(harm);
    }
    let socket = SOCKET.to_owned();
    Ok(Installation { unit: CONTAINERD.to_owned(), program, socket, config, kill_mode })
}

/// containerd's path and its arguments, behind `env` or a shell where the unit
/// has one: Flatcar with Gardener starts it in these ways.
fn command(argv: &[String], environment: &[String]) -> Result<(String, Vec<String>), String> {
    let shown = argv.join(" ");
    let mut words: Vec<String> = argv.iter().flat_map(|word| expand(word, environment)).collect();
    let base = |word: &str| word.rsplit('/').next().unwrap_or(word).to_owned();
    if let [shell, flag, script, ..] = words.as_slice()
        && ["sh", "bash"].contains(&base(shell).as_str())
        && flag == "-c"
    {
        let unquoted = script.split_whitespace().map(|word| word.replace(['"', '\''], ""));
        words = unquoted.collect();
    }
    let at = words.iter().position(|word| base(word) == "containerd" && word.starts_with('/'));
    let skipped =
        |word: &String| word.contains('=') || ["env", "exec"].contains(&base(word).as_str());
    match at.filter(|at| words[..*at].iter().all(skipped)) {
        Some(at) => {
            let options = words.split_off(at + 1);
            let program = words.swap_remove(at);
            let unknown = options.iter().chain([&program]).find(|word| word.contains('$'));
            if let Some(word) = unknown {
                return Err(format!(
                    "{CONTAINERD} is started with {word}, whose value can't be told: name it in \
                     the unit itself"
                ));
            }
            Ok((program, options))
        }
        None => Err(format!(
            "{CONTAINERD} is started by a command that is not understood ({shown}): start \
             containerd by its path"
        )),
    }
}

/// A word with the unit's variables in their place, as systemd does it.
fn expand(word: &str, environment: &[String]) -> Vec<String> {
    let of = |name: &str| {
        let mut pairs = environment.iter().rev().filter_map(|pair| pair.split_once('='));
        pairs.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    if let Some(value) = word.strip_prefix('$').and_then(of) {
        return value.split_whitespace().map(str::to_owned).collect();
    }
    let mut out = String::new();
    let mut rest = word;
    while let Some((before, (name, after))) =
        rest.split_once("${").and_then(|(before, name)| Some((before, name.split_once('}')?)))
    {
        out.push_str(before);
        match of(name) {
            Some(value) => out.push_str(value),
            None => out.push_str(&format!("${{{name}}}")),
        }
        rest = after;
    }
    vec![out + rest]
}

/// The value of an option, the last one that is given: `--config X`, `--config=X`.
fn option(words: &[String], names: &[&str]) -> Option<String> {
    let mut found = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if names.contains(&word.as_str()) {
            found = words.next().cloned();
        } else if let Some((name, value)) = word.split_once('=')
            && names.contains(&name)
        {
            found = Some(value.to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[&str]) -> Vec<String> {
        texts.iter().map(|text| (*text).to_owned()).collect()
    }

    fn of(argv: &[&str], environment: &[&str], mode: &str) -> Result<Installation, String> {
        read(&words(argv), &words(environment), mode.to_owned())
    }

    #[test]
    fn containerd_is_found_in_the_ways_that_units_start_it() {
        let script = r#"PATH="/run/torcx/bin:$PATH" /usr/bin/containerd --config /etc/containerd/config.toml"#;
        let table: [(&[&str], &[&str]); 8] = [
            (&["/usr/bin/containerd"], &[]),
            (&["/usr/bin/containerd", "--config=/etc/containerd/config.toml"], &[]),
            (&["/usr/bin/containerd", "-c", "/etc/containerd/config.toml"], &[]),
            (&["/usr/bin/containerd", "-a", "/var/run/containerd/containerd.sock"], &[]),
            (&["/usr/bin/containerd", "$ARGS"], &["ARGS=--log-level debug"]),
            (
                &["/usr/bin/env", "PATH=${B}:${PATH}", "${B}/containerd", "--config", "${C}"],
                &["B=/usr/bin", "C=/x", "C=/etc/containerd/config.toml"],
            ),
            (&["/bin/bash", "-c", script], &[]),
            (&["/bin/sh", "-c", "exec /usr/bin/containerd"], &[]),
        ];
        for (argv, environment) in table {
            let found =
                of(argv, environment, "process").unwrap_or_else(|why| panic!("{argv:?}: {why}"));
            assert_eq!(found.program, "/usr/bin/containerd", "{argv:?}");
            assert_eq!(found.config, "/etc/containerd/config.toml");
            assert_eq!(found.socket, "/run/containerd/containerd.sock");
        }
    }

    #[test]
    fn what_the_agent_does_not_reach_is_refused_with_the_reason() {
        let plain = "/usr/bin/containerd";
        let table: [(&[&str], &str, &str); 7] = [
            (
                &[plain, "-c", "/usr/share/containerd/config.toml"],
                "process",
                "reads its configuration from /usr/share",
            ),
            (
                &[plain, "--config", "${CONTAINERD_CONFIG}"],
                "process",
                "${CONTAINERD_CONFIG}, whose value",
            ),
            (
                &[plain, "--address=/run/k3s/containerd/containerd.sock"],
                "process",
                "listens at /run/k3s",
            ),
            (&[plain], "control-group", "KillMode=control-group: a restart would end every pod"),
            (
                &["/usr/bin/dockerd", plain],
                "process",
                "not understood (/usr/bin/dockerd /usr/bin/containerd)",
            ),
            (&["/bin/sh", "-c", "sleep 3; /usr/bin/containerd"], "process", "not understood"),
            (&[], "process", "not understood"),
        ];
        for (argv, mode, want) in table {
            let why = of(argv, &[], mode).unwrap_err();
            assert!(why.contains(want), "{argv:?}: {why}");
        }
    }
}
