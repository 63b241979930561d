//! Connections that come, go and misbehave, on a clock that the test controls.

use std::time::Duration;

use super::*;
use crate::config::serve::settings::{Overflow, Penalties};

fn seconds(number: u64) -> Duration {
    Duration::from_secs(number)
}

pub fn settings() -> LoginSettings {
    LoginSettings {
        grace_time: Some(seconds(120)),
        crowded_grace_time: Some(seconds(20)),
        max_auth_tries: 6,
        max_startups: MaxStartups {
            start: 10,
            rate: 30,
            full: 100,
        },
        per_source_max_startups: None,
        source_block: (32, 128),
        per_network_max_startups: None,
        network_block: (24, 48),
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
    // An admitted connection ends at once.
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

/// A connection that has begun to log in, from each of these addresses.
fn begun<'a>(
    admission: &Arc<Admission>,
    peers: impl IntoIterator<Item = &'a str>,
    now: Instant,
) -> Vec<Startup> {
    let begin = |peer| {
        let startup = admission.admit_by(ip(peer), now, || 99).unwrap();
        startup.place().begun();
        startup
    };
    peers.into_iter().map(begin).collect()
}

/// The reason to close it, if there is one.
fn told(startup: &mut Startup) -> Option<Refused> {
    let mut waiting = std::pin::pin!(startup.displaced());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match waiting.as_mut().poll(&mut context) {
        std::task::Poll::Ready(why) => Some(why),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn a_draw_decides_between_start_and_full() {
    let (admission, now) = (Admission::new(&settings()), Instant::now());
    let mut inside = begun(&admission, ["192.0.2.1"; 10], now);
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
fn one_that_has_not_begun_goes_before_a_new_one_is_refused() {
    let (admission, start) = (Admission::new(&settings()), Instant::now());
    let mut inside = begun(&admission, ["192.0.2.1"; 8], start);
    let mut first = admission.admit(ip("192.0.2.1"), start).unwrap();
    let mut second = admission
        .admit(ip("192.0.2.1"), start + seconds(1))
        .unwrap();
    let mut third = admission
        .admit_by(ip("198.51.100.1"), start + seconds(4), || 0)
        .unwrap();
    assert_eq!(told(&mut first), Some(Refused::Displaced));
    assert_eq!(told(&mut second), None);
    assert_eq!(admission.startups(), 10);
    // A connection that has begun to log in is not displaced for one like this.
    second.place().begun();
    let _fourth = admission
        .admit_by(ip("198.51.100.1"), start + seconds(4), || 0)
        .unwrap();
    assert_eq!(told(&mut third), Some(Refused::Displaced));
    assert!(inside.iter_mut().all(|one| told(one).is_none()));
}

#[test]
fn the_most_crowded_network_gives_way_first() {
    let (admission, start) = (Admission::new(&settings()), Instant::now());
    let mut alone = admission.admit(ip("198.51.100.1"), start).unwrap();
    let later = start + seconds(1);
    let mut crowd: Vec<Startup> = (1..10)
        .map(|last| {
            let peer = ip(&format!("192.0.2.{last}"));
            admission.admit_by(peer, later, || 99).unwrap()
        })
        .collect();
    let after = start + seconds(5);
    let _new = admission.admit_by(ip("203.0.113.1"), after, || 0).unwrap();
    assert_eq!(told(&mut alone), None, "though it is the oldest");
    assert_eq!(told(&mut crowd[0]), Some(Refused::Displaced));
    assert!(crowd[1..].iter_mut().all(|one| told(one).is_none()));
}

/// Its key exchange takes two round trips, whatever other connections arrive.
#[test]
fn a_young_one_has_a_head_start() {
    let (admission, start) = (Admission::new(&settings()), Instant::now());
    let mut old = admission.admit(ip("198.51.100.1"), start).unwrap();
    let now = start + seconds(5);
    let mut young: Vec<Startup> = (1..10)
        .map(|last| {
            let peer = ip(&format!("192.0.2.{last}"));
            admission.admit_by(peer, now, || 99).unwrap()
        })
        .collect();
    let _new = admission.admit_by(ip("203.0.113.1"), now, || 0).unwrap();
    assert_eq!(told(&mut old), Some(Refused::Displaced));
    let _new = admission.admit_by(ip("203.0.113.1"), now, || 0).unwrap();
    assert_eq!(told(&mut young[0]), Some(Refused::Displaced));
}

/// Idle after the key exchange: one network cannot block others in that way.
#[test]
fn a_network_with_half_of_what_it_may_have_gives_way_to_others() {
    let settings = LoginSettings {
        per_network_max_startups: Some(10),
        ..settings()
    };
    let (admission, now) = (Admission::new(&settings), Instant::now());
    let mut many = begun(&admission, ["192.0.2.1"; 5], now);
    let mut few = begun(&admission, ["198.51.100.1"; 4], now);
    let _one = begun(&admission, ["203.0.113.1"], now);
    let own = admission.admit_by(ip("192.0.2.9"), now, || 0);
    assert_eq!(own.err(), Some(Refused::Startups));
    let mut new = begun(&admission, [], now);
    new.push(admission.admit_by(ip("203.0.113.2"), now, || 0).unwrap());
    assert_eq!(told(&mut many[0]), Some(Refused::Displaced));
    assert!(few.iter_mut().all(|one| told(one).is_none()));
}

#[test]
fn a_login_that_takes_long_goes_while_there_are_many() {
    let (admission, start) = (Admission::new(&settings()), Instant::now());
    let mut slow = begun(&admission, ["192.0.2.1"], start);
    let _others = begun(&admission, ["192.0.2.2"; 8], start + seconds(15));
    let now = start + seconds(30);
    let _ninth = admission.admit_by(ip("192.0.2.3"), now, || 99).unwrap();
    assert_eq!(told(&mut slow[0]), None, "there are not many");
    let _tenth = admission.admit_by(ip("192.0.2.3"), now, || 99).unwrap();
    assert_eq!(told(&mut slow[0]), Some(Refused::CrowdedGrace));
}

/// As one host of a network with 254 addresses can do: however many connections it opens,
/// it has its share of slots, and all others are admitted.
#[test]
fn thousands_of_silent_connections_from_one_network_keep_nobody_out() {
    let (admission, start) = (Admission::new(&LoginSettings::default()), Instant::now());
    let mut silent = Vec::new();
    for number in 0..20_000_u32 {
        let now = start + Duration::from_millis(u64::from(number));
        let peer = IpAddr::from([192, 0, 2, (number % 250) as u8]);
        silent.push(admission.admit(peer, now).unwrap());
        assert!(admission.startups() <= 101);
        if number % 100 == 0 {
            let peer = IpAddr::from([198, 51, (number / 256) as u8, number as u8]);
            let mut login = admission.admit(peer, now).unwrap();
            login.place().begun();
            assert_eq!(told(&mut login), None);
        }
    }
    let left = silent
        .iter_mut()
        .filter_map(|one| told(one).is_none().then_some(()));
    assert_eq!(left.count(), 100);
}

/// The same from as many networks as connections: only their silence distinguishes them
/// from others.
#[test]
fn silent_connections_from_everywhere_make_room() {
    let (admission, start) = (Admission::new(&LoginSettings::default()), Instant::now());
    let mut silent = Vec::new();
    for number in 0..5_000_u32 {
        let [_, _, high, low] = number.to_be_bytes();
        let peer = IpAddr::from([10, high, low, 1]);
        let now = start + Duration::from_millis(u64::from(number) * 3);
        silent.push(admission.admit(peer, now).unwrap());
        assert!(admission.startups() <= 1000);
    }
    let now = start + seconds(15);
    let mut login = admission.admit(ip("203.0.113.1"), now).unwrap();
    login.place().begun();
    assert_eq!(told(&mut login), None);
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
    let _both = begun(&admission, ["192.0.2.1", "2001:db8:1::1"], now);
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
    // A penalty that has begun to count does so to its end, and no longer.
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
        .chain([
            Refused::Startups,
            Refused::SourceStartups,
            Refused::NetworkStartups,
            Refused::Displaced,
            Refused::CrowdedGrace,
        ])
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
    // As soon as one has ended, or the settings change.
    let later = now + seconds(90);
    assert_eq!(take(&admission, "198.51.100.1", later), Ok(()));
    settings.penalties = Some(Penalties::default());
    admission.replace(&settings);
    assert_eq!(take(&admission, "198.51.100.1", now), Ok(()));
}

#[test]
fn many_people_may_share_an_address() {
    let mut settings = settings();
    settings.per_source_max_startups = Some(3);
    let admission = Admission::new(&settings);
    let now = Instant::now();
    let office = ["192.0.2.1"; 3];
    let mut slow = begun(&admission, office, now);
    let full = Err(Refused::SourceStartups);
    assert_eq!(take(&admission, "192.0.2.1", now + seconds(19)), full);
    // A login that has exceeded the crowded grace time makes room, though it has begun.
    assert_eq!(take(&admission, "192.0.2.1", now + seconds(20)), Ok(()));
    assert!(
        slow.iter_mut()
            .all(|one| told(one) == Some(Refused::CrowdedGrace))
    );
    // An exempt network is not counted per source.
    settings.exempt = vec!["192.0.2.0/24".parse().unwrap()];
    let admission = Admission::new(&settings);
    let held = begun(&admission, office, now);
    assert_eq!(take(&admission, "192.0.2.1", now), Ok(()));
    drop(held);
}
