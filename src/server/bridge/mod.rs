//! Clients on a bridge: whose MAC and link-local addresses are whose.

pub(super) mod claim_queue;
pub(super) mod mac_claims;
pub(super) mod neighbours;
pub(super) mod stations;
