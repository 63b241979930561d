//! The signals that control the server.

use std::future::pending;
use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::process::shutdown::ignored_signals;

/// The request that a signal stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// SIGHUP: read the settings again; clients stay.
    Reload,
    /// The first SIGTERM, SIGINT or SIGQUIT: disconnect the clients, undo everything, end.
    Stop,
    /// A further one: end at once.
    StopAtOnce,
}

/// The signals that a server handles, except those that its parent has set to be ignored
/// (nohup, a shell's background job).
pub struct Signals {
    hangup: Option<Signal>,
    ending: [Option<Signal>; 3],
    stopping: bool,
}

impl Signals {
    /// Installs the handlers.
    pub fn listen() -> io::Result<Self> {
        let ignored = ignored_signals();
        let take = |kind: SignalKind| match ignored & (1 << (kind.as_raw_value() - 1)) {
            0 => signal(kind).map(Some),
            _ => Ok(None),
        };
        Ok(Self {
            hangup: take(SignalKind::hangup())?,
            ending: [
                take(SignalKind::terminate())?,
                take(SignalKind::interrupt())?,
                take(SignalKind::quit())?,
            ],
            stopping: false,
        })
    }

    /// Waits for the next request. Several signals of one kind between two calls count as
    /// one. Dropping the future loses none.
    pub async fn next(&mut self) -> Asked {
        let [terminate, interrupt, quit] = &mut self.ending;
        tokio::select! {
            biased;
            () = received(terminate) => {}
            () = received(interrupt) => {}
            () = received(quit) => {}
            () = received(&mut self.hangup) => return Asked::Reload,
        }
        if std::mem::replace(&mut self.stopping, true) {
            Asked::StopAtOnce
        } else {
            Asked::Stop
        }
    }
}

async fn received(signal: &mut Option<Signal>) {
    match signal {
        // The stream of a signal does not end.
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
}
