//! Looks up the names to which clients want to connect. The system's resolver occupies a
//! thread until it answers, even if the client no longer waits, so the number of
//! concurrent lookups is limited, per key and in total.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::net::lookup_host;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::server::address::lease::LeaseKey;

/// Limit of concurrent lookups of all clients; the runtime has about 500 threads for
/// blocking work, and other work needs them too.
const MOST: usize = 64;
/// Limit of concurrent lookups of one key, those of its ended connections included.
const MOST_OF_ONE: usize = 4;
/// How long a lookup may wait to start.
const TURN: Duration = Duration::from_secs(5);
/// How long it may take after that; glibc gives up on an unresponsive server after 10 s
/// (resolv.conf(5), timeout and attempts).
const ANSWER: Duration = Duration::from_secs(12);

/// Why there are no addresses.
#[derive(Debug)]
pub(super) enum LookupError {
    /// Too many lookups are in progress.
    Busy,
    /// The resolver's error, or a timeout.
    Failed(io::Error),
}

/// The lookups of all clients.
#[derive(Debug)]
pub(in crate::server) struct Lookups {
    all: Arc<Semaphore>,
    /// The share of each key (of certificates: authority and key id) that has a connection
    /// or a lookup in progress.
    keys: Mutex<HashMap<LeaseKey, Weak<Semaphore>>>,
}

/// The lookups of one connection, limited together with the others of its key.
#[derive(Debug, Clone)]
pub(in crate::server) struct Names {
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

impl Default for Lookups {
    fn default() -> Self {
        Lookups {
            all: Arc::new(Semaphore::new(MOST)),
            keys: Mutex::default(),
        }
    }
}

impl Lookups {
    /// The handle for one more connection of `key`.
    pub(in crate::server) fn names(&self, key: LeaseKey) -> Names {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys.get(&key).and_then(Weak::upgrade);
        let own = known.unwrap_or_else(|| {
            keys.retain(|_, own| own.strong_count() > 0);
            let own = Arc::new(Semaphore::new(MOST_OF_ONE));
            keys.insert(key, Arc::downgrade(&own));
            own
        });
        Names {
            all: Arc::clone(&self.all),
            own,
        }
    }
}

impl Names {
    /// The addresses of `host` with `port`; a literal address needs no lookup.
    pub(super) async fn addresses(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, LookupError> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        let host = host.to_owned();
        self.look_up(async move { Ok(lookup_host((host, port)).await?.collect()) })
            .await
    }

    /// Runs `asking` when both limits allow it. It counts until it has ended, even if the
    /// caller no longer waits for it.
    async fn look_up<T: Send + 'static>(
        &self,
        asking: impl Future<Output = io::Result<T>> + Send + 'static,
    ) -> Result<T, LookupError> {
        let turn = async {
            let own = Arc::clone(&self.own).acquire_owned().await;
            let all = Arc::clone(&self.all).acquire_owned().await;
            // The semaphores are never closed.
            own.ok().zip(all.ok())
        };
        let Ok(Some(turn)) = timeout(TURN, turn).await else {
            return Err(LookupError::Busy);
        };
        let asked = tokio::spawn(async move {
            // The permit also keeps the key's semaphore alive, for later connections.
            let answer = asking.await;
            drop(turn);
            answer
        });
        let answer = timeout(ANSWER, asked).await.ok().and_then(Result::ok);
        answer
            .unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))
            .map_err(LookupError::Failed)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use super::*;

    fn key(name: &str) -> LeaseKey {
        LeaseKey::from_text(name)
    }

    /// Starts `count` lookups that do not answer and abandons them; each ends when its
    /// returned sender is used.
    async fn give_up(names: &Names, count: usize) -> Vec<oneshot::Sender<()>> {
        let mut answers = Vec::new();
        for _ in 0..count {
            let (answer, answered) = oneshot::channel::<()>();
            let asking = async move { answered.await.map_err(io::Error::other) };
            let waited = timeout(Duration::from_secs(1), names.look_up(asking)).await;
            assert!(waited.is_err(), "it was not given up");
            answers.push(answer);
        }
        answers
    }

    fn is_busy<T>(found: &Result<T, LookupError>) -> bool {
        matches!(found, Err(LookupError::Busy))
    }

    #[tokio::test]
    async fn an_address_is_looked_up_nowhere() {
        let lookups = Lookups {
            all: Arc::new(Semaphore::new(0)),
            ..Lookups::default()
        };
        let found = lookups.names(key("a")).addresses("2001:db8::1", 80).await;
        assert_eq!(found.unwrap(), ["[2001:db8::1]:80".parse().unwrap()]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_has_its_share_and_what_it_gave_up_still_counts() {
        let lookups = Lookups::default();
        let names = lookups.names(key("a"));
        let mut answers = give_up(&names, MOST_OF_ONE).await;
        let start = Instant::now();
        assert!(is_busy(&names.look_up(async { Ok(()) }).await));
        assert_eq!(start.elapsed(), TURN);
        // Another client has its own limit.
        let other = lookups.names(key("b"));
        assert!(other.look_up(async { Ok(()) }).await.is_ok());
        // The resolver answers.
        answers.pop().unwrap().send(()).unwrap();
        assert!(names.look_up(async { Ok(()) }).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_back_has_no_more_for_that() {
        let lookups = Lookups::default();
        let answers = give_up(&lookups.names(key("a")), MOST_OF_ONE).await;
        let again = lookups.names(key("a"));
        assert!(is_busy(&again.look_up(async { Ok(()) }).await));
        drop(answers);
        assert!(again.look_up(async { Ok(()) }).await.is_ok());
        // The entry of a key without connections is removed.
        drop(again);
        let _other = lookups.names(key("b"));
        assert_eq!(lookups.keys.lock().unwrap().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn all_clients_together_have_so_many_and_no_more() {
        let lookups = Lookups::default();
        let stuck = || pending::<io::Result<()>>();
        for number in 0..MOST / MOST_OF_ONE {
            let names = lookups.names(key(&number.to_string()));
            for _ in 0..MOST_OF_ONE {
                let asked = names.look_up(stuck());
                assert!(timeout(Duration::from_millis(1), asked).await.is_err());
            }
        }
        let names = lookups.names(key("one more"));
        assert!(is_busy(&names.look_up(async { Ok(()) }).await));
    }

    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_never_answers_is_waited_for_so_long() {
        let start = Instant::now();
        let names = Lookups::default().names(key("a"));
        let found = names.look_up(pending::<io::Result<()>>()).await;
        let Err(LookupError::Failed(error)) = found else {
            panic!("{found:?}");
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), ANSWER);
    }
}
