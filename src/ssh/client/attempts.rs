//! Tries again when a server closes a connection before its banner, as sshd does at random when
//! many clients connect at once (MaxStartups).

use std::time::Duration;

use crate::ssh::error::ConnectError;

/// The pauses between attempts, on average, in milliseconds. Each is varied by a half, so that
/// clients that were refused together do not come back together.
const PAUSES: [u64; 5] = [400, 800, 1600, 3200, 4000];

/// How often each host of a route is tried.
#[derive(Clone, Copy)]
pub struct Attempts<'a> {
    pauses: &'static [u64],
    notice: &'a (dyn Fn(String) + Sync),
}

impl<'a> Attempts<'a> {
    /// Once, as in ssh.
    pub fn one() -> Self {
        Attempts {
            pauses: &[],
            notice: &|_| {},
        }
    }

    /// Several times; `notice` gets a line for each further attempt.
    pub fn several(notice: &'a (dyn Fn(String) + Sync)) -> Self {
        Attempts {
            pauses: &PAUSES,
            notice,
        }
    }

    /// Waits before the next attempt after `failed` earlier ones; returns `error` if it does not
    /// help to try again, or was tried often enough.
    pub(super) async fn next(
        &self,
        failed: usize,
        error: ConnectError,
    ) -> Result<(), ConnectError> {
        let (ConnectError::ClosedEarly { .. }, Some(pause)) = (&error, self.pauses.get(failed))
        else {
            return Err(error);
        };
        let pause = varied(Duration::from_millis(*pause));
        let seconds = pause.as_secs_f32();
        (self.notice)(format!("{error}; trying again in {seconds:.1} s"));
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

/// `pause` times a random number from 0.5 to 1.5; `pause` itself if there is no randomness.
fn varied(pause: Duration) -> Duration {
    let mut random = [0; 4];
    match aws_lc_rs::rand::fill(&mut random) {
        Ok(()) => pause.mul_f64(0.5 + f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)),
        Err(_) => pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_vary_by_a_half() {
        let pauses: Vec<Duration> = (0..100).map(|_| varied(Duration::from_secs(2))).collect();
        let range = Duration::from_secs(1)..=Duration::from_secs(3);
        assert!(pauses.iter().all(|pause| range.contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
    }
}
