//! The server's side of SSH connections: logins, channels and requests. A
//! [`gate`](login::gate) decides whether a client may log in; the receiver of the
//! [`requests`] decides about the rest.

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
pub(crate) mod test_lab;
