//! `sshvpn serve`: our own SSH server, whose only trade is tunnels.
//!
//! ```text
//!   TCP ─► admission ─► ssh::server ─► client ─┬► tunnel    device ⇄ guard ⇄ pump ⇄ channel
//!                          │ policy            └► forwards  TCP
//!                          ▼
//!                        grant         what this login may do
//!   lease, table    addresses from a pool; forwarding and NAT in a table of our own
//!   audit, status, metrics             who carried how much where
//! ```

mod certificate;
pub mod check;
pub mod denial;
pub mod grant;
mod key_files;
pub mod policy;
