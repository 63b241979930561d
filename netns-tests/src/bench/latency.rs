//! Measures round-trip times, by ping.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::bench::statistics::Series;
use crate::lab::host::Host;
use crate::wait::PATIENCE;

/// Pings per second.
const RATE: u32 = 100;
/// The round-trip time that an unanswered ping counts as, in milliseconds: ping's own timeout.
pub const LOST: f64 = 1000.0;

/// Pings `address` from `host` for `seconds`; returns the round-trip times in milliseconds, without
/// those of the first `warm_up` seconds.
pub fn measure(host: &Host, address: &str, warm_up: u32, seconds: u32) -> Result<Series> {
    let count = (warm_up + seconds) * RATE;
    let command = [
        "ping".to_owned(),
        "-n".into(),
        "-W1".into(),
        format!("-i{}", 1.0 / f64::from(RATE)),
        format!("-c{count}"),
        address.to_owned(),
    ];
    let limit = PATIENCE + Duration::from_secs((warm_up + seconds).into());
    let output = host.spawn(&command)?.wait(limit)?;
    let times = times(&output.stdout, warm_up * RATE, count)?;
    ensure!(
        times.least().is_some_and(|least| least < LOST),
        "no ping was answered: {}{}",
        output.stdout,
        output.stderr
    );
    Ok(times)
}

/// Parses ping's output: the times of the `count` pings, without the first `skipped`.
pub fn times(output: &str, skipped: u32, count: u32) -> Result<Series> {
    let mut times = vec![LOST; count as usize];
    for line in output.lines().filter(|line| line.contains("icmp_seq=")) {
        let value = |name: &str| {
            let mut words = line.split(' ');
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        // A line with a number but no time reports an error.
        let (Some(number), Some(time)) = (value("icmp_seq"), value("time")) else {
            continue;
        };
        let number: usize = number.parse().with_context(|| line.to_owned())?;
        let place = number.checked_sub(1).and_then(|place| times.get_mut(place));
        let time: f64 = time.parse().with_context(|| line.to_owned())?;
        *place.with_context(|| line.to_owned())? = time.min(LOST);
    }
    Ok(times.into_iter().skip(skipped as usize).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_by_number_and_lost_ones_count_as_long() -> Result<()> {
        let output = "PING 10.99.0.2 (10.99.0.2) 56(84) bytes of data.\n\
            64 bytes from 10.99.0.2: icmp_seq=1 ttl=64 time=7.10 ms\n\
            64 bytes from 10.99.0.2: icmp_seq=4 ttl=64 time=0.045 ms\n\
            From 10.99.0.1 icmp_seq=3 Destination Host Unreachable\n\
            64 bytes from 10.99.0.2: icmp_seq=2 ttl=64 time=12.5 ms\n\n\
            --- 10.99.0.2 ping statistics ---\n";
        let times = times(output, 1, 4)?;
        assert_eq!(times, [0.045, 12.5, LOST].into_iter().collect());
        Ok(())
    }

    #[test]
    fn a_number_that_was_not_sent_is_an_error() {
        let line = "64 bytes from 10.99.0.2: icmp_seq=5 ttl=64 time=7.10 ms\n";
        assert!(times(line, 0, 4).is_err());
    }
}
