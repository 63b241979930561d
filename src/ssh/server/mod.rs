//! The server's side of SSH connections: who comes in, and which channels they
//! ask for. What they may is decided elsewhere: by a [`gate`](login::gate) at login, and by
//! whoever takes the [`requests`] afterwards.

mod asking;
pub mod connection;
mod events;
pub mod host_keys;
pub mod login;
mod patience;
pub mod place;
pub mod requests;
pub mod settings;
pub mod stream;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod test_lab;
