//! Handles russh's callbacks for a client: passes login attempts, channel requests and
//! requests on channels on. On channels only a subsystem is ever granted.

use russh::keys::{Certificate, PublicKey};
use russh::server::{
    Auth, ChannelOpenHandle, Handler, Msg, PublicKeyFailure, PublicKeyOffer, Response, Session,
    VerifiedPublicKey,
};
use russh::{Channel, ChannelId, ChannelOpenFailure, Pty};

use super::asking::{Asking, described, kept};
use super::connection::Shared;
use super::login::attempts::Attempts;
use super::login::conversion;
use super::login::gate::Gate;
use crate::ssh::channel::tunnel::CHANNEL_TYPE;
use crate::ssh::client::prompt::terminal_text;

use std::sync::Arc;

/// At most this many characters of a client's disconnect message are kept.
const KEPT_CHARACTERS: usize = 256;

/// An error that ends the connection's task.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    /// The client has caused too many refusals.
    #[error("the client sent too many requests that were refused")]
    Flood,
    /// The protocol failed.
    #[error(transparent)]
    Russh(#[from] russh::Error),
}

/// The handler that russh calls.
pub(super) struct Events<G: Gate> {
    pub(super) attempts: Attempts<G>,
    pub(super) asking: Asking,
    pub(super) shared: Arc<Shared>,
}

/// Refuses a session's program and ends the session as one that failed: a client that requests
/// no reply, like Dropbear's, would wait for ever.
fn no_program(id: ChannelId, session: &mut Session) -> Result<(), ServeError> {
    session.channel_failure(id)?;
    session.exit_status_request(id, 1)?;
    Ok(session.close(id)?)
}

/// The failure for a channel type that is not supported.
fn unknown_type() -> ChannelOpenFailure {
    ChannelOpenFailure::UnknownChannelType
}

impl<G: Gate> Handler for Events<G> {
    type Error = ServeError;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, ServeError> {
        self.attempts.begin();
        Ok(Auth::reject())
    }

    async fn auth_password(&mut self, user: &str, _: &str) -> Result<Auth, ServeError> {
        self.attempts.begin();
        Ok(self.attempts.unoffered(user, "password"))
    }

    async fn auth_keyboard_interactive<'a>(
        &'a mut self,
        user: &str,
        _: &str,
        _: Option<Response<'a>>,
    ) -> Result<Auth, ServeError> {
        self.attempts.begin();
        Ok(self.attempts.unoffered(user, "keyboard-interactive"))
    }

    async fn auth_publickey_offered(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<Auth, ServeError> {
        self.attempts.begin();
        Ok(self.attempts.offered(user, conversion::offered(&offer)))
    }

    async fn auth_publickey_failed(
        &mut self,
        user: &str,
        public_key: &PublicKey,
        certificate: Option<&Certificate>,
        why: PublicKeyFailure,
    ) -> Result<(), ServeError> {
        let shown = match certificate {
            Some(certificate) => conversion::certificate(certificate),
            None => conversion::key(public_key),
        };
        self.attempts
            .unproven(user, shown, conversion::failure(why));
        Ok(())
    }

    async fn auth_publickey_untouched(
        &mut self,
        user: &str,
        offer: PublicKeyOffer<'_>,
    ) -> Result<bool, ServeError> {
        Ok(self.attempts.untouched(user, conversion::offered(&offer)))
    }

    async fn auth_publickey(
        &mut self,
        user: &str,
        key: VerifiedPublicKey<'_>,
    ) -> Result<Auth, ServeError> {
        self.attempts.begin();
        Ok(self
            .attempts
            .verified(user, conversion::key(key.public_key)))
    }

    async fn auth_openssh_certificate(
        &mut self,
        user: &str,
        certificate: &Certificate,
    ) -> Result<Auth, ServeError> {
        self.attempts.begin();
        Ok(self
            .attempts
            .verified(user, conversion::certificate(certificate)))
    }

    async fn auth_succeeded(&mut self, session: &mut Session) -> Result<(), ServeError> {
        Ok(self.attempts.succeeded(session)?)
    }

    async fn disconnected(&mut self, reason: u32, description: &str) -> Result<(), ServeError> {
        let description: String = terminal_text::line(description.trim())
            .chars()
            .take(KEPT_CHARACTERS)
            .collect();
        let reason = format!("the client disconnected: {reason}: {description}");
        self.shared.give_reason(reason);
        Ok(())
    }

    async fn closing(&mut self) -> Result<(), ServeError> {
        self.shared.leave();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), ServeError> {
        self.asking.session(channel, reply).await
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        originator_address: &str,
        originator_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), ServeError> {
        let originator = (originator_address, originator_port);
        self.asking
            .open(channel, (host, port), originator, reply)
            .await
    }

    async fn channel_open_unknown(
        &mut self,
        channel: Channel<Msg>,
        channel_type: &str,
        payload: &[u8],
        reply: ChannelOpenHandle,
        session: &mut Session,
    ) -> Result<(), ServeError> {
        if channel_type == CHANNEL_TYPE {
            let handle = session.handle();
            return self.asking.tunnel(channel, payload, reply, handle).await;
        }
        self.asking
            .refuse(reply, unknown_type(), channel_type)
            .await
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), ServeError> {
        let failure = ChannelOpenFailure::AdministrativelyProhibited;
        let failure = described(failure, "no forwarding to sockets");
        let what = format!("direct-streamlocal {}", kept(path));
        self.asking.refuse(reply, failure, &what).await
    }

    async fn channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), ServeError> {
        self.asking.refuse(reply, unknown_type(), "x11").await
    }

    async fn channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), ServeError> {
        self.asking
            .refuse(reply, unknown_type(), "forwarded-tcpip")
            .await
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), ServeError> {
        self.asking.closed(id);
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), ServeError> {
        let handle = session.handle();
        if !self.asking.subsystem(id, name, handle) {
            no_program(id, session)?;
        }
        Ok(())
    }

    async fn shell_request(
        &mut self,
        id: ChannelId,
        session: &mut Session,
    ) -> Result<(), ServeError> {
        self.asking.unserved("shell");
        no_program(id, session)
    }

    async fn exec_request(
        &mut self,
        id: ChannelId,
        command: &[u8],
        session: &mut Session,
    ) -> Result<(), ServeError> {
        let command = command.get(..KEPT_CHARACTERS).unwrap_or(command);
        let command = String::from_utf8_lossy(command);
        self.asking.unserved_named("exec", &command);
        no_program(id, session)
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        _: &str,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        _: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), ServeError> {
        self.asking.unserved("pty-req");
        Ok(session.channel_failure(id)?)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), ServeError> {
        self.asking.unserved("x11-req");
        Ok(session.channel_failure(id)?)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        _: &str,
        session: &mut Session,
    ) -> Result<(), ServeError> {
        self.asking.unserved_named("env", name);
        Ok(session.channel_failure(id)?)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Result<(), ServeError> {
        Ok(session.channel_failure(id)?)
    }

    async fn agent_request(&mut self, _: ChannelId, _: &mut Session) -> Result<bool, ServeError> {
        self.asking.unserved("auth-agent-req@openssh.com");
        Ok(false)
    }

    async fn streamlocal_forward(
        &mut self,
        path: &str,
        _: &mut Session,
    ) -> Result<bool, ServeError> {
        self.asking.unserved_named("streamlocal-forward", path);
        Ok(false)
    }

    async fn tcpip_forward(
        &mut self,
        address: &str,
        port: &mut u32,
        _: &mut Session,
    ) -> Result<bool, ServeError> {
        let Some(listening) = self.asking.listen(address, *port).await else {
            return Ok(false);
        };
        *port = u32::from(listening);
        Ok(true)
    }

    async fn cancel_tcpip_forward(
        &mut self,
        address: &str,
        port: u32,
        _: &mut Session,
    ) -> Result<bool, ServeError> {
        Ok(self.asking.cancel(address, port).await)
    }
}
