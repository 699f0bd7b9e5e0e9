use super::*;

const DAY: i64 = 24 * 60 * 60;
/// When the first authority was made.
const BEGIN: i64 = 1_700_000_000;
/// When the shoot's rotation was asked for.
const ASKED: i64 = BEGIN + 100 * DAY;
const YEARS: i64 = 3650 * DAY;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).unwrap()
}

fn kept(initiated: Option<i64>, from: i64) -> Kept {
    let name = named(&[], initiated, Names::Hashed).unwrap().name;
    Kept { name, initiated, from: at(from), until: at(from + YEARS) }
}

fn first() -> Kept {
    kept(None, BEGIN)
}

fn of(initiated: i64) -> Kept {
    kept(Some(initiated), initiated)
}

fn rotation(phase: &str, initiated: i64) -> Rotation {
    Rotation { phase: phase.into(), initiated: Some(initiated) }
}

/// What a plan says, in short: `old` is the first, `new` the second by its time.
fn said(all: &[Kept], plan: &Plan) -> String {
    let short = |name: &String| match all.iter().position(|kept| kept.name == *name) {
        Some(n) => n.to_string(),
        None => name.clone(),
    };
    let list = |names: &[String]| names.iter().map(short).collect::<Vec<_>>().join("+");
    let make = plan.make.as_ref().map_or("-", |new| new.name.as_str());
    let roles = plan.roles.as_ref().map_or_else(
        || "-".to_owned(),
        |roles| {
            let [signer, server] = [&roles.signer, &roles.server].map(short);
            format!("signs {signer}, serves {server}, trusts {}", list(&roles.trusted))
        },
    );
    format!("make {make}; drop {}; {roles}", list(&plan.drop))
}

const BEFORE: [&str; 5] = [
    "Preparing",
    "PreparingWithoutWorkersRollout",
    "WaitingForWorkersRollout",
    "Prepared",
    "OfANewerGardener",
];

#[test]
fn names_are_those_of_gardeners_secrets_manager() {
    assert_eq!(first().name, "ca-rootstock");
    // printf 1708640000 | sha256sum
    assert_eq!(of(ASKED).name, "ca-rootstock-7bb17");
}

#[test]
fn a_rotation_goes_through_the_shoots_phases() {
    let now = at(ASKED + 3600);
    let new = of(ASKED).name;
    let both = [first(), of(ASKED)];
    for phase in BEFORE {
        let shoot = rotation(phase, ASKED);
        let plan_of = |kept: &[Kept]| said(&both, &plan(kept, shoot, Names::Hashed, now));
        let want = format!("make {new}; drop ; signs 0, serves 0, trusts 0");
        assert_eq!(plan_of(&both[..1]), want, "{phase}");
        let want = "make -; drop ; signs 1, serves 0, trusts 1+0";
        assert_eq!(plan_of(&both), want, "{phase}");
        // However long it takes.
        let later = at(ASKED + 300 * DAY);
        assert_eq!(said(&both, &plan(&both, shoot, Names::Hashed, later)), want, "{phase}");
    }
    for phase in ["Completing", "Completed"] {
        let plan = plan(&both, rotation(phase, ASKED), Names::Hashed, now);
        assert_eq!(said(&both, &plan), "make -; drop 0; signs 1, serves 1, trusts 1", "{phase}");
        let alone = super::plan(&both[1..], rotation(phase, ASKED), Names::Hashed, now);
        assert_eq!(said(&both, &alone), "make -; drop ; signs 1, serves 1, trusts 1", "{phase}");
    }
}

#[test]
fn a_shoot_may_begin_in_the_middle_of_a_rotation() {
    let now = at(ASKED + 3600);
    for phase in BEFORE.iter().chain(&["Completing", "Completed"]) {
        let made = plan(&[], rotation(phase, ASKED), Names::Hashed, now).make.unwrap();
        assert_eq!(made, New { name: of(ASKED).name, initiated: Some(ASKED) }, "{phase}");
    }
    let made = plan(&[], Rotation::default(), Names::Hashed, now).make.unwrap();
    assert_eq!(made, New { name: NAME.to_owned(), initiated: None });
}

#[test]
fn a_second_rotation_may_follow_the_first_at_any_time() {
    let (again, now) = (ASKED + DAY, at(ASKED + DAY + 60));
    let all = [first(), of(ASKED), of(again)];
    let shoot = rotation("Preparing", again);
    let new = &all[2].name;
    // The first was never completed: what agents know from the beginning serves.
    let plan_of = |kept: &[Kept]| said(&all, &plan(kept, shoot, Names::Hashed, now));
    assert_eq!(plan_of(&all[..2]), format!("make {new}; drop ; signs 1, serves 0, trusts 1+0"));
    assert_eq!(plan_of(&all), "make -; drop ; signs 2, serves 0, trusts 2+1+0");
    // It was.
    assert_eq!(plan_of(&all[1..2]), format!("make {new}; drop ; signs 1, serves 1, trusts 1"));
    assert_eq!(plan_of(&all[1..]), "make -; drop ; signs 2, serves 1, trusts 2+1");
    let done = plan(&all, rotation("Completing", again), Names::Hashed, now);
    assert_eq!(said(&all, &done), "make -; drop 0+1; signs 2, serves 2, trusts 2");
}

#[test]
fn a_step_that_was_missed_is_made_up_for() {
    let now = at(ASKED + 3600);
    let both = [first(), of(ASKED)];
    // All of it until Completing: nothing goes before the new one is there.
    let shoot = rotation("Completing", ASKED);
    let plan_of = |kept: &[Kept]| said(&both, &plan(kept, shoot, Names::Hashed, now));
    let want = format!("make {}; drop ; signs 0, serves 0, trusts 0", both[1].name);
    assert_eq!(plan_of(&both[..1]), want);
    assert_eq!(plan_of(&both), "make -; drop 0; signs 1, serves 1, trusts 1");
    // And all of it: then there is time.
    let made = plan(&both[..1], rotation("Completed", ASKED), Names::Hashed, now).make.unwrap();
    assert_eq!(made.initiated, Some(now.as_second()));
    let own = [first(), of(now.as_second())];
    let plan = plan(&own, rotation("Completed", ASKED), Names::Hashed, now);
    assert_eq!(said(&own, &plan), "make -; drop ; signs 1, serves 0, trusts 1+0");
}

#[test]
fn a_restored_control_plane_goes_on_where_it_was() {
    // gardenlet brings Secrets back in any order, some later than others.
    let now = at(ASKED + 3600);
    let both = [of(ASKED), first()];
    let shoot = rotation("Prepared", ASKED);
    let whole = plan(&both, shoot, Names::Hashed, now);
    assert_eq!(said(&both, &whole), "make -; drop ; signs 0, serves 1, trusts 0+1");
    let restored = plan(&both[..1], rotation("Completed", ASKED), Names::Hashed, now);
    assert_eq!(said(&both, &restored), "make -; drop ; signs 0, serves 0, trusts 0");
}

#[test]
fn an_authority_is_replaced_before_its_end_by_time() {
    let old = first();
    let due = BEGIN + YEARS / 5 * 4;
    for names in [Names::Hashed, Names::Slots] {
        let plan_at = |kept: &[Kept], now: i64| plan(kept, Rotation::default(), names, at(now));
        let early = plan_at(std::slice::from_ref(&old), due - 1);
        assert_eq!(early.make, None);
        let made = plan_at(std::slice::from_ref(&old), due).make.unwrap();
        assert_eq!(made.initiated, Some(due));
        if names == Names::Slots {
            assert_eq!(made.name, SLOTS[1]);
        }
        let both = [old.clone(), Kept { name: made.name, ..of(due) }];
        let step = i64::try_from(STEP.as_secs()).unwrap();
        let table = [
            (due, "make -; drop ; signs 1, serves 0, trusts 1+0"),
            (due + step - 1, "make -; drop ; signs 1, serves 0, trusts 1+0"),
            (due + step, "make -; drop ; signs 1, serves 1, trusts 1+0"),
            (due + 2 * step - 1, "make -; drop ; signs 1, serves 1, trusts 1+0"),
            (due + 2 * step, "make -; drop 0; signs 1, serves 1, trusts 1"),
        ];
        for (now, want) in table {
            assert_eq!(said(&both, &plan_at(&both, now)), want, "{names:?} {}", now - due);
        }
        // The next one takes the first one's place.
        let next = plan_at(&both[1..], due + YEARS / 5 * 4).make.unwrap();
        assert_eq!(next.name == NAME, names == Names::Slots, "{next:?}");
    }
    // A short one: ten days before its end.
    let short = Kept { until: at(BEGIN + 20 * DAY), ..first() };
    let due_at =
        |now| plan(std::slice::from_ref(&short), Rotation::default(), Names::Slots, at(now));
    assert!(due_at(BEGIN + 10 * DAY - 1).make.is_none());
    assert!(due_at(BEGIN + 10 * DAY).make.is_some());
}

#[test]
fn one_that_has_ended_does_nothing() {
    let ended = Kept { until: at(ASKED), ..first() };
    let alone = plan(std::slice::from_ref(&ended), Rotation::default(), Names::Slots, at(ASKED));
    assert_eq!(alone.make.unwrap().name, NAME);
    assert_eq!(alone.roles, None);
    let both = [ended, of(ASKED - DAY)];
    let plan = plan(&both, Rotation::default(), Names::Hashed, at(ASKED));
    assert_eq!(said(&both, &plan), "make -; drop 0; signs 1, serves 1, trusts 1");
}
