use jiff::Timestamp;
use serde_json::{Value, json};

use crate::rollout::window::{Weekly, WindowChoice};

fn weekly(value: Value) -> Weekly {
    serde_json::from_value(value).unwrap()
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Each row: a moment, whether it is open, when it closes or opens next.
fn check(window: &Weekly, rows: &[(&str, bool, &str)]) {
    for (now, open, next) in rows {
        let moment = at(now);
        assert_eq!(window.open_at(moment), *open, "{now}");
        let found = if *open { window.closing(moment) } else { window.next_opening(moment) };
        assert_eq!(found, Some(at(next)), "{now}");
    }
}

#[test]
fn a_shoots_window_is_daily_in_its_offset() {
    let window = Weekly::maintenance("220000+0100", "230000+0100").unwrap();
    check(
        &window,
        &[
            ("2026-07-01T20:59:59Z", false, "2026-07-01T21:00:00Z"),
            ("2026-07-01T21:00:00Z", true, "2026-07-01T22:00:00Z"),
            ("2026-07-01T21:59:59Z", true, "2026-07-01T22:00:00Z"),
            ("2026-07-01T22:00:00Z", false, "2026-07-02T21:00:00Z"),
        ],
    );
    assert_eq!(window.next_opening(at("2026-07-01T21:30:00Z")), Some(at("2026-07-02T21:00:00Z")));
    // Two offsets for one window name the same moments.
    assert_eq!(
        Weekly::maintenance("220000+0100", "210000+0000").unwrap_err().to_string(),
        "a window can't begin and end at the same time of the day"
    );
    let mixed = Weekly::maintenance("220000+0100", "220000+0000").unwrap();
    assert_eq!(mixed.closing(at("2026-07-01T21:30:00Z")), Some(at("2026-07-01T22:00:00Z")));
    for wrong in [
        "",
        "220000",
        "220000Z",
        "22:00:00+0100",
        "250000+0100",
        "220000+9900",
        "220000+01000",
        "22000ä+0100",
        "-10000+0100",
    ] {
        assert!(Weekly::maintenance(wrong, "230000+0100").is_err(), "{wrong}");
    }
}

#[test]
fn a_window_may_end_on_the_day_after() {
    let window = Weekly::maintenance("233000-0500", "003000-0500").unwrap();
    check(
        &window,
        &[
            ("2026-07-01T04:29:00Z", false, "2026-07-01T04:30:00Z"),
            ("2026-07-01T04:30:00Z", true, "2026-07-01T05:30:00Z"),
            ("2026-07-01T05:29:59Z", true, "2026-07-01T05:30:00Z"),
            ("2026-07-01T05:30:00Z", false, "2026-07-02T04:30:00Z"),
        ],
    );
}

#[test]
fn a_window_begins_on_its_days() {
    let window = weekly(
        json!({"days": ["Sat", "Sat"], "begin": "22:00", "end": "04:00", "zone": "Europe/Berlin"}),
    );
    check(
        &window,
        &[
            // 2026-07-04 is a Saturday.
            ("2026-07-03T21:00:00Z", false, "2026-07-04T20:00:00Z"),
            ("2026-07-04T20:00:00Z", true, "2026-07-05T02:00:00Z"),
            ("2026-07-05T01:59:59Z", true, "2026-07-05T02:00:00Z"),
            ("2026-07-05T20:30:00Z", false, "2026-07-11T20:00:00Z"),
        ],
    );
}

#[test]
fn a_window_follows_the_clock_of_its_zone() {
    let window = weekly(json!({"begin": "02:00", "end": "03:00", "zone": "Europe/Berlin"}));
    check(
        &window,
        &[
            ("2026-03-28T00:59:59Z", false, "2026-03-28T01:00:00Z"),
            // At two the clock is put to three: the hour is made up for.
            ("2026-03-28T23:00:00Z", false, "2026-03-29T01:00:00Z"),
            ("2026-03-29T01:30:00Z", true, "2026-03-29T02:00:00Z"),
            ("2026-03-30T00:30:00Z", true, "2026-03-30T01:00:00Z"),
            // Between two and three is there twice, from the first on.
            ("2026-10-25T00:00:00Z", true, "2026-10-25T02:00:00Z"),
            ("2026-10-25T01:30:00Z", true, "2026-10-25T02:00:00Z"),
            ("2026-10-25T02:00:00Z", false, "2026-10-26T01:00:00Z"),
        ],
    );
    // Samoa left out 2011-12-30, a Friday.
    let window =
        weekly(json!({"days": ["Fri"], "begin": "10:00", "end": "11:00", "zone": "Pacific/Apia"}));
    assert!(window.next_opening(at("2011-12-29T20:00:00Z")).is_some());
}

#[test]
fn a_strategy_chooses_the_window() {
    let shoots = Weekly::maintenance("220000+0100", "230000+0100").unwrap();
    let own = weekly(json!({"begin": "01:00", "end": "02:00", "zone": "+02:00"}));
    assert_eq!(WindowChoice::None.resolve(Some(&shoots)), None);
    assert_eq!(WindowChoice::default().resolve(Some(&shoots)), Some(&shoots));
    assert_eq!(WindowChoice::Shoot.resolve(None), None);
    let choice = WindowChoice::Weekly(own.clone());
    assert_eq!(choice.resolve(Some(&shoots)), Some(&own));
    for choice in [choice, WindowChoice::None, WindowChoice::Shoot] {
        let written = serde_json::to_value(&choice).unwrap();
        assert_eq!(serde_json::from_value::<WindowChoice>(written).unwrap(), choice);
    }
}
