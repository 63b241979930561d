//! The server's side of SSH connections: logins, channels and requests. A
//! [`gate`](login::gate) decides whether a client may log in; the receiver of the
//! [`requests`] decides about the rest.

pub mod channel_slots;
pub mod connection;
mod events;
pub mod host_keys;
pub mod login;
mod refusal_limit;
mod request_intake;
pub mod requests;
pub mod settings;
pub mod stream;

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
pub(crate) mod test_lab;
