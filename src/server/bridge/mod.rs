//! Clients on a bridge: which MAC and link-local addresses belong to which client.

pub(super) mod claim_queue;
pub(super) mod mac_claims;
pub(super) mod neighbours;
pub(super) mod stations;
