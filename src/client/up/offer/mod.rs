//! Checks a server's offer, and notes which parts the client does not take.

pub(super) mod addresses;
pub(super) mod error;
pub(super) mod note;
