//! Client addresses: pools, leases, and the lease file.

pub mod lease;
pub(super) mod lease_book;
pub(super) mod lease_file;
pub(super) mod lease_key;
pub mod pool;
