//! Sets up the remote host: by an agent that its sshd starts, or by shell commands.

pub(crate) mod agent;
pub(crate) mod login;
pub(crate) mod shell;
