//! Keys and the files that name them: authorized_keys, revocation lists, the files they are trusted in.

pub mod absolute_time;
pub mod authorized_keys;
pub(crate) mod base64;
pub mod key_blob;
pub mod revocation_list;
pub mod source_pattern;
pub(crate) mod trusted_append;
pub mod trusted_file;
pub(crate) mod wire_reader;
