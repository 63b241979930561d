//! A connection to a Unix socket on the server's host; sshd connects as the login's user
//! (OpenSSH PROTOCOL, section 2.4: `direct-streamlocal@openssh.com`).

use super::process::Process;
use crate::ssh::client::connect::Connection;
use crate::ssh::error::ChannelError;

impl Connection {
    /// Connects to the listener at `path`. The result is a process without standard error
    /// and without an exit code. Fails with [`ChannelError::Process`] where nothing listens
    /// there or sshd forbids forwarding.
    pub async fn remote_socket(&self, path: &str) -> Result<Process, ChannelError> {
        match self.handle.channel_open_direct_streamlocal(path).await {
            Ok(channel) => {
                let (read, write) = channel.split();
                Ok(Process::over(read, write, &self.shared))
            }
            Err(russh::Error::ChannelOpenFailure(_)) => Err(ChannelError::Process {
                host: self.host().to_owned(),
                what: format!("a connection to {path}"),
                reason: self.shared.take_open_failure().unwrap_or_default(),
            }),
            Err(error) => Err(self.gone(&error)),
        }
    }
}
