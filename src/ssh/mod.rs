//! One SSH connection: who we are, who they are, channels. Alone in the
//! program in knowing russh.

mod askpass;
mod host_certificate;
pub mod host_key;
pub mod host_key_algorithms;
mod host_key_plain;
mod host_key_text;
mod host_names;
mod key_line;
pub mod known_hosts;
mod known_hosts_add;
pub mod prompt;
mod revoked_keys;
pub mod secret;
pub mod terminal_text;
mod tty;

#[cfg(test)]
mod prompt_script;
#[cfg(test)]
mod test_settings;
