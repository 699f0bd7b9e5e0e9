use std::time::Duration;

use serde_json::{Value, json};

use crate::rollout::Amount;
use crate::rollout::strategy::{Strategy, StrategySpec};
use crate::rollout::window::WindowChoice;

fn spec(value: Value) -> Result<StrategySpec, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn amounts_round_as_kubernetes_rounds_and_never_to_none() {
    let table: &[(&str, usize, usize, usize)] = &[
        // amount, of, unavailable (down), canary (up)
        ("1", 0, 1, 1),
        ("1", 10, 1, 1),
        ("3", 2, 3, 3),
        ("10%", 0, 1, 1),
        ("10%", 9, 1, 1),
        ("10%", 10, 1, 1),
        ("10%", 19, 1, 2),
        ("10%", 20, 2, 2),
        ("25%", 1000, 250, 250),
        ("1%", 10_001, 100, 101),
        ("100%", 7, 7, 7),
    ];
    for (text, all, down, up) in table {
        let amount: Amount = text.parse().unwrap();
        let strategy = Strategy { canary: amount, max_unavailable: amount, ..Strategy::default() };
        assert_eq!(strategy.max_unavailable(*all), *down, "{text} of {all}");
        assert_eq!(strategy.canary(*all), *up, "{text} of {all}");
        assert_eq!(amount.to_string(), *text);
    }
    assert_eq!(Amount::Percent(10).down(9), 0, "a budget may be none");
    assert_eq!(Amount::Percent(100).down(usize::MAX), usize::MAX / 100, "it does not overflow");
}

#[test]
fn waves_are_ramped_up_to_what_may_be_unavailable() {
    let strategy = Strategy::default();
    let sizes: Vec<_> = (1..6).map(|wave| strategy.wave(1, wave, 100)).collect();
    assert_eq!(sizes, [5, 25, 100, 100, 100]);
    assert_eq!(strategy.wave(1, 1, 2), 2);
    assert_eq!(strategy.wave(3, u32::MAX, 100), 100);
    let alike = Strategy { ramp: 1, ..strategy };
    assert_eq!((alike.wave(2, 1, 100), alike.wave(2, 9, 100)), (2, 2));
}

#[test]
fn what_is_written_stands_over_what_is_not() {
    let catalog =
        spec(json!({"canary": 1, "soak": "10m", "maxUnavailable": "10%", "failureBudget": 2}));
    let catalog = catalog.unwrap().over(&Strategy::default());
    assert_eq!(catalog, Strategy::default(), "the documented form is the default");
    let own =
        json!({"canary": "5%", "soak": "1h 30m", "window": "none", "deadlines": {"pull": "2h"}});
    let merged = spec(own.clone()).unwrap().over(&catalog);
    assert_eq!(merged.canary, Amount::Percent(5));
    assert_eq!(merged.soak, Duration::from_secs(5400));
    assert_eq!(merged.window, WindowChoice::None);
    assert_eq!(merged.deadlines.pull, Duration::from_secs(7200));
    assert_eq!(merged.deadlines.activate, catalog.deadlines.activate);
    assert_eq!(merged.max_unavailable, catalog.max_unavailable);
    let again = serde_json::to_value(spec(own).unwrap()).unwrap();
    assert_eq!(again["canary"], "5%");
    assert_eq!(spec(again.clone()).unwrap().over(&catalog), merged, "{again}");
    assert_eq!(spec(json!({})).unwrap(), StrategySpec::default());
    assert_eq!(serde_json::to_value(StrategySpec::default()).unwrap(), json!({}));
}

#[test]
fn what_is_wrong_is_named() {
    let table = [
        (json!({"canary": 0}), "want at least 1"),
        (json!({"maxUnavailable": "0%"}), "want at least 1"),
        (json!({"canary": "101%"}), "\"101%\""),
        (json!({"canary": "+1%"}), "\"+1%\""),
        (json!({"canary": "%"}), "\"%\""),
        (json!({"canary": -1}), "\"-1\""),
        (json!({"canary": 1.5}), "a count as 2"),
        (json!({"failureBudget": 4_294_967_296_u64}), "4294967296"),
        (json!({"soak": 600}), "a string"),
        (json!({"soak": "soon"}), "\"soon\""),
        (json!({"soak": "31d"}), "longer than 30 days"),
        (json!({"ramp": 0}), "invalid ramp 0"),
        (json!({"maxunavailable": 1}), "maxunavailable"),
        (json!({"deadlines": {"soak": "1m"}}), "soak"),
        (json!({"window": "always"}), "\"none\", \"shoot\""),
        (json!({"window": {"begin": "22:00", "end": "4", "zone": "UTC"}}), "\"4\""),
        (json!({"window": {"begin": "22:00", "end": "22:00", "zone": "UTC"}}), "same time"),
        (json!({"window": {"begin": "22:00", "end": "04:00", "zone": "Berlin"}}), "\"Berlin\""),
        (json!({"window": {"begin": "22:00", "end": "04:00"}}), "zone"),
        (
            json!({"window": {"days": ["Mo"], "begin": "22:00", "end": "04:00", "zone": "UTC"}}),
            "Mo",
        ),
    ];
    for (value, word) in table {
        let error = spec(value.clone()).unwrap_err();
        assert!(error.contains(word), "{value}: {error}");
    }
}
