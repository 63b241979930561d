//! The addresses of clients: each is lent to one connection at a time, comes
//! back when its [`Lease`] is dropped, and goes to the same key again, also
//! after a restart.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ipnetwork::IpNetwork;
use thiserror::Error;

use super::lease_book::Book;
use super::lease_file;
use super::pool::{Pool, Pools};
use crate::process::message::say;

pub use super::lease_key::LeaseKey;

/// The file is not written more often.
const SAVE_INTERVAL: Duration = Duration::from_millis(500);
/// After a failure the next try is not before.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Why a client gets no addresses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LeaseError {
    /// All are in use.
    #[error("every address of the pool {0} is in use: make it larger")]
    Exhausted(IpNetwork),
    /// A fixed address that the server has itself.
    #[error("the fixed address {0} is the server's own: give the client another")]
    IsServer(IpAddr),
    /// A fixed address of a family that the server has no address in.
    #[error(
        "the fixed address {0} needs a pool of its family, from which the server has its own address"
    )]
    NoPool(IpAddr),
    /// A pool whose first address a client holds.
    #[error(
        "{0} would be the server's address and a client holds it: choose another pool, or restart"
    )]
    ServerAddressHeld(IpAddr),
}

/// An address of a client, with what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasedAddress {
    /// The client's.
    pub client: IpAddr,
    /// The server's, of the same family.
    pub server: IpAddr,
    /// The length of the prefix of the network that both are in; the whole
    /// address where they are in none.
    pub prefix: u8,
}

impl LeasedAddress {
    pub(in crate::server) fn new(pool: &Pool, client: IpAddr) -> Self {
        let prefix = match pool.has(client) {
            true => pool.network().prefix(),
            false => IpNetwork::from(client).prefix(),
        };
        Self {
            client,
            server: pool.server(),
            prefix,
        }
    }
}

/// Addresses on loan; they come back when this is dropped.
#[derive(Debug)]
#[must_use = "a lease that is dropped is over"]
pub struct Lease {
    shared: Arc<Shared>,
    addresses: Vec<LeasedAddress>,
}

impl Lease {
    /// One a family at most; none where the server assigns none.
    pub fn addresses(&self) -> &[LeasedAddress] {
        &self.addresses
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut desk = self.shared.desk();
        desk.book.release(&self.addresses);
        self.shared.changed(&mut desk);
    }
}

/// All addresses of a server. Closing it, or dropping it, writes its file a last
/// time.
#[derive(Debug)]
pub struct Leases {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Leases {
    /// Begins with what the file at `path` remembers; where it is broken it is
    /// set aside with a warning. `fixed` are the addresses that only certain
    /// clients get. Fails only where no thread can be started.
    pub fn load(path: &Path, pools: Pools, fixed: BTreeSet<IpAddr>) -> io::Result<Self> {
        let remembered = lease_file::read(path).unwrap_or_else(|error| {
            give_up_on(path, &error);
            Vec::new()
        });
        let shared = Arc::new(Shared {
            path: path.to_owned(),
            desk: Mutex::new(Desk {
                book: Book::new(pools, fixed, remembered),
                dirty: false,
                closing: false,
            }),
            wake: Condvar::new(),
        });
        let writers = Arc::clone(&shared);
        let writer = thread::Builder::new()
            .name("leases".to_owned())
            .spawn(move || writers.write_until_closed())?;
        Ok(Self {
            shared,
            writer: Mutex::new(Some(writer)),
        })
    }

    /// Lends one address of each family that there is a pool of: the fixed one;
    /// else the one that the client wants, if it is free and was no other's;
    /// else the one that the key had before; else any, and of those that others
    /// had the one that was not used for longest. A key whose fixed address is
    /// in use, by another connection of its own, gets one of the pool.
    pub fn lease(
        &self,
        key: &LeaseKey,
        fixed: &[IpAddr],
        wanted: &[IpAddr],
    ) -> Result<Lease, LeaseError> {
        let mut desk = self.shared.desk();
        let addresses = desk.book.take(key, fixed, wanted)?;
        self.shared.changed(&mut desk);
        drop(desk);
        Ok(Lease {
            shared: Arc::clone(&self.shared),
            addresses,
        })
    }

    /// Puts others in place of the pools and the fixed addresses. What is lent
    /// stays lent; what is remembered stays as far as it is in the pools.
    pub fn reload(&self, pools: Pools, fixed: BTreeSet<IpAddr>) -> Result<(), LeaseError> {
        let mut desk = self.shared.desk();
        desk.book.replace(pools, fixed)?;
        self.shared.changed(&mut desk);
        Ok(())
    }

    /// Writes the file a last time, whoever still has addresses: what happens to
    /// them later is not written down. Blocks the calling thread.
    pub fn close(&self) {
        self.shared.desk().closing = true;
        self.shared.wake.notify_all();
        let writer = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(writer) = writer
            && writer.join().is_err()
        {
            tracing::warn!("the writer of the leases panicked");
        }
    }

    /// How many addresses are on loan.
    pub fn in_use(&self) -> usize {
        self.shared.desk().book.held()
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.close();
    }
}

/// The book, and what its writer has to do.
#[derive(Debug)]
struct Desk {
    book: Book,
    dirty: bool,
    closing: bool,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    desk: Mutex<Desk>,
    wake: Condvar,
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        // The book is whole between any two statements that can panic.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, desk: &mut Desk) {
        desk.dirty = true;
        self.wake.notify_all();
    }

    /// Writes the file soon after each change, and a last time at the end.
    fn write_until_closed(&self) {
        let mut failing = false;
        loop {
            let idle = |desk: &mut Desk| !desk.dirty && !desk.closing;
            let woken = self.wake.wait_while(self.desk(), idle);
            let mut desk = woken.unwrap_or_else(PoisonError::into_inner);
            if !desk.dirty {
                return;
            }
            desk.dirty = false;
            let remembered = desk.book.remembered();
            drop(desk);
            let written = lease_file::write(&self.path, remembered);
            if let (Err(error), false) = (&written, failing) {
                say(format_args!(
                    "warning: cannot write the leases to {}: {error}; clients may get other addresses after a restart",
                    self.path.display()
                ));
            }
            failing = written.is_err();
            let mut desk = self.desk();
            if desk.closing && failing {
                return;
            }
            desk.dirty |= failing;
            let pause = if failing {
                RETRY_INTERVAL
            } else {
                SAVE_INTERVAL
            };
            let resting = self
                .wake
                .wait_timeout_while(desk, pause, |desk| !desk.closing);
            drop(resting);
        }
    }
}

fn give_up_on(path: &Path, error: &io::Error) {
    let fate = match lease_file::set_aside(path) {
        Ok(aside) => format!("it is now {}", aside.display()),
        Err(error) => format!("it could not be renamed: {error}"),
    };
    say(format_args!(
        "warning: the leases in {} cannot be read: {error}; {fate}, and clients may get other addresses",
        path.display()
    ));
}

#[cfg(test)]
mod tests;
