//! One SSH connection: who we are, who they are, channels. Alone in the
//! program in knowing russh.

pub mod agent;
mod algorithms;
mod askpass;
pub mod auth;
mod auth_candidates;
mod auth_interactive;
mod auth_publickey;
pub mod connect;
pub mod error;
mod events;
mod far_socket;
mod host_certificate;
pub mod host_key;
pub mod host_key_algorithms;
mod host_key_plain;
mod host_key_record;
mod host_key_text;
mod host_names;
pub mod identity;
mod key_line;
mod key_signer;
pub mod known_hosts;
mod known_hosts_add;
pub mod private_key;
pub mod process;
pub mod prompt;
pub mod prompt_acks;
mod revoked_keys;
pub mod secret;
pub mod server;
pub mod side;
mod stalled;
pub mod terminal_text;
mod transport;
mod tty;
pub mod tunnel;

#[cfg(test)]
mod auth_certificate_tests;
#[cfg(test)]
mod auth_interactive_tests;
#[cfg(test)]
mod auth_tests;
#[cfg(test)]
mod end_tests;
#[cfg(test)]
mod host_key_case;
#[cfg(test)]
mod host_key_certificate_tests;
#[cfg(test)]
mod host_key_proof_tests;
#[cfg(test)]
mod memory_tests;
#[cfg(test)]
mod process_tests;
#[cfg(test)]
mod prompt_script;
#[cfg(test)]
mod rsa_tests;
#[cfg(test)]
mod test_server;
#[cfg(test)]
pub(crate) mod test_settings;
#[cfg(test)]
mod tunnel_batch_tests;
#[cfg(test)]
mod tunnel_tests;
#[cfg(test)]
pub(crate) mod wire;
#[cfg(test)]
pub(crate) mod wire_client;
#[cfg(test)]
pub(crate) mod wire_server;
