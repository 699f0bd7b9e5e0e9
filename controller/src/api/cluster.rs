//! `Cluster`: what gardenlet tells extensions of a shoot.

use jiff::Timestamp;
use kube::CustomResource;
use rootstock_core::name::ShootName;
use rootstock_core::rollout::window::Weekly;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::identity::rotation::{Phase, Rotation};

/// The shoot and its seed, as Gardener has them.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(group = "extensions.gardener.cloud", version = "v1alpha1", kind = "Cluster")]
#[serde(rename_all = "camelCase")]
pub struct ClusterSpec {
    /// The CloudProfile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::container_runtime::any_object")]
    pub cloud_profile: Option<Value>,
    /// The Seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::container_runtime::any_object")]
    pub seed: Option<Value>,
    /// The Shoot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::container_runtime::any_object")]
    pub shoot: Option<Value>,
    /// Fields of a newer Gardener, kept as they are.
    #[serde(flatten)]
    #[schemars(skip)]
    pub rest: Map<String, Value>,
}

impl Cluster {
    /// Whether the shoot sleeps: its API and its nodes are not there, by intent.
    pub fn is_hibernated(&self) -> bool {
        self.shoot("/spec/hibernation/enabled").and_then(Value::as_bool).unwrap_or(false)
            || self.shoot("/status/isHibernated").and_then(Value::as_bool).unwrap_or(false)
    }

    /// Whether the shoot's last operation failed for good, so that extensions leave it alone.
    pub fn is_failed(&self) -> bool {
        self.shoot("/status/lastOperation/state").and_then(Value::as_str) == Some("Failed")
    }

    /// Whether the shoot itself is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.shoot("/metadata/deletionTimestamp").is_some_and(|value| !value.is_null())
    }

    /// Whether an operator gave the shoot up.
    pub fn is_force_deleted(&self) -> bool {
        let key = "/metadata/annotations/confirmation.gardener.cloud~1force-deletion";
        // As Go reads a truth value.
        let truths = ["1", "t", "T", "true", "TRUE", "True"];
        self.shoot(key).and_then(Value::as_str).is_some_and(|value| truths.contains(&value))
    }

    /// The host of the shoot's endpoint: `rs-<technical id without "shoot--">.<ingress domain>`.
    ///
    /// `domain` is used in place of the seed's own ingress domain where it is given.
    pub fn endpoint_host(&self, shoot: &ShootName, domain: Option<&str>) -> Option<String> {
        let seed = self.spec.seed.as_ref();
        let own = || seed?.pointer("/spec/ingress/domain")?.as_str();
        let domain = domain.or_else(own)?;
        let id = shoot.as_str().strip_prefix("shoot--").unwrap_or(shoot.as_str());
        Some(format!("rs-{id}.{domain}").to_ascii_lowercase())
    }

    /// When Gardener may disturb the shoot; none where that is not said, or not
    /// in a form that Gardener would take.
    pub fn maintenance(&self) -> Option<Weekly> {
        let of = |field: &str| {
            self.shoot(&format!("/spec/maintenance/timeWindow/{field}")).and_then(Value::as_str)
        };
        Weekly::maintenance(of("begin")?, of("end")?).ok()
    }

    /// Where Gardener is with the rotation of the shoot's authorities.
    pub fn rotation(&self) -> Rotation {
        let of = |field: &str| {
            let path = "/status/credentials/rotation/certificateAuthorities";
            self.shoot(&format!("{path}/{field}")).and_then(Value::as_str)
        };
        let initiated = of("lastInitiationTime").and_then(|time| time.parse::<Timestamp>().ok());
        let phase = Phase::from(of("phase").unwrap_or_default());
        Rotation { phase, initiated: initiated.map(Timestamp::as_second) }
    }

    fn shoot(&self, pointer: &str) -> Option<&Value> {
        self.spec.shoot.as_ref()?.pointer(pointer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cluster(shoot: Value) -> Cluster {
        let seed = json!({"spec": {"ingress": {"domain": "ingress.seed.example"}}});
        let spec = ClusterSpec { seed: Some(seed), shoot: Some(shoot), ..ClusterSpec::default() };
        Cluster::new("shoot--garden--one", spec)
    }

    #[test]
    fn the_endpoint_lies_below_the_ingress_domain() {
        let name = "shoot--garden--one".parse().unwrap();
        let cluster = cluster(json!({}));
        let host = cluster.endpoint_host(&name, None).unwrap();
        assert_eq!(host, "rs-garden--one.ingress.seed.example");
        let host = cluster.endpoint_host(&name, Some("other.example")).unwrap();
        assert_eq!(host, "rs-garden--one.other.example");
    }

    #[test]
    fn the_state_of_a_shoot() {
        assert!(!cluster(json!({})).is_hibernated());
        assert!(cluster(json!({"spec": {"hibernation": {"enabled": true}}})).is_hibernated());
        assert!(cluster(json!({"status": {"isHibernated": true}})).is_hibernated());
        assert!(cluster(json!({"status": {"lastOperation": {"state": "Failed"}}})).is_failed());
        let authorities =
            json!({"phase": "Prepared", "lastInitiationTime": "2026-01-01T00:00:00Z"});
        let rotation = json!({"rotation": {"certificateAuthorities": authorities}});
        let rotation = cluster(json!({"status": {"credentials": rotation}})).rotation();
        let initiated = Some(1_767_225_600);
        assert_eq!(rotation, Rotation { phase: Phase::Prepared, initiated });
        assert_eq!(cluster(json!({})).rotation(), Rotation::default());
        for (value, want) in [("true", true), ("1", true), ("T", true), ("yes", false)] {
            let annotations = json!({"confirmation.gardener.cloud/force-deletion": value});
            let cluster = cluster(json!({"metadata": {"annotations": annotations}}));
            assert_eq!(cluster.is_force_deleted(), want, "{value}");
        }
    }
}
