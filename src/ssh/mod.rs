//! One SSH connection: authentication, host keys, channels. The only module that uses
//! russh.

mod algorithms;
pub mod channel;
pub mod client;
pub mod congestion;
pub mod error;
pub mod query;
pub mod server;

#[cfg(test)]
mod host_key_proof_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod rsa_tests;
#[cfg(test)]
pub(crate) mod test_settings;
#[cfg(test)]
mod tunnel_tests;
#[cfg(test)]
pub(crate) mod wire;
