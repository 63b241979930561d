//! From an offered key to a grant: authorized_keys, certificates, rules.

pub(super) mod certificate;
pub mod denial;
pub mod grant;
pub(super) mod key_files;
pub mod policy;
pub(super) mod rules;
