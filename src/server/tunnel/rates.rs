//! How much the connections of one key may carry: their tunnels and TCP forwards
//! together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::sync::watch;

use crate::pump::{Rate, RateLimit};
use crate::server::address::lease::LeaseKey;
use crate::server::login::grant::Grant;

/// The limits of one connection, which are those of its key; clones share them.
#[derive(Debug, Clone)]
pub(in crate::server) struct Rates {
    /// From the client.
    pub upload: RateLimit,
    /// To it.
    pub download: RateLimit,
    /// What later connections of the key go by, while this one is there.
    _of_key: Arc<OfKey>,
}

/// The limits of all keys (of certificates: authority and key id) with connections.
#[derive(Debug, Default)]
pub(in crate::server) struct KeyRates(Mutex<HashMap<LeaseKey, Weak<OfKey>>>);

#[derive(Debug, Default)]
struct OfKey {
    upload: Shared,
    download: Shared,
}

/// One direction of all connections of a key.
#[derive(Debug)]
struct Shared {
    rate: watch::Sender<Option<Rate>>,
    limit: RateLimit,
}

impl Default for Shared {
    fn default() -> Self {
        let (rate, watched) = watch::channel(None);
        let limit = RateLimit::new(watched);
        Shared { rate, limit }
    }
}

impl Shared {
    /// What is granted now counts for the earlier connections too, or they would be
    /// two limits.
    fn granted(&self, bytes: Option<u64>) -> RateLimit {
        let Some(rate) = bytes.and_then(Rate::new) else {
            return RateLimit::NONE;
        };
        self.rate.send_if_modified(|known| {
            let differs = *known != Some(rate);
            *known = Some(rate);
            differs
        });
        self.limit.clone()
    }
}

impl KeyRates {
    /// For one more connection, as it is granted; shared with the others of its key.
    pub(in crate::server) fn of(&self, grant: &Grant) -> Rates {
        let key = LeaseKey::of(&grant.identity);
        let mut keys = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = keys.get(&key).and_then(Weak::upgrade);
        let of_key = known.unwrap_or_else(|| {
            keys.retain(|_, of_key| of_key.strong_count() > 0);
            let of_key = Arc::default();
            keys.insert(key, Arc::downgrade(&of_key));
            of_key
        });
        Rates {
            upload: of_key.upload.granted(grant.upload),
            download: of_key.download.granted(grant.download),
            _of_key: of_key,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::server::login::grant::{ForwardRule, Identity};

    fn grant(key: &str, upload: Option<u64>) -> Grant {
        Grant {
            identity: Identity {
                user: "someone".to_owned(),
                fingerprint: key.to_owned(),
                certificate: None,
            },
            tunnel: None,
            open: ForwardRule::Nothing,
            listen: ForwardRule::Nothing,
            upload,
            download: None,
        }
    }

    /// How long `connections` take for 1000 bytes each.
    async fn time_of(connections: &[&Rates]) -> Duration {
        let start = Instant::now();
        for _ in 0..10 {
            for rates in connections {
                rates.upload.opened().await;
                rates.upload.take(100);
            }
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn connections_of_one_key_have_its_rate_together() {
        let keys = KeyRates::default();
        let [one, two] = [0; 2].map(|_| keys.of(&grant("a", Some(1000))));
        let other = keys.of(&grant("b", Some(1000)));
        let alone = time_of(&[&other]).await.as_millis();
        assert!((850..=1000).contains(&alone), "{alone}");
        let together = time_of(&[&one, &two]).await.as_millis();
        assert!((1850..=2000).contains(&together), "{together}");
        assert!(one.download.now().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_latest_grant_counts_and_goes_with_the_last_connection() {
        let keys = KeyRates::default();
        let early = keys.of(&grant("a", Some(1000)));
        let late = keys.of(&grant("a", Some(2000)));
        assert_eq!(early.upload.now(), Rate::new(2000));
        // One that is granted any number is not held to it.
        assert_eq!(keys.of(&grant("a", None)).upload.now(), None);
        assert_eq!(late.upload.now(), Rate::new(2000));
        drop((early, late));
        let _other = keys.of(&grant("b", None));
        assert_eq!(keys.0.lock().unwrap().len(), 1);
    }
}
