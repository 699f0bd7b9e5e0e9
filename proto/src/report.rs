//! What nodes say, checked: it comes from outside.

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
            digest: match wire.digest.as_slice() {
                [] => None,
                bytes => Some(digest("digest", bytes)?),
            },
            version: cut(&wire.version, 128),
            phase,
            reason,
            message,
            bytes_done: wire.bytes_done,
            bytes_total: wire.bytes_total,
            bytes_pulled: wire.bytes_pulled,
            handlers: wire.handlers.iter().map(|handler| cut(handler, 63)).collect(),
        })
    }
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
    use rootstock_core::digest::Digest;

    use super::*;

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let mut report = BundleReport::new("gvisor".parse().unwrap(), Phase::Pulling);
        report.digest = Some(Digest::of(b"x"));
        report.reason = Some(Reason::RegistryUnreachable);
        report.message = "http://r answers 503".into();
        (report.bytes_done, report.bytes_total, report.bytes_pulled) = (1, 2, 3);
        report.handlers = vec!["runsc".into()];
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
