//! The server's side of SSH connections: who comes in, and which channels they
//! ask for. What they may is decided elsewhere: by a [`gate`] at login, and by
//! whoever takes the [`requests`] afterwards.

pub mod accept;
mod asking;
mod attempts;
pub mod connection;
pub mod credential;
mod events;
pub mod gate;
pub mod host_keys;
mod key_strength;
pub mod login;
mod patience;
pub mod place;
pub mod requests;
pub mod settings;
mod shown;
pub mod stream;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod test_lab;
