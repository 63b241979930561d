//! The server's side of SSH connections: who comes in, and which channels they
//! ask for. What they may is decided elsewhere: by a [`gate`] at login, and by
//! whoever takes the [`requests`] afterwards.

pub mod accept;
pub mod connection;
pub mod credential;
pub mod gate;
pub mod host_keys;
pub mod login;
pub mod place;
pub mod requests;
pub mod settings;
pub mod stream;
