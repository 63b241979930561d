//! Measures the highest rate of small datagrams with an acceptable loss, by trying rates.

use std::io::{ErrorKind, IoSlice};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::prctl::set_timerslack;
use nix::sys::socket::{setsockopt, sockopt};

use crate::lab::host::Host;
use crate::traffic::datagrams::{Idle, Received, send};

/// The payload of a datagram, in bytes.
const PAYLOAD: usize = 200;
/// The acceptable loss, as a share of the sent datagrams.
const LOSS: f64 = 0.01;
/// The duration of a trial.
const TRIAL: Duration = Duration::from_secs(1);
/// Silence after which a trial ends.
const SILENCE: Duration = Duration::from_millis(300);
/// The first rate, in datagrams per second.
const FIRST_RATE: f64 = 20_000.0;
/// Halvings of the interval between a good and a bad rate.
const HALVINGS: u32 = 4;
/// The share of a rate that the sender has to reach; below it, higher rates are not tried.
const REACHED: f64 = 0.6;
/// Trials before a rate counts as bad: a busy machine may lose packets that it would otherwise
/// carry.
const TRIES: usize = 2;
/// The receive buffer, in bytes.
const SOCKET_BUFFER: usize = 16 << 20;
/// The longest pause of a sender that is ahead of its rate.
const PACE: Duration = Duration::from_micros(200);
/// The timer slack, in nanoseconds.
const SLACK: std::ffi::c_ulong = 1;
/// Datagrams by which the sender may lag its rate. It does not catch up further, since a burst
/// would overflow queues that the rate itself does not.
const BURST: u64 = 32;

/// The result of one trial.
#[derive(Debug, Clone, Copy)]
struct Trial {
    sent: u64,
    /// The duration of sending.
    sending: Duration,
    received: u64,
    /// The time from the first datagram sent to the last one received: longer than `sending` by
    /// the time to drain the tunnel's queues.
    receiving: Duration,
}

impl Trial {
    fn is_good(&self) -> bool {
        self.received as f64 >= self.sent as f64 * (1.0 - LOSS)
    }

    fn sent_a_second(&self) -> f64 {
        self.sent as f64 / self.sending.as_secs_f64()
    }

    fn received_a_second(&self) -> f64 {
        self.received as f64 / self.receiving.max(self.sending).as_secs_f64()
    }
}

/// The highest rate, in datagrams per second, that reaches `to` from `from` with a loss of at most
/// 1 %; 0 if even the lowest rate loses more.
pub fn measure(from: (&Host, &str), to: (&Host, &str)) -> Result<f64> {
    let receiver = socket(to)?;
    receiver.set_read_timeout(Some(SILENCE))?;
    setsockopt(&receiver, sockopt::RcvBufForce, &SOCKET_BUFFER)?;
    let sender = socket(from)?;
    sender.connect(receiver.local_addr()?)?;
    highest(|rate| trial(&sender, &receiver, rate))
}

fn socket((host, address): (&Host, &str)) -> Result<UdpSocket> {
    let address: IpAddr = address.parse().context("an address")?;
    host.in_network(|| Ok(UdpSocket::bind(SocketAddr::new(address, 0))?))
}

/// The highest rate that a good trial received: doubles the rate until one is bad, then halves the
/// interval.
fn highest(mut once: impl FnMut(f64) -> Result<Trial>) -> Result<f64> {
    let mut trial = |rate| {
        let mut trial = once(rate)?;
        for _ in 1..TRIES {
            if !trial.is_good() {
                trial = once(rate)?;
            }
        }
        anyhow::Ok(trial)
    };
    let (mut good, mut most, mut rate) = (0.0, 0.0_f64, FIRST_RATE);
    let mut bad = loop {
        let trial = trial(rate)?;
        if !trial.is_good() {
            break rate;
        }
        most = most.max(trial.received_a_second());
        if trial.sent_a_second() < rate * REACHED {
            return Ok(most); // the sender itself is the limit
        }
        good = rate;
        rate *= 2.0;
    };
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(good, bad);
        let trial = trial(middle)?;
        if trial.is_good() {
            good = middle;
            most = most.max(trial.received_a_second());
        } else {
            bad = middle;
        }
    }
    Ok(most)
}

/// Sends `rate` datagrams per second and counts the received ones.
fn trial(sender: &UdpSocket, receiver: &UdpSocket, rate: f64) -> Result<Trial> {
    let done = AtomicBool::new(false);
    let start = Instant::now();
    thread::scope(|scope| {
        let counter = scope.spawn(|| count(receiver, start, &done));
        // On a separate thread, since the timer slack is per thread.
        let sender = scope.spawn(|| blast(sender, rate));
        let sent = sender.join();
        done.store(true, Ordering::Relaxed);
        let counted = counter.join();
        let panicked = |panic| -> Result<(u64, Duration)> { std::panic::resume_unwind(panic) };
        let (sent, sending) = sent.unwrap_or_else(panicked)?;
        let (received, receiving) = counted.unwrap_or_else(panicked)?;
        Ok(Trial {
            sent,
            sending,
            received,
            receiving,
        })
    })
}

/// Sends at `rate` for the duration of a trial; returns the number and the time.
fn blast(socket: &UdpSocket, rate: f64) -> Result<(u64, Duration)> {
    let payload = [0x5a; PAYLOAD];
    let batch = [IoSlice::new(&payload); BURST as usize];
    set_timerslack(SLACK)?;
    let rest = PACE.min(Duration::from_secs_f64(BURST as f64 / 4.0 / rate));
    let (mut sent, mut forgiven) = (0_u64, 0_u64);
    let start = Instant::now();
    loop {
        let elapsed = start.elapsed();
        if elapsed >= TRIAL {
            return Ok((sent, elapsed));
        }
        let wanted = (elapsed.as_secs_f64() * rate) as u64;
        let behind = wanted.saturating_sub(sent + forgiven);
        forgiven += behind.saturating_sub(BURST);
        let burst = behind.min(BURST) as usize;
        let Some(datagrams) = batch.get(..burst).filter(|batch| !batch.is_empty()) else {
            thread::sleep(rest); // the pace, not a wait for something
            continue;
        };
        match send(socket.as_fd(), datagrams) {
            Ok(count) => sent += count as u64,
            // A full queue dropped this one.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => sent += 1,
            Err(error) => return Err(error).context("sending datagrams"),
        }
    }
}

/// Counts received datagrams until sending is done and silence follows.
fn count(socket: &UdpSocket, start: Instant, done: &AtomicBool) -> Result<(u64, Duration)> {
    let mut batch = Received::with_size(PAYLOAD);
    let (mut received, mut last) = (0, Duration::ZERO);
    loop {
        match batch.receive(socket.as_fd(), Idle::Wait) {
            Ok(count) => {
                received += count as u64;
                last = start.elapsed();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if done.load(Ordering::Relaxed) {
                    return Ok((received, last));
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("receiving datagrams"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tunnel of `capacity` datagrams per second, with a sender of at most `speed`.
    fn tunnel(capacity: f64, speed: f64) -> impl Fn(f64) -> Result<Trial> {
        move |rate| {
            let sent = rate.min(speed);
            Ok(Trial {
                sent: sent as u64,
                sending: Duration::from_secs(1),
                received: sent.min(capacity) as u64,
                receiving: Duration::from_secs(1),
            })
        }
    }

    #[test]
    fn the_search_ends_close_to_the_capacity() -> Result<()> {
        for capacity in [25_432.0, 70_000.0, 999_999.0] {
            let found = highest(tunnel(capacity, f64::INFINITY))?;
            let share = found / capacity;
            assert!((0.93..=1.0).contains(&share), "{found} of {capacity}");
        }
        Ok(())
    }

    #[test]
    fn a_slow_sender_ends_the_search() -> Result<()> {
        assert_eq!(highest(tunnel(1e9, 50_000.0))?, 50_000.0);
        Ok(())
    }

    #[test]
    fn one_bad_moment_does_not_end_the_search() -> Result<()> {
        let carries = tunnel(50_000.0, f64::INFINITY);
        let nothing = tunnel(0.0, f64::INFINITY);
        let mut tries = 0;
        let found = highest(|rate| {
            tries += 1;
            if tries % 3 == 1 {
                nothing(rate)
            } else {
                carries(rate)
            }
        })?;
        assert!(found > 46_000.0, "{found}");
        Ok(())
    }

    #[test]
    fn a_tunnel_that_carries_nothing_gives_nothing() -> Result<()> {
        assert_eq!(highest(tunnel(0.0, 1e6))?, 0.0);
        Ok(())
    }

    #[test]
    fn what_is_only_stored_up_does_not_raise_the_figure() {
        let trial = Trial {
            sent: 1000,
            sending: Duration::from_secs(1),
            received: 1000,
            receiving: Duration::from_secs(2),
        };
        assert!(trial.is_good());
        assert_eq!(trial.received_a_second(), 500.0);
    }

    #[test]
    fn a_trial_over_loopback_counts_what_was_sent() -> Result<()> {
        let receiver = UdpSocket::bind("127.0.0.1:0")?;
        receiver.set_read_timeout(Some(SILENCE))?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        sender.connect(receiver.local_addr()?)?;
        let trial = trial(&sender, &receiver, 1000.0)?;
        assert!(trial.sent > 0 && trial.received <= trial.sent, "{trial:?}");
        assert!(trial.sent_a_second() <= 1000.0, "{trial:?}");
        assert!(trial.received > 0, "{trial:?}");
        Ok(())
    }
}
