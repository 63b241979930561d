//! Assigns addresses to holders: one holder per address, and the same address for the
//! same holder. No I/O.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::lease::{LeaseError, LeasedAddress};
use super::lease_file::Remembered;
use super::lease_key::LeaseKey;
use super::pool::{Pool, Pools};
use crate::types::family::Family;

/// Limit of the remembered addresses, besides those in use.
const MOST_REMEMBERED: usize = 16_384;
/// How far the limit may be exceeded before the oldest are forgotten, so that not every
/// login has to search for them.
const SLACK: usize = 1024;

/// The last holder of an address, and when it was used.
#[derive(Debug)]
struct Memory {
    key: LeaseKey,
    /// The value of [`Book::clock`] at the last use; larger is later.
    used: u64,
}

/// All addresses that are in use or remembered.
#[derive(Debug)]
pub(in crate::server) struct Book {
    pools: Pools,
    /// Addresses that the pools do not give out, because rules assign them.
    reserved: BTreeSet<IpAddr>,
    held: HashSet<IpAddr>,
    /// The last holder of each address, held ones included, reserved ones excluded.
    remembered: HashMap<IpAddr, Memory>,
    /// Counts uses; only their order matters.
    clock: u64,
}

impl Book {
    /// Starts from the remembered leases, oldest first.
    pub(in crate::server) fn new(
        pools: Pools,
        reserved: BTreeSet<IpAddr>,
        remembered: Vec<Remembered>,
    ) -> Self {
        let mut book = Self {
            pools,
            reserved,
            held: HashSet::new(),
            remembered: HashMap::new(),
            clock: 0,
        };
        for Remembered { address, key } in remembered {
            if book.is_common(address) {
                let used = book.tick();
                book.remembered.insert(address, Memory { key, used });
            }
        }
        book.forget_beyond_bound();
        book
    }

    /// Takes one address of each family that has a pool.
    pub(in crate::server) fn take(
        &mut self,
        key: &LeaseKey,
        fixed: &[IpAddr],
        wanted: &[IpAddr],
    ) -> Result<Vec<LeasedAddress>, LeaseError> {
        if let Some(lost) = fixed
            .iter()
            .find(|it| self.pools.of(Family::of(**it)).is_none())
        {
            return Err(LeaseError::NoPool(*lost));
        }
        let pools: Vec<Pool> = self.pools.iter().copied().collect();
        let mut chosen = Vec::new();
        for pool in &pools {
            let of_family = |list: &[IpAddr]| {
                let mut list = list.iter().copied();
                list.find(|address| Family::of(*address) == pool.family())
            };
            let address = self.choose(pool, key, of_family(fixed), of_family(wanted))?;
            chosen.push(LeasedAddress::new(pool, address));
        }
        for leased in &chosen {
            self.hold(leased.client, key);
        }
        self.forget_beyond_bound();
        Ok(chosen)
    }

    /// Frees the addresses, and remembers their holder.
    pub(in crate::server) fn release(&mut self, addresses: &[LeasedAddress]) {
        for LeasedAddress { client, .. } in addresses {
            self.held.remove(client);
            let used = self.tick();
            if !self.is_common(*client) {
                self.remembered.remove(client);
            } else if let Some(memory) = self.remembered.get_mut(client) {
                memory.used = used;
            }
        }
    }

    /// Replaces the pools and the reserved addresses. Addresses in use stay with their
    /// holders.
    pub(in crate::server) fn replace(
        &mut self,
        pools: Pools,
        reserved: BTreeSet<IpAddr>,
    ) -> Result<(), LeaseError> {
        let taken = pools
            .iter()
            .map(Pool::server)
            .find(|server| self.held.contains(server));
        if let Some(server) = taken {
            return Err(LeaseError::ServerAddressHeld(server));
        }
        self.pools = pools;
        self.reserved = reserved;
        let mut remembered = std::mem::take(&mut self.remembered);
        remembered.retain(|address, _| self.held.contains(address) || self.is_common(*address));
        self.remembered = remembered;
        Ok(())
    }

    /// The number of addresses in use.
    pub(in crate::server) fn held(&self) -> usize {
        self.held.len()
    }

    /// The entries for the lease file, oldest first.
    pub(in crate::server) fn remembered(&self) -> Vec<Remembered> {
        let mut all: Vec<(&IpAddr, &Memory)> = self.remembered.iter().collect();
        all.sort_by_key(|(_, memory)| memory.used);
        let all = all.into_iter().map(|(address, memory)| Remembered {
            address: *address,
            key: memory.key.clone(),
        });
        all.collect()
    }

    fn choose(
        &self,
        pool: &Pool,
        key: &LeaseKey,
        fixed: Option<IpAddr>,
        wanted: Option<IpAddr>,
    ) -> Result<IpAddr, LeaseError> {
        if let Some(fixed) = fixed {
            if fixed == pool.server() {
                return Err(LeaseError::IsServer(fixed));
            }
            if !self.held.contains(&fixed) {
                return Ok(fixed);
            }
        }
        let is_ours = |address: &IpAddr| {
            let memory = self.remembered.get(address);
            self.is_free(pool, *address) && memory.is_none_or(|memory| memory.key == *key)
        };
        if let Some(wanted) = wanted.filter(is_ours) {
            return Ok(wanted);
        }
        let found = self
            .latest_of(pool, key)
            .or_else(|| self.never_used(pool, key))
            .or_else(|| self.least_recently_used(pool));
        found.ok_or(LeaseError::Exhausted(pool.network()))
    }

    /// The free address that this holder had last.
    fn latest_of(&self, pool: &Pool, key: &LeaseKey) -> Option<IpAddr> {
        let theirs = self
            .remembered
            .iter()
            .filter(|(address, memory)| memory.key == *key && self.is_free(pool, **address));
        let latest = theirs.max_by_key(|(_, memory)| memory.used);
        latest.map(|(address, _)| *address)
    }

    /// An address that no holder had before; its position derives from the holder's key.
    fn never_used(&self, pool: &Pool, key: &LeaseKey) -> Option<IpAddr> {
        let start = key.spread() % pool.room();
        // With one more candidate than known addresses, at least one is unknown.
        let known = self.remembered.len() + self.reserved.len() + self.held.len();
        let tries = pool.room().min(known as u128 + 1);
        (0..tries)
            .map(|step| pool.client(start + step))
            .find(|address| self.is_free(pool, *address) && !self.remembered.contains_key(address))
    }

    fn least_recently_used(&self, pool: &Pool) -> Option<IpAddr> {
        let free = self
            .remembered
            .iter()
            .filter(|(address, _)| self.is_free(pool, **address));
        let oldest = free.min_by_key(|(_, memory)| memory.used);
        oldest.map(|(address, _)| *address)
    }

    /// Whether this address of the pool can be assigned now.
    fn is_free(&self, pool: &Pool, address: IpAddr) -> bool {
        pool.has(address) && !self.reserved.contains(&address) && !self.held.contains(&address)
    }

    /// Whether an address is in a pool and not reserved.
    fn is_common(&self, address: IpAddr) -> bool {
        let pool = self.pools.of(Family::of(address));
        pool.is_some_and(|pool| pool.has(address)) && !self.reserved.contains(&address)
    }

    fn hold(&mut self, address: IpAddr, key: &LeaseKey) {
        self.held.insert(address);
        if !self.is_common(address) {
            return;
        }
        let used = self.tick();
        let memory = Memory {
            key: key.clone(),
            used,
        };
        let before = self.remembered.insert(address, memory);
        if before.is_none_or(|before| before.key != *key) {
            self.forget_spare(address, key);
        }
    }

    /// A holder that takes another address than before is remembered only with the new one.
    /// Otherwise a holder that requests another each time would occupy all of them.
    fn forget_spare(&mut self, taken: IpAddr, key: &LeaseKey) {
        let spare = self.remembered.iter().filter(|(address, memory)| {
            let free = !self.held.contains(address);
            free && memory.key == *key && Family::of(**address) == Family::of(taken)
        });
        let oldest = spare.min_by_key(|(_, memory)| memory.used);
        if let Some(address) = oldest.map(|(address, _)| *address) {
            self.remembered.remove(&address);
        }
    }

    fn forget_beyond_bound(&mut self) {
        let bound = MOST_REMEMBERED + self.held.len();
        let excess = self.remembered.len().saturating_sub(bound);
        if excess <= SLACK {
            return;
        }
        let free = self
            .remembered
            .iter()
            .filter(|(address, _)| !self.held.contains(address));
        let mut free: Vec<(u64, IpAddr)> = free.map(|(address, it)| (it.used, *address)).collect();
        free.sort();
        for (_, address) in free.into_iter().take(excess) {
            self.remembered.remove(&address);
        }
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }
}

#[cfg(test)]
mod tests;
