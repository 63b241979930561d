//! Other SSH implementations as peers: servers of our client, and clients of `sshvpn serve`.

mod asyncssh_server;
mod dbclient;
mod dropbear;
mod forwards;
mod openssh;
mod putty;
mod python;
mod sshd_options;
