//! A client's login attempts, up to the one that succeeds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use russh::server::{Auth, Handle, Session};
use tokio::sync::oneshot;

use super::credential::{Attempt, Credential};
use super::gate::{Gate, Tried};
use crate::ssh::client::prompt::terminal_text;

/// The longest user name that is accepted, in bytes.
const MAX_USER: usize = 255;

/// At most this many keys and certificates are considered per client. Refused ones also
/// count as failures, whose limit can be far lower.
const MAX_OFFERS: usize = 64;

/// How far a client has come before its login.
#[derive(Debug, Default)]
pub(in crate::ssh::server) struct Progress {
    tried: AtomicBool,
    failed: AtomicUsize,
}

impl Progress {
    /// Whether the client tried anything besides asking for the methods.
    pub(in crate::ssh::server) fn tried(&self) -> bool {
        self.tried.load(Ordering::Relaxed)
    }

    /// The number of failed attempts.
    pub(in crate::ssh::server) fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }
}

/// A verified credential that the gate has accepted.
pub(in crate::ssh::server) struct Judged<Grant> {
    pub(in crate::ssh::server) grant: Grant,
    pub(in crate::ssh::server) user: String,
    pub(in crate::ssh::server) credential: Credential,
    pub(in crate::ssh::server) touched: bool,
}

/// A login that has succeeded.
pub(in crate::ssh::server) struct Admission<Grant> {
    pub(in crate::ssh::server) judged: Judged<Grant>,
    pub(in crate::ssh::server) handle: Handle,
    pub(in crate::ssh::server) identification: String,
}

/// The attempts of one client.
pub(in crate::ssh::server) struct Attempts<G: Gate> {
    gate: Arc<G>,
    peer: SocketAddr,
    progress: Arc<Progress>,
    /// Whether the gate was told that a login has begun.
    begun: bool,
    offers: usize,
    /// False between the notice that the security key was not touched and the verdict.
    touched: bool,
    judged: Option<Judged<G::Grant>>,
    /// `None` once it is used.
    admit: Option<oneshot::Sender<Admission<G::Grant>>>,
}

impl<G: Gate> Attempts<G> {
    /// The attempts of a client at `peer`; sends the one that succeeds to `admit`.
    pub(in crate::ssh::server) fn new(
        gate: Arc<G>,
        peer: SocketAddr,
        progress: Arc<Progress>,
        admit: oneshot::Sender<Admission<G::Grant>>,
    ) -> Self {
        Attempts {
            gate,
            peer,
            progress,
            begun: false,
            offers: 0,
            touched: true,
            judged: None,
            admit: Some(admit),
        }
    }

    /// The client asks to log in, with any method.
    pub(in crate::ssh::server) fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            self.gate.begun();
        }
    }

    /// The client offers a credential, without a signature yet.
    pub(in crate::ssh::server) fn offered(
        &mut self,
        user: &str,
        shown: Result<Credential, &'static str>,
    ) -> Auth {
        self.offers = self.offers.saturating_add(1);
        let shown = match shown {
            Ok(_) if self.offers > MAX_OFFERS => Err("one of more than 64 offered keys"),
            shown => shown,
        };
        match self.judge(user, shown) {
            Some(_) => Auth::Accept,
            None => Auth::reject(),
        }
    }

    /// The client sent a credential whose signature is verified.
    pub(in crate::ssh::server) fn verified(
        &mut self,
        user: &str,
        shown: Result<Credential, &'static str>,
    ) -> Auth {
        self.judged = self.judge(user, shown);
        self.touched = true;
        match self.judged {
            Some(_) => Auth::Accept,
            None => Auth::reject(),
        }
    }

    /// The next verified credential has a signature by a security key that was not touched.
    /// Yields whether the gate accepts that.
    pub(in crate::ssh::server) fn untouched(
        &mut self,
        user: &str,
        shown: Result<Credential, &'static str>,
    ) -> bool {
        self.touched = false;
        let enough = self.judge(user, shown).is_some();
        self.touched = !enough;
        enough
    }

    /// The client sent a credential without a valid proof.
    pub(in crate::ssh::server) fn unproven(
        &mut self,
        user: &str,
        shown: Result<Credential, &'static str>,
        why: &'static str,
    ) {
        match shown {
            Ok(_) if user.len() > MAX_USER => self.failed("", Tried::Unfit(why)),
            Ok(credential) => self.failed(user, Tried::Unproven(&credential, why)),
            Err(unfit) => self.failed(user, Tried::Unfit(unfit)),
        }
    }

    /// The client tried a method that is not offered.
    pub(in crate::ssh::server) fn unoffered(&mut self, user: &str, method: &'static str) -> Auth {
        self.failed(user, Tried::Method(method));
        Auth::reject()
    }

    fn judge(
        &self,
        user: &str,
        shown: Result<Credential, &'static str>,
    ) -> Option<Judged<G::Grant>> {
        self.progress.tried.store(true, Ordering::Relaxed);
        let credential = match shown {
            Ok(_) if user.len() > MAX_USER => {
                self.failed("", Tried::Unfit("a user name that is too long"));
                return None;
            }
            Ok(credential) => credential,
            Err(unfit) => {
                self.failed(user, Tried::Unfit(unfit));
                return None;
            }
        };
        let attempt = Attempt {
            user,
            peer: self.peer,
            credential: &credential,
            touched: self.touched,
            now: SystemTime::now(),
        };
        match self.gate.judge(&attempt) {
            Some(grant) => Some(Judged {
                grant,
                user: user.to_owned(),
                credential,
                touched: self.touched,
            }),
            None => {
                self.failed(user, Tried::Refused(&credential));
                None
            }
        }
    }

    fn failed(&self, user: &str, tried: Tried<'_>) {
        self.progress.tried.store(true, Ordering::Relaxed);
        self.progress.failed.fetch_add(1, Ordering::Relaxed);
        self.gate.failed(self.peer, user, tried);
    }

    /// russh has told the client that it is logged in.
    pub(in crate::ssh::server) fn succeeded(
        &mut self,
        session: &Session,
    ) -> Result<(), russh::Error> {
        let (Some(judged), Some(admit)) = (self.judged.take(), self.admit.take()) else {
            return Err(russh::Error::NotAuthenticated);
        };
        let identification = String::from_utf8_lossy(session.remote_sshid());
        let admission = Admission {
            judged,
            handle: session.handle(),
            identification: terminal_text::line(&identification),
        };
        // The receiver is gone if the grace time has just ended.
        admit.send(admission).map_err(|_| russh::Error::Disconnect)
    }
}
