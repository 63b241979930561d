//! CoDel with a simulated clock.

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A queue that is judged each millisecond.
struct Bench {
    codel: Codel,
    start: Instant,
    now: u32,
}

impl Bench {
    fn new() -> Self {
        Bench {
            codel: Codel::default(),
            start: Instant::now(),
            now: 0,
        }
    }

    /// Judges packets that waited for `sojourn` ms, for `duration` ms; the times of
    /// drops, in ms since the start.
    fn run(&mut self, duration: u32, sojourn: u32, spare: bool) -> Vec<u32> {
        let mut drops = Vec::new();
        for _ in 0..duration {
            let now = self.start + MS * self.now;
            let settings = CodelSettings::default();
            while self.codel.judge(&settings, now, MS * sojourn, spare) == Verdict::Drop {
                drops.push(self.now);
            }
            self.now += 1;
        }
        drops
    }
}

#[test]
fn waits_below_the_target_cost_nothing() {
    assert!(Bench::new().run(10_000, 19, true).is_empty());
}

#[test]
fn a_queue_with_nothing_to_spare_loses_nothing() {
    assert!(Bench::new().run(10_000, 5000, false).is_empty());
}

#[test]
fn a_burst_shorter_than_the_interval_costs_nothing() {
    let mut bench = Bench::new();
    for _ in 0..20 {
        assert!(bench.run(100, 50, true).is_empty());
        assert!(bench.run(1, 19, true).is_empty());
        assert!(bench.run(100, 50, true).is_empty());
        assert!(bench.run(1, 50, false).is_empty());
    }
}

#[test]
fn drops_come_closer_by_the_square_root_of_their_count() {
    let drops = Bench::new().run(2000, 20, true);
    assert_eq!(drops[0], 100, "after one interval");
    let mut due = 100.0_f64;
    for (count, dropped) in drops.iter().enumerate().skip(1) {
        due += 100.0 / (count as f64).sqrt();
        // Judged each millisecond, so up to one late.
        assert!(
            (due..due + 1.001).contains(&f64::from(*dropped)),
            "{drops:?}"
        );
    }
    assert!(drops.len() > 80, "{drops:?}");
}

#[test]
fn a_relapse_starts_at_the_rate_that_was_found() {
    let mut bench = Bench::new();
    let found = bench.run(1000, 30, true).len();
    assert!(found > 20);
    bench.run(50, 5, true);
    let relapse = bench.run(300, 30, true);
    assert_eq!(relapse[0], 1050 + 100);
    let spacing = 100.0 / ((found - 1) as f64).sqrt();
    assert!(
        f64::from(relapse[1] - relapse[0]) <= spacing + 2.0,
        "{relapse:?}"
    );
}

#[test]
fn after_a_long_calm_the_rate_starts_anew() {
    let mut bench = Bench::new();
    bench.run(1000, 30, true);
    bench.run(2000, 5, true);
    let drops = bench.run(301, 30, true);
    assert_eq!(drops, [3100, 3200, 3271], "{drops:?}");
}

#[test]
fn what_was_learned_of_a_queue_ends_with_it() {
    let mut bench = Bench::new();
    assert!(bench.run(100, 30, true).is_empty());
    bench.codel.emptied();
    assert_eq!(bench.run(101, 30, true), [200]);
}

#[test]
fn time_that_stands_still_or_goes_back_does_no_harm() {
    let settings = CodelSettings {
        target: Duration::ZERO,
        interval: Duration::ZERO,
    };
    let late = Instant::now() + MS * 1000;
    let mut codel = Codel::default();
    for now in [late, late, late - MS * 500, late] {
        let _ = codel.judge(&settings, now, Duration::ZERO, true);
    }
    assert_eq!(
        codel.judge(&settings, late, Duration::MAX, false),
        Verdict::Deliver
    );
}
