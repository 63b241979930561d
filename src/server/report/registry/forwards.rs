//! The TCP connections of a client through the server, counted per destination or
//! listener.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::server::report::audit::text::Text;

/// Limit of the places counted separately per client; all others are summed up.
const MOST_PLACES: usize = 64;

/// The side that opens the connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardKind {
    /// The client, to a place beyond the server (-L, -D).
    Open,
    /// Another host, to the client's listener on this server (-R).
    Listen,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Known(Text, u32),
    Others,
}

/// All forwards of a client.
#[derive(Debug, Default)]
pub(super) struct Forwards(BTreeMap<(ForwardKind, Place), Arc<PlaceCounters>>);

#[derive(Debug, Default)]
struct PlaceCounters {
    live: AtomicU64,
    connections: AtomicU64,
    upload: AtomicU64,
    download: AtomicU64,
}

/// One forwarded connection, until it is dropped.
#[derive(Debug)]
pub struct Forward(Arc<PlaceCounters>);

/// The totals of one place, as the log has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardRecord {
    /// The side that opened the connections.
    pub kind: ForwardKind,
    /// The host as the client named it; `*` for all places beyond the limit.
    pub host: Text,
    /// The port; 0 if the host is `*`.
    pub port: u32,
    /// The number of connections in total.
    pub connections: u64,
    /// The number of open connections.
    pub live: u64,
    /// Bytes from the client.
    pub upload: u64,
    /// Bytes to the client.
    pub download: u64,
}

impl Forwards {
    /// Counts a connection.
    pub fn begin(&mut self, kind: ForwardKind, host: &str, port: u32) -> Forward {
        let mut key = (kind, Place::Known(host.into(), port));
        if self.0.len() >= MOST_PLACES && !self.0.contains_key(&key) {
            key.1 = Place::Others;
        }
        let counters = Arc::clone(self.0.entry(key).or_default());
        counters.live.fetch_add(1, Ordering::Relaxed);
        counters.connections.fetch_add(1, Ordering::Relaxed);
        Forward(counters)
    }

    /// The totals so far.
    pub fn records(&self) -> Vec<ForwardRecord> {
        let mut records = Vec::with_capacity(self.0.len());
        for ((kind, place), counters) in &self.0 {
            let (host, port) = match place {
                Place::Known(host, port) => (host.clone(), *port),
                Place::Others => ("*".into(), 0),
            };
            records.push(ForwardRecord {
                kind: *kind,
                host,
                port,
                connections: counters.connections.load(Ordering::Relaxed),
                live: counters.live.load(Ordering::Relaxed),
                upload: counters.upload.load(Ordering::Relaxed),
                download: counters.download.load(Ordering::Relaxed),
            });
        }
        records
    }
}

impl Forward {
    /// Counts bytes from the client.
    pub fn uploaded(&self, bytes: usize) {
        self.0.upload.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Counts bytes to the client.
    pub fn downloaded(&self, bytes: usize) {
        self.0.download.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_sums_up_its_connections() {
        let mut forwards = Forwards::default();
        for bytes in [100, 11] {
            let forward = forwards.begin(ForwardKind::Open, "db", 5432);
            forward.uploaded(bytes);
            forward.downloaded(2 * bytes);
            assert_eq!(forwards.records()[0].live, 1);
        }
        let records = forwards.records();
        assert_eq!(records.len(), 1);
        let record = &records[0];
        assert_eq!((record.connections, record.live), (2, 0));
        assert_eq!((record.upload, record.download), (111, 222));
    }

    #[test]
    fn a_client_that_goes_everywhere_takes_no_more_memory() {
        let mut forwards = Forwards::default();
        for port in 0..10_000 {
            forwards.begin(ForwardKind::Open, "scan", port).uploaded(1);
        }
        let records = forwards.records();
        assert!(records.len() <= MOST_PLACES + 1);
        let others = records.iter().find(|record| record.host.as_str() == "*");
        assert_eq!(others.unwrap().connections, 10_000 - MOST_PLACES as u64);
        let bytes: u64 = records.iter().map(|record| record.upload).sum();
        assert_eq!(bytes, 10_000);
    }
}
