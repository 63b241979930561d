//! Reads ssh's own options, files and defaults as ssh reads them.

pub mod args;
pub(crate) mod ask_ssh;
pub(crate) mod defaults;
pub mod destination;
pub(crate) mod file;
pub mod forward;
pub(crate) mod key_exchange;
pub(crate) mod option_words;
pub mod options;
pub(crate) mod options_build;
pub(crate) mod pattern;
pub mod resolve;
pub(crate) mod syntax;
pub(crate) mod tokens;
pub(crate) mod value_reader;
pub(crate) mod values;
