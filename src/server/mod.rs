//! `sshvpn serve`: our own SSH server, whose only trade is tunnels.
//!
//! ```text
//!   TCP ─► admission ─► ssh::server ─► client ─┬► tunnel    device ⇄ guard ⇄ pump ⇄ channel
//!                          │ policy            └► forwards  TCP
//!                          ▼
//!                        grant         what this login may do
//!   pool, lease, host  addresses from a pool; forwarding and NAT in a table of our own
//!   audit, status, metrics             who carried how much where
//! ```

pub mod grant;

pub mod client_device;
pub mod host;
pub mod lease;
mod lease_book;
mod lease_file;
mod lease_key;
pub mod pool;

#[cfg(test)]
mod test_settings;
