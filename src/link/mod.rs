//! What the pump connects: the tunnel end of an SSH channel, in its forms.

pub mod control;
pub mod datagram;
pub(crate) mod dialogue;
pub(crate) mod last_words;
pub(crate) mod page_lending;
pub(crate) mod process_stream;
pub(crate) mod stdio;
pub mod stream;
