//! What nodes say, checked: it comes from outside.

use rootstock_core::digest::Digest;
use rootstock_core::status::{BundleReport, Phase, Reason};

use crate::desired::digest;
use crate::error::Invalid;
use crate::{MAX_TYPES, v1};

/// The longest message of a report, in bytes.
pub const MAX_MESSAGE: usize = 1024;
/// The most handlers of one bundle in a report.
const MAX_HANDLERS: usize = 32;

impl From<&BundleReport> for v1::BundleReport {
    fn from(report: &BundleReport) -> Self {
        Self {
            r#type: report.runtime.to_string(),
            digest: report.digest.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
            version: report.version.clone(),
            phase: report.phase.to_string(),
            reason: report.reason.map(|reason| reason.to_string()).unwrap_or_default(),
            message: cut(&report.message, MAX_MESSAGE),
            bytes_done: report.bytes_done,
            bytes_total: report.bytes_total,
            bytes_pulled: report.bytes_pulled,
            handlers: report.handlers.clone(),
            fetched: report.fetched.map(|digest| digest.as_bytes().to_vec()).unwrap_or_default(),
            sandboxes: report.sandboxes,
            outdated_sandboxes: report.outdated_sandboxes,
        }
    }
}

impl TryFrom<v1::BundleReport> for BundleReport {
    type Error = Invalid;

    fn try_from(wire: v1::BundleReport) -> Result<Self, Invalid> {
        if wire.handlers.len() > MAX_HANDLERS {
            let count = wire.handlers.len();
            return Err(Invalid::TooMany { field: "handlers", count, limit: MAX_HANDLERS });
        }
        let phase = wire.phase.parse::<Phase>().map_err(|e| Invalid::field("phase", e))?;
        let mut message = cut(&wire.message, MAX_MESSAGE);
        let reason = match wire.reason.as_str() {
            "" => None,
            // A newer agent may have reasons that this controller does not know.
            word => Some(word.parse().unwrap_or_else(|_| {
                message = cut(&format!("{}: {message}", cut(word, 64)), MAX_MESSAGE);
                Reason::Internal
            })),
        };
        Ok(Self {
            runtime: wire.r#type.parse().map_err(|e| Invalid::field("type", e))?,
            digest: optional("digest", &wire.digest)?,
            version: cut(&wire.version, 128),
            phase,
            reason,
            message,
            bytes_done: wire.bytes_done,
            bytes_total: wire.bytes_total,
            bytes_pulled: wire.bytes_pulled,
            handlers: wire.handlers.iter().map(|handler| cut(handler, 63)).collect(),
            fetched: optional("fetched", &wire.fetched)?,
            sandboxes: wire.sandboxes,
            outdated_sandboxes: wire.outdated_sandboxes,
        })
    }
}

fn optional(field: &'static str, bytes: &[u8]) -> Result<Option<Digest>, Invalid> {
    if bytes.is_empty() { Ok(None) } else { digest(field, bytes).map(Some) }
}

/// What could be read of a report, and what could not: one bad item does not
/// silence the others.
///
/// # Errors
/// Only where there are more items than a node can have.
pub fn bundles(report: v1::Report) -> Result<(Vec<BundleReport>, Vec<Invalid>), Invalid> {
    let count = report.bundles.len();
    if count > MAX_TYPES {
        return Err(Invalid::TooMany { field: "bundles", count, limit: MAX_TYPES });
    }
    let mut good = Vec::with_capacity(count);
    let mut bad = Vec::new();
    for item in report.bundles {
        match item.try_into() {
            Ok(report) => good.push(report),
            Err(invalid) => bad.push(invalid),
        }
    }
    Ok((good, bad))
}

/// The text without control characters, at most `limit` bytes of it.
pub fn cut(text: &str, limit: usize) -> String {
    let mut kept = String::with_capacity(text.len().min(limit));
    for c in text.chars() {
        let c = if c.is_control() && c != '\n' { ' ' } else { c };
        if kept.len() + c.len_utf8() > limit {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn items() -> impl Strategy<Value = v1::BundleReport> {
        let texts =
            ("(gvisor|\\PC{0,4})", "(Pulling|Failed|\\PC{0,4})", "(?s).{0,3}", 0..600_usize);
        let digest = prop_oneof![Just(vec![]), Just(vec![7; 32]), any::<Vec<u8>>()];
        (texts, digest.clone(), digest, 0..40_usize).prop_map(
            |(texts, digest, fetched, handlers)| {
                let (r#type, phase, text, times) = texts;
                v1::BundleReport {
                    r#type,
                    digest,
                    version: text.repeat(times),
                    phase,
                    reason: text.repeat(times),
                    message: text.repeat(times),
                    bytes_done: u64::MAX,
                    bytes_total: 0,
                    bytes_pulled: u64::MAX,
                    handlers: vec![text.repeat(times); handlers],
                    fetched,
                    sandboxes: 1,
                    outdated_sandboxes: u32::MAX,
                }
            },
        )
    }

    fn is_clean(text: &str) -> bool {
        text.chars().all(|c| c == '\n' || !c.is_control())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever a node reports, every item is read or counted, and what is
        /// read is short and can be printed.
        #[test]
        fn any_report_is_read_item_by_item(
            items in prop::collection::vec(items(), 1..4), count in 0..70_usize,
        ) {
            let items = items.into_iter().cycle().take(count).collect();
            match bundles(v1::Report { bundles: items, generation: 1 }) {
                Err(_) => prop_assert!(count > MAX_TYPES),
                Ok((good, bad)) => {
                    prop_assert!(count <= MAX_TYPES && good.len() + bad.len() == count);
                    for report in good {
                        prop_assert!(report.message.len() <= MAX_MESSAGE && is_clean(&report.message));
                        prop_assert!(report.version.len() <= 128 && is_clean(&report.version));
                        prop_assert!(report.handlers.len() <= MAX_HANDLERS);
                        for handler in &report.handlers {
                            prop_assert!(handler.len() <= 63 && is_clean(handler));
                        }
                    }
                }
            }
        }

        #[test]
        fn any_bytes_of_a_node_are_a_message_or_none(
            mut bytes in any::<Vec<u8>>(), items in prop::collection::vec(items(), 1..3),
            at: prop::sample::Index, byte: u8,
        ) {
            let _ = v1::NodeMessage::decode(&bytes[..]);
            let report = v1::Report { bundles: items, generation: 1 };
            let kind = Some(v1::node_message::Kind::Report(report));
            bytes = v1::NodeMessage { kind }.encode_to_vec();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(message) = v1::NodeMessage::decode(&bytes[..])
                && let Some(v1::node_message::Kind::Report(report)) = message.kind
            {
                let count = report.bundles.len();
                prop_assert!(bundles(report).is_ok_and(|(good, bad)| good.len() + bad.len() == count));
            }
        }
    }

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let mut report = BundleReport::new("gvisor".parse().unwrap(), Phase::Pulling);
        report.digest = Some(Digest::of(b"x"));
        report.reason = Some(Reason::RegistryUnreachable);
        report.message = "http://r answers 503".into();
        (report.bytes_done, report.bytes_total, report.bytes_pulled) = (1, 2, 3);
        report.handlers = vec!["runsc".into()];
        report.fetched = Some(Digest::of(b"b"));
        (report.sandboxes, report.outdated_sandboxes) = (3, 4);
        let wire = v1::BundleReport::from(&report);
        assert_eq!(BundleReport::try_from(wire).unwrap(), report);
    }

    #[test]
    fn a_bad_item_does_not_silence_the_others() {
        let good = v1::BundleReport {
            r#type: "kata".into(),
            phase: "Loaded".into(),
            ..Default::default()
        };
        let bad = v1::BundleReport { r#type: "../x".into(), ..good.clone() };
        let unknown = v1::BundleReport { phase: "Dancing".into(), ..good.clone() };
        let report = v1::Report { bundles: vec![bad, good, unknown], generation: 1 };
        let (good, bad) = bundles(report).unwrap();
        assert_eq!((good.len(), bad.len()), (1, 2));
    }

    #[test]
    fn an_unknown_reason_is_kept_as_text() {
        let wire = v1::BundleReport {
            r#type: "kata".into(),
            phase: "Failed".into(),
            reason: "MoonPhase".into(),
            message: "full".into(),
            ..Default::default()
        };
        let report = BundleReport::try_from(wire).unwrap();
        assert_eq!(report.reason, Some(Reason::Internal));
        assert_eq!(report.message, "MoonPhase: full");
    }

    #[test]
    fn texts_are_bounded_and_clean() {
        assert_eq!(cut("a\x1b[31mb", 100), "a [31mb");
        assert_eq!(cut("ää", 3), "ä");
        assert_eq!(cut(&"x".repeat(9_999), MAX_MESSAGE).len(), MAX_MESSAGE);
    }
}
