//! Leases of client addresses: each address is lent to one connection at a time, is
//! free again when its [`Lease`] is dropped, and goes to the same key again, also after
//! a restart.

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

/// The least time between two writes of the file.
const SAVE_INTERVAL: Duration = Duration::from_millis(500);
/// The least time before a retry after a failed write.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);

/// Why a client gets no addresses.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LeaseError {
    /// All addresses of a pool are in use.
    #[error("every address of the pool {0} is in use: make it larger")]
    Exhausted(IpNetwork),
    /// A fixed address is the server's own address.
    #[error("the fixed address {0} is the server's own: give the client another")]
    IsServer(IpAddr),
    /// A fixed address is of a family in which the server has no address.
    #[error(
        "the fixed address {0} needs a pool of its family, from which the server has its own address"
    )]
    NoPool(IpAddr),
    /// A client holds the first address of a new pool.
    #[error(
        "{0} would be the server's address and a client holds it: choose another pool, or restart"
    )]
    ServerAddressHeld(IpAddr),
}

/// An address of a client and its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeasedAddress {
    /// The client's address.
    pub client: IpAddr,
    /// The server's address, of the same family.
    pub server: IpAddr,
    /// The prefix length of the network that holds both; the full length of the address if
    /// there is no such network.
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

/// Leased addresses; they are free again when this is dropped.
#[derive(Debug)]
#[must_use = "a lease that is dropped is over"]
pub struct Lease {
    shared: Arc<Shared>,
    addresses: Vec<LeasedAddress>,
}

impl Lease {
    /// The addresses, at most one per family; empty if the server assigns none.
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

/// All leases of a server. Closing or dropping it writes the file a last time.
#[derive(Debug)]
pub struct Leases {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

impl Leases {
    /// Starts from the file at `path`; a file that cannot be read is renamed, with a
    /// warning. `fixed` are the addresses reserved for certain clients. Fails only if no
    /// thread can be started.
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

    /// Leases one address of each family that has a pool: the fixed one; else the requested
    /// one, if it is free and no other key had it; else the one that the key had before;
    /// else any, and among those that other keys had, the least recently used. A key whose
    /// fixed address is in use by another of its connections gets one of the pool.
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

    /// Replaces the pools and the fixed addresses. Live leases stay; remembered addresses
    /// stay if they are in the new pools.
    pub fn reload(&self, pools: Pools, fixed: BTreeSet<IpAddr>) -> Result<(), LeaseError> {
        let mut desk = self.shared.desk();
        desk.book.replace(pools, fixed)?;
        self.shared.changed(&mut desk);
        Ok(())
    }

    /// Writes the file a last time, even if leases are still live: later changes are not
    /// written. Blocks the calling thread.
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

    /// The number of leased addresses.
    pub fn in_use(&self) -> usize {
        self.shared.desk().book.held()
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.close();
    }
}

/// The lease book and the state of its writer.
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
        // The book is consistent between any two statements that can panic.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self, desk: &mut Desk) {
        desk.dirty = true;
        self.wake.notify_all();
    }

    /// Writes the file soon after each change, and once more at the end.
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
