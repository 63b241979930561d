//! `sshvpn serve`: our own SSH server, whose only trade is tunnels.
//!
//! ```text
//!   TCP ─► admission ─► ssh::server ─► client ─┬► tunnel    device ⇄ guard ⇄ pump ⇄ channel
//!                          │ policy            └► forwards  TCP
//!                          ▼
//!                        grant         what this login may do
//!   lease, table    addresses from a pool; forwarding and NAT in a table of our own
//!   registry, audit, status, metrics   who carried how much where
//! ```

pub mod admission;
pub mod audit;
mod few_at_once;
pub mod grant;
pub mod metrics;
pub mod registry;
pub mod status;
