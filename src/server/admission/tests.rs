//! Connections that come, go and misbehave, on a clock of the test's own.

use std::time::Duration;

use super::*;
use crate::config::serve::settings::{Overflow, Penalties};

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

pub fn settings() -> LoginSettings {
    LoginSettings {
        grace_time: Some(seconds(120)),
        max_auth_tries: 6,
        max_startups: MaxStartups {
            start: 10,
            rate: 30,
            full: 100,
        },
        per_source_max_startups: None,
        source_block: (32, 128),
        penalties: Some(Penalties {
            authfail: seconds(5),
            noauth: seconds(1),
            grace_exceeded: seconds(10),
            crash: seconds(90),
            min: seconds(15),
            max: seconds(600),
            ..Penalties::default()
        }),
        exempt: Vec::new(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn take(admission: &Arc<Admission>, peer: &str, now: Instant) -> Result<(), Refused> {
    // What is admitted goes again at once.
    admission.admit_by(ip(peer), now, || 99).map(drop)
}

#[test]
fn the_chance_grows_as_sshd_has_it() {
    let limits = settings().max_startups;
    // By sshd's formula, rate + (100 - rate) * (n - start) / (full - start),
    // in whole percents.
    for (startups, percent) in [
        (0, 0),
        (9, 0),
        (10, 30),
        (11, 30),
        (12, 31),
        (55, 65),
        (99, 99),
        (100, 100),
        (1000, 100),
    ] {
        assert_eq!(refusal_chance(limits, startups), percent, "{startups}");
    }
    for (start, rate, full) in [(10, 30, 10), (10, 30, 5), (0, 100, 9)] {
        let odd = MaxStartups { start, rate, full };
        assert_eq!(refusal_chance(odd, 10), 100);
    }
}

#[test]
fn a_draw_decides_between_start_and_full() {
    let (admission, now) = (Admission::new(&settings()), Instant::now());
    let mut inside: Vec<Startup> = (0..10)
        .map(|_| admission.admit_by(ip("192.0.2.1"), now, || 0).unwrap())
        .collect();
    let eleventh = |draw| admission.admit_by(ip("192.0.2.1"), now, || draw);
    assert_eq!(eleventh(29).err(), Some(Refused::Startups));
    assert!(eleventh(30).is_ok());
    assert_eq!(
        admission.startups(),
        10,
        "a guard that is gone does not count"
    );
    inside.pop().unwrap().logged_in();
    assert!(eleventh(0).is_ok(), "who is logged in does not count");
}

#[test]
fn the_systems_draw_is_spread_over_all_percents() {
    let mut seen = [0; 100];
    for _ in 0..20_000 {
        seen[usize::from(draw())] += 1;
    }
    assert!(seen.iter().all(|count| (100..400).contains(count)));
}

#[test]
fn connections_of_one_source_are_limited_by_its_block() {
    let mut settings = settings();
    settings.per_source_max_startups = Some(1);
    settings.source_block = (24, 64);
    let (admission, now) = (Admission::new(&settings), Instant::now());
    let _first = admission.admit(ip("192.0.2.1"), now).unwrap();
    let _other = admission.admit(ip("2001:db8:1::1"), now).unwrap();
    for (peer, expected) in [
        ("192.0.2.200", Err(Refused::SourceStartups)),
        ("::ffff:192.0.2.9", Err(Refused::SourceStartups)),
        ("192.0.3.1", Ok(())),
        ("2001:db8:1:0:ffff::1", Err(Refused::SourceStartups)),
        ("2001:db8:1:1::1", Ok(())),
    ] {
        assert_eq!(take(&admission, peer, now), expected, "{peer}");
    }
    settings.source_block = (32, 128);
    admission.replace(&settings);
    assert_eq!(take(&admission, "192.0.2.200", now), Ok(()));
    assert_eq!(
        take(&admission, "192.0.2.1", now),
        Err(Refused::SourceStartups),
        "who was there stays counted"
    );
}

#[test]
fn failed_logins_add_up_and_pass() {
    let (admission, start) = (Admission::new(&settings()), Instant::now());
    let peer = "198.51.100.7";
    for _ in 0..3 {
        admission.penalize(ip(peer), Offence::AuthFail, start);
    }
    assert_eq!(
        take(&admission, peer, start),
        Ok(()),
        "15 s is not above 15 s"
    );
    admission.penalize(ip(peer), Offence::AuthFail, start);
    let refused = Err(Refused::Penalty(Offence::AuthFail));
    assert_eq!(take(&admission, peer, start), refused);
    assert_eq!(take(&admission, "198.51.100.8", start), Ok(()));
    assert_eq!(admission.penalised_sources(start), 1);
    // Once it counts, it does to its end, and no longer.
    assert_eq!(take(&admission, peer, start + seconds(19)), refused);
    assert_eq!(take(&admission, peer, start + seconds(20)), Ok(()));
    assert_eq!(admission.penalised_sources(start + seconds(20)), 0);
}

#[test]
fn what_passes_between_failures_is_taken_off() {
    let (admission, start) = (Admission::new(&settings()), Instant::now());
    for second in (0..60).step_by(5) {
        let now = start + seconds(second);
        admission.penalize(ip("198.51.100.7"), Offence::AuthFail, now);
        assert_eq!(take(&admission, "198.51.100.7", now), Ok(()), "{second}");
    }
}

#[test]
fn the_sum_has_a_largest_value() {
    let (admission, start) = (Admission::new(&settings()), Instant::now());
    for _ in 0..100 {
        admission.penalize(ip("2001:db8::1"), Offence::Crash, start);
    }
    let refused = Err(Refused::Penalty(Offence::Crash));
    assert_eq!(
        take(&admission, "2001:db8::1", start + seconds(599)),
        refused
    );
    assert_eq!(
        take(&admission, "2001:db8::1", start + seconds(600)),
        Ok(())
    );
}

#[test]
fn absurd_durations_do_not_overflow() {
    let mut settings = settings();
    settings.penalties = settings.penalties.map(|penalties| Penalties {
        crash: Duration::MAX,
        max: Duration::MAX,
        ..penalties
    });
    let (admission, now) = (Admission::new(&settings), Instant::now());
    for _ in 0..2 {
        admission.penalize(ip("192.0.2.1"), Offence::Crash, now);
    }
    assert!(take(&admission, "192.0.2.1", now).is_err());
}

#[test]
fn exempt_sources_are_never_penalised() {
    let mut settings = settings();
    settings.exempt = vec!["192.0.2.0/24".parse().unwrap()];
    let (admission, now) = (Admission::new(&settings), Instant::now());
    for peer in ["192.0.2.1", "::ffff:192.0.2.1", "192.0.3.1"] {
        admission.penalize(ip(peer), Offence::Crash, now);
    }
    assert_eq!(take(&admission, "192.0.2.1", now), Ok(()));
    assert!(take(&admission, "::ffff:192.0.3.1", now).is_err());
    settings.exempt = vec!["192.0.3.1/32".parse().unwrap()];
    admission.replace(&settings);
    assert_eq!(take(&admission, "192.0.3.1", now), Ok(()), "at once");
}

#[test]
fn penalties_survive_a_reload_unless_they_are_switched_off() {
    let (admission, now) = (Admission::new(&settings()), Instant::now());
    admission.penalize(ip("192.0.2.1"), Offence::Crash, now);
    admission.replace(&settings());
    assert!(take(&admission, "192.0.2.1", now).is_err());
    let off = LoginSettings {
        penalties: None,
        ..settings()
    };
    admission.replace(&off);
    assert_eq!(take(&admission, "192.0.2.1", now), Ok(()));
    admission.penalize(ip("192.0.2.1"), Offence::Crash, now);
    admission.replace(&settings());
    assert_eq!(take(&admission, "192.0.2.1", now), Ok(()), "forgotten");
}

#[test]
fn each_refusal_has_a_name_of_its_own() {
    let penalties = Offence::ALL.into_iter().map(Refused::Penalty);
    let all: Vec<Refused> = penalties
        .chain([Refused::Startups, Refused::SourceStartups])
        .collect();
    let mut names: Vec<&str> = all.iter().map(|refused| refused.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len());
}

#[test]
fn more_sources_than_can_be_remembered_shut_the_door_where_that_is_wanted() {
    let mut settings = settings();
    settings.exempt = vec!["203.0.113.0/24".parse().unwrap()];
    settings.penalties = Some(Penalties {
        max_sources4: 2,
        overflow: Overflow::DenyAll,
        ..Penalties::default()
    });
    let admission = Admission::new(&settings);
    let now = Instant::now();
    for source in ["192.0.2.1", "192.0.2.2"] {
        assert_eq!(take(&admission, "198.51.100.1", now), Ok(()));
        admission.penalize(ip(source), Offence::Crash, now);
    }
    let shut = Err(Refused::PenaltyOverflow);
    assert_eq!(take(&admission, "198.51.100.1", now), shut);
    assert_eq!(take(&admission, "::ffff:198.51.100.1", now), shut);
    let own = Err(Refused::Penalty(Offence::Crash));
    assert_eq!(take(&admission, "192.0.2.1", now), own);
    for let_in in ["203.0.113.5", "2001:db8::1"] {
        assert_eq!(take(&admission, let_in, now), Ok(()), "{let_in}");
    }
    // As soon as one has ended, or the settings say so.
    let later = now + seconds(90);
    assert_eq!(take(&admission, "198.51.100.1", later), Ok(()));
    settings.penalties = Some(Penalties::default());
    admission.replace(&settings);
    assert_eq!(take(&admission, "198.51.100.1", now), Ok(()));
}
