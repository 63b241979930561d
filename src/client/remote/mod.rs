//! The remote end's part of a tunnel: an agent that its sshd starts, or steps of a shell.

pub(crate) mod agent;
pub(crate) mod shell;
