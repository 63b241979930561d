//! The offer of a `sshvpn serve`: held to what hosts can have, with a word for what was not taken.

pub(super) mod addresses;
pub(super) mod error;
pub(super) mod note;
