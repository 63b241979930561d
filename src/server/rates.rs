//! How much one connection may carry: its tunnel and its TCP forwards together.

use super::grant::Grant;
use crate::pump::{Rate, RateLimit};

/// The limits of one connection; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Rates {
    /// From the client.
    pub upload: RateLimit,
    /// To it.
    pub download: RateLimit,
}

impl Rates {
    /// As they are granted.
    pub(super) fn of(grant: &Grant) -> Self {
        let limit = |bytes: Option<u64>| RateLimit::fixed(bytes.and_then(Rate::new));
        Rates {
            upload: limit(grant.upload),
            download: limit(grant.download),
        }
    }
}
