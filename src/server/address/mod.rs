//! Addresses of clients: pools, leases, the file that remembers them.

pub mod lease;
pub(super) mod lease_book;
pub(super) mod lease_file;
pub(super) mod lease_key;
pub mod pool;
