//! What a login may do now, what it may reach, and how access is revoked.

pub(super) mod access_rules;
pub(super) mod entitlement;
pub(super) mod revocation;
