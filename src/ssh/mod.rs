//! One SSH connection: who we are, who they are, channels. Alone in the
//! program in knowing russh.

mod askpass;
mod key_line;
pub mod known_hosts;
mod known_hosts_add;
pub mod prompt;
pub mod secret;
pub mod terminal_text;
mod tty;

#[cfg(test)]
mod prompt_script;
#[cfg(test)]
mod test_settings;
