use serde_json::json;

use super::super::tests::{bundles, claim, config, kept, node, registries, types};
use super::super::{Problem, Resolution, Verdict, assign};
use super::*;
use crate::status::Reason;

fn older(runtime: &str) -> ResolvedBundle {
    ResolvedBundle {
        digest: Digest::of(b"older"),
        registry: "main".into(),
        repository: "rootstock/older".into(),
        config: config(runtime, runtime, "shim"),
    }
}

fn known() -> Bundles {
    [(("gvisor".parse().unwrap(), older("gvisor").digest), older("gvisor"))].into()
}

type Content<'a> = Option<&'a [u8]>;

fn turns(of: &[(&str, Content<'_>, Content<'_>)]) -> Turns {
    let digest = |bytes: &Content<'_>| bytes.map(Digest::of);
    let turn = |give, prefetch| Turn { give: digest(give), prefetch: digest(prefetch) };
    of.iter().map(|(name, give, prefetch)| (name.parse().unwrap(), turn(give, prefetch))).collect()
}

#[test]
fn a_node_has_what_its_rollout_lets_it_have() {
    let claims = [claim("gvisor-a", "gvisor", "a"), claim("kata-a", "kata", "a")];
    let node = node("a", "containerd", &["gvisor", "kata"]);
    let all = assign(&node, &claims, &bundles(), &registries());
    let target = Some(&b"gvisor"[..]);
    let old = Some(&b"older"[..]);
    let table: [(_, &[&str], &[&str], &[&str]); 6] = [
        // Nothing is known of its rollouts yet.
        (turns(&[]), &[], &["gvisor", "kata"], &[]),
        (turns(&[("gvisor", target, None)]), &["gvisor"], &["kata"], &[]),
        (turns(&[("gvisor", old, target)]), &["gvisor"], &["kata"], &["gvisor"]),
        (turns(&[("gvisor", None, target)]), &[], &["gvisor", "kata"], &["gvisor"]),
        // Nobody knows that bundle any more.
        (turns(&[("gvisor", Some(b"gone"), None)]), &[], &["gvisor", "kata"], &[]),
        (turns(&[("wasm", target, None)]), &[], &["gvisor", "kata"], &[]),
    ];
    for (turns, has, keeps, ahead) in table {
        let directed = direct(all.clone(), &claims, &turns, &known(), &registries());
        let ahead_of: Vec<_> =
            directed.content.prefetch.iter().map(|bundle| bundle.runtime().as_str()).collect();
        assert_eq!(
            (types(&directed), kept(&directed)),
            (has.to_vec(), keeps.to_vec()),
            "{turns:?}"
        );
        assert_eq!(ahead_of, ahead, "{turns:?}");
        assert!(directed.content.gated);
        // What is asked for in the end stays the same.
        assert_eq!(directed.verdicts, all.verdicts);
        let named = has.len() + ahead.len();
        assert_eq!(directed.content.registries.len(), usize::from(named > 0));
    }
}

#[test]
fn an_older_bundle_is_sent_while_the_newer_one_is_not_known() {
    let claims = [claim("gvisor-a", "gvisor", "a")];
    let node = node("a", "containerd", &["gvisor"]);
    let turns = turns(&[("gvisor", Some(b"older"), None)]);
    let failed = |reason| {
        let problem = Resolution::Failed(Problem::new(reason, "away"));
        let bundles = [("gvisor".parse().unwrap(), problem)].into();
        let all = assign(&node, &claims, &bundles, &registries());
        assert!(matches!(all.verdicts["gvisor-a"], Verdict::Held(_)));
        direct(all, &claims, &turns, &known(), &registries())
    };
    assert_eq!(types(&failed(Reason::RegistryUnreachable)), ["gvisor"]);
    // Another installer may still write there, or nobody stands for the type.
    for reason in [Reason::TakeoverPending, Reason::TypeUnknown] {
        let directed = failed(reason);
        assert_eq!((types(&directed), kept(&directed)), (vec![], vec!["gvisor"]));
    }
}

#[test]
fn an_older_bundle_that_refuses_the_settings_is_not_sent() {
    let mut claims = [claim("gvisor-a", "gvisor", "a")];
    let given = claims[0].ask.as_mut().unwrap().settings.as_mut().unwrap();
    given.settings.insert("unheard-of".into(), json!(true));
    let node = node("a", "containerd", &["gvisor"]);
    let pending = [("gvisor".parse().unwrap(), Resolution::Pending)].into();
    let all = assign(&node, &claims, &pending, &registries());
    let directed =
        direct(all, &claims, &turns(&[("gvisor", Some(b"older"), None)]), &known(), &registries());
    assert_eq!((types(&directed), kept(&directed)), (vec![], vec!["gvisor"]));
}

#[test]
fn types_that_claim_one_handler_now_are_left_alone() {
    let claims = [claim("gvisor-a", "gvisor", "a"), claim("kata-a", "kata", "a")];
    let node = node("a", "containerd", &["gvisor", "kata"]);
    let all = assign(&node, &claims, &bundles(), &registries());
    // The older one of gvisor had the handler that is kata's by now.
    let mut known = known();
    let old = known.values_mut().next().unwrap();
    old.config = config("gvisor", "kata", "shim");
    let turns = turns(&[("gvisor", Some(b"older"), None), ("kata", Some(b"kata"), None)]);
    let directed = direct(all, &claims, &turns, &known, &registries());
    assert_eq!((types(&directed), kept(&directed)), (vec![], vec!["gvisor", "kata"]));
}
