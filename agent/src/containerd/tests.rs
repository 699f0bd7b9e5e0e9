use serde_json::json;

use super::*;

const V3: &str = r#"version = 3
# how Gardener writes it
imports = ["/etc/containerd/conf.d/*.toml"]

[plugins]
  [plugins.'io.containerd.cri.v1.images']
    snapshotter = "overlayfs" # keep me
    [plugins.'io.containerd.cri.v1.images'.pinned_images]
      sandbox = "registry.k8s.io/pause:3.10"

  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"

    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = true

# someone's own plugin
[plugins."com.example.v1.thing"]
  key = [1, 2,
         3]
# the end
"#;

const V2: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"
"#;

const V1: &str = "# old\n[plugins.cri.containerd]\nsnapshotter = \"overlayfs\"\n";

const INLINE: &str = "version = 2\nplugins.\"io.containerd.grpc.v1.cri\" = { containerd = { runtimes = { runc = { runtime_type = \"io.containerd.runc.v2\" } } } }\n";

fn name(name: &str) -> HandlerName {
    name.parse().unwrap()
}

fn runsc(digest: &str) -> HandlerTable {
    HandlerTable {
        runtime_type: "io.containerd.runsc.v1".into(),
        runtime_path: format!("/var/bin/c/.rootstock/gvisor/{digest}/containerd-shim-runsc-v1"),
        options: json!({"TypeUrl": "io.containerd.runsc.v1.options", "ConfigPath": "/x \"y\"", "n": {"deep": [1, true]}})
            .as_object()
            .unwrap()
            .clone(),
        pod_annotations: vec!["dev.gvisor.*".into()],
        privileged_without_host_devices: true,
    }
}

fn set(text: &str, table: &HandlerTable) -> String {
    edit(text, &[(name("runsc"), table.clone())].into(), &BTreeSet::new()).unwrap()
}

fn unset(text: &str) -> String {
    edit(text, &BTreeMap::new(), &[name("runsc")].into()).unwrap()
}

#[test]
fn every_version_of_the_file_is_edited_in_its_own_way() {
    let table = [
        (V1, "[plugins.cri.containerd.runtimes.runsc]"),
        (V2, "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runsc]"),
        (V3, ".containerd.runtimes.runsc]"),
        (&V3.replace("version = 3", "version = 4"), ".containerd.runtimes.runsc]"),
        ("version = 3\n", "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runsc]"),
        (INLINE, "runsc = {"),
        ("", "[plugins.cri.containerd.runtimes.runsc]"),
    ];
    for (text, want) in table {
        let edited = set(text, &runsc("a"));
        assert!(edited.contains(want), "{edited}");
        assert_eq!(tables(&edited).unwrap()[&name("runsc")], Some(runsc("a")), "{edited}");
        // Every line of others is there, in its order.
        if text != INLINE {
            let mut lines = edited.lines();
            for line in text.lines() {
                assert!(lines.any(|there| there == line), "{line:?} is gone from\n{edited}");
            }
        }
        assert_eq!(set(&edited, &runsc("a")), edited, "a second edit changes nothing");
        let upgraded = set(&edited, &runsc("b"));
        assert_eq!(tables(&upgraded).unwrap()[&name("runsc")], Some(runsc("b")), "{upgraded}");
        assert_eq!(upgraded.lines().count(), edited.lines().count(), "{upgraded}");
        assert_eq!(unset(&edited).trim_end(), text.trim_end(), "removal restores the text");
        assert_eq!(unset(&upgraded).trim_end(), text.trim_end());
        assert_eq!(unset(text), text);
    }
}

#[test]
fn a_table_of_someone_else_is_taken_over_where_it_stands() {
    let text = format!(
        "{V3}\n# gvisor's own\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc]\n\
         runtime_type = \"io.containerd.runsc.v1\"\nsnapshotter = \"x\"\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runsc.options]\nConfigPath = \"/etc/containerd/runsc.toml\"\n\n[last]\nx = 1\n"
    );
    assert_eq!(tables(&text).unwrap()[&name("runsc")], None, "it is not of our form");
    assert!(tables(&text).unwrap()[&name("runc")].is_some());
    let edited = set(&text, &runsc("a"));
    assert_eq!(tables(&edited).unwrap()[&name("runsc")], Some(runsc("a")));
    assert!(
        !edited.contains("snapshotter = \"x\"") && !edited.contains("/etc/containerd/runsc.toml")
    );
    assert!(edited.contains("# gvisor's own") && edited.contains("[last]\nx = 1\n"));
}

#[test]
fn however_it_is_written_nothing_of_others_changes() {
    let cri = "plugins.\"io.containerd.grpc.v1.cri\"";
    let table = [
        format!(
            "version = 2\n{cri}.containerd.runtimes.runc.runtime_type = \"a\"\n{cri}.x = 1\n[grpc]\na = 1\n"
        ),
        format!(
            "version = 2\n[{cri}]\ncontainerd.runtimes.runc.runtime_type = \"a\"\nx = 1\n[[list]]\na = 1979-05-27\n[[list]]\n"
        ),
        format!(
            "version = 2\n[{cri}.containerd]\nruntimes = {{ runc = {{ runtime_type = \"a\" }} }}\nx = 1\n"
        ),
        format!(
            "version = 2\n[{cri}.containerd.runtimes.runsc.options]\na = 1\n[last]\nx = 1\n[{cri}.containerd.runtimes.runsc]\nruntime_type = \"a\"\n"
        ),
        format!(
            "version = 2\r\n[{cri}.containerd.runtimes]\r\n# mine\r\nrunsc.runtime_type = \"a\"\r\nrunc.runtime_type = \"b\"\r\n[last]\r\nx = 1\r\n"
        ),
    ];
    for text in table {
        let edited = set(&text, &runsc("a"));
        assert_eq!(tables(&edited).unwrap()[&name("runsc")], Some(runsc("a")), "{edited}");
        let ours = name("runsc");
        let foreign = |text: &str| super::foreign(text, &[&ours].into(), &BTreeSet::new()).unwrap();
        assert_eq!(foreign(&edited), foreign(&text), "{edited}");
        assert_eq!(foreign(&unset(&edited)), foreign(&text), "{edited}");
        assert!(!tables(&unset(&edited)).unwrap().contains_key(&ours));
    }
}

#[test]
fn the_default_runtime_is_not_taken_out() {
    let text = set(&V3.replace("_name = \"runc\"", "_name = \"runsc\""), &runsc("a"));
    let error = edit(&text, &BTreeMap::new(), &[name("runsc")].into()).unwrap_err().to_string();
    assert!(error.contains("default_runtime_name is runsc"), "{error}");
    assert!(set(&text, &runsc("b")).contains("/b/"), "another version may take its place");
}

#[test]
fn what_can_not_be_understood_is_left_as_it_is() {
    for (text, want) in [
        ("version = ", "no valid TOML"),
        ("version = 9\n", "version 9"),
        ("version = \"2\"\n", "no number"),
        ("version = 2\nplugins = 1\n", "\"plugins\" is no table"),
    ] {
        let error =
            edit(text, &[(name("runsc"), runsc("a"))].into(), &BTreeSet::new()).unwrap_err();
        assert_eq!(error.reason(), Reason::ContainerdConfigInvalid);
        assert!(error.to_string().contains(want), "{error}");
    }
}

#[test]
fn a_node_without_a_configuration_gets_a_minimal_one() {
    for (version, want) in
        [("1.7.27", "version = 2\n"), ("v2.1.4", "version = 3\n"), ("", "version = 3\n")]
    {
        assert_eq!(minimal(version, &[]), want);
    }
    let imports = ["/etc/containerd/conf.d/*.toml".to_owned()];
    let want = "version = 3\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n";
    assert_eq!(minimal("2.4.2", &imports), want);
}

/// The table as the script of the gVisor extension appends it, by the file's version.
fn script(version: u8) -> String {
    let plugin = match version {
        1 => "plugins.cri",
        2 => "plugins.\"io.containerd.grpc.v1.cri\"",
        _ => "plugins.\"io.containerd.cri.v1.runtime\"",
    };
    format!(
        "[{plugin}.containerd.runtimes.runsc]\n  runtime_type = \"io.containerd.runsc.v1\"\n\
         [{plugin}.containerd.runtimes.runsc.options]\n  TypeUrl = \"io.containerd.runsc.v1.options\"\n\
         \x20 ConfigPath = \"/etc/containerd/runsc.toml\"\n"
    )
}

#[test]
fn what_the_script_left_is_known_in_every_form() {
    for (version, text) in [(1, V1), (2, V2), (3, V3), (4, &*V3.replace("= 3", "= 4"))] {
        for left in [1, 2, 3] {
            let whole = format!("{text}{}", script(left));
            let right = left == version.min(3);
            let there = tables(&whole).unwrap().remove(&name("runsc"));
            assert_eq!(there, right.then(|| Some(inherited::table())), "{version} {left}");
            let strays = stray_tables(&whole).unwrap();
            assert_eq!(strays.len(), usize::from(!right), "{version} {left}: {strays:?}");
            let set = [(name("runsc"), runsc("a"))].into();
            let edited = change(&whole, &Changes { set, strays, ..Changes::default() }).unwrap();
            assert_eq!(tables(&edited).unwrap()[&name("runsc")], Some(runsc("a")), "{edited}");
            assert!(!edited.contains("/etc/containerd/runsc.toml"), "{edited}");
            assert_eq!(edited.matches("runtimes.runsc]").count(), 1, "{edited}");
            // The comment right above a table goes with it.
            let rest = text.trim_end().trim_end_matches("# the end").trim_end();
            assert!(unset(&edited).starts_with(rest), "{version} {left}: {edited}");
        }
    }
}

#[test]
fn a_stray_table_of_someone_else_stays() {
    let other = script(2).replace("ConfigPath", "pod_annotations = []\nConfigPath");
    for table in [other, script(2).replace("runsc.toml", "other.toml")] {
        let text = format!("{V3}{table}");
        assert!(stray_tables(&text).unwrap().is_empty(), "{text}");
        let changes =
            Changes { strays: ["io.containerd.grpc.v1.cri".into()].into(), ..Changes::default() };
        assert_eq!(change(&text, &changes).unwrap(), text);
    }
}

#[test]
fn a_foreign_table_comes_back_as_it_was() {
    let table = "runtime_type = \"x\" # mine\nsnapshotter = \"s\"\n";
    let nested = "[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runsc.options]\na = [1, 2]\n";
    let text = format!(
        "{V3}[plugins.\"io.containerd.cri.v1.runtime\".containerd.runtimes.runsc]\n{table}{nested}[last]\nx = 1\n"
    );
    let kept = table_text(&text, &name("runsc")).unwrap().unwrap();
    assert!(kept.starts_with(table) && kept.contains("[options]"), "{kept}");
    let ours = set(&text, &runsc("a"));
    let restore: BTreeMap<_, _> = [(name("runsc"), kept.clone())].into();
    let changes = Changes { restore, ..Changes::default() };
    let back = change(&ours, &changes).unwrap();
    assert_eq!(
        foreign(&back, &BTreeSet::new(), &BTreeSet::new()).unwrap(),
        foreign(&text, &BTreeSet::new(), &BTreeSet::new()).unwrap(),
        "{back}"
    );
    assert_eq!(table_text(&back, &name("runsc")).unwrap(), Some(kept));
    // Also into a file that is written inline.
    let back = change(&set(INLINE, &runsc("a")), &changes).unwrap();
    assert!(tables(&back).unwrap().contains_key(&name("runsc")) && back.contains("snapshotter"));
    assert_eq!(table_text(V3, &name("runsc")).unwrap(), None);
}
