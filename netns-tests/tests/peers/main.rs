//! Other SSH implementations as peers: servers of our client, and clients of `sshvpn serve`.

mod dbclient;
mod dropbear;
mod forwards;
mod putty;
mod sshd_options;
