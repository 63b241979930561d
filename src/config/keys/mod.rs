//! Keys and the files that contain them: authorized_keys, revocation lists, and checks of the
//! files' ownership.

pub mod absolute_time;
pub mod authorized_keys;
pub(crate) mod base64;
pub mod key_blob;
pub mod revocation_list;
pub mod source_pattern;
pub(crate) mod trusted_append;
pub mod trusted_file;
pub(crate) mod wire_reader;
