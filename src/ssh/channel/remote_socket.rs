//! A socket on the remote end's host, which its sshd connects to as the login
//! (OpenSSH PROTOCOL, section 2.4: `direct-streamlocal@openssh.com`).

use super::process::Process;
use crate::ssh::client::connect::Connection;
use crate::ssh::error::ChannelError;

impl Connection {
    /// Who listens at `path` there, as a process that has no standard error and
    /// no exit code. sshd refuses where nobody does, or forwards are off, with
    /// [`ChannelError::Process`].
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
