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
//!
//! Its life: [`listen`] opens the sockets (or [`activation`] takes those of the
//! service manager), [`capabilities`] gives up all that is not needed any more,
//! then comes the runtime; [`signals`] and [`notify`] join it to whoever runs it.

pub mod activation;
pub mod admission;
pub mod audit;
pub mod capabilities;
mod certificate;
pub mod check;
pub mod client_device;
pub mod denial;
pub mod grant;
pub mod host;
mod key_files;
pub mod lease;
mod lease_book;
mod lease_file;
mod lease_key;
pub mod listen;
pub mod notify;
pub mod open_files;
pub mod policy;
pub mod pool;
pub mod registry;
pub mod signals;

#[cfg(test)]
mod test_settings;
