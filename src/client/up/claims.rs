//! Claims the tunnel's addresses on this host, so that tunnels that start together get different
//! ones.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use super::plan::error::PlanError;
use super::remote_part::Start;
use crate::host::address_claim::{self, AddressClaim, Side};
use crate::host::plan::addressing::AddressPair;
use crate::host::plan::facts::HostFacts;

/// Addresses that the remote host may refuse, at most.
const MOST_REFUSED: usize = 64;

/// The claims of one tunnel, until it is taken down.
#[derive(Debug, Default)]
pub(super) struct Claims(Mutex<Vec<AddressClaim>>);

impl Claims {
    /// Replaces the claims by those on both addresses of each pair; fails with the first address
    /// that another tunnel has.
    pub(super) fn replace(&self, pairs: &[AddressPair]) -> Result<(), IpAddr> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.clear();
        for address in pairs.iter().flat_map(|pair| [pair.local, pair.remote]) {
            match AddressClaim::take(address, Side::Client) {
                Ok(Some(claim)) => held.push(claim),
                Ok(None) => {
                    held.clear();
                    return Err(address);
                }
                // Without it, only tunnels that start together can collide.
                Err(error) => tracing::debug!(%error, %address, "the address cannot be claimed"),
            }
        }
        Ok(())
    }
}

/// Adds the addresses that the remote host refused to those that are not chosen again.
pub(super) fn refused(taken: &mut Vec<IpAddr>, refused: Vec<IpAddr>) -> Result<(), PlanError> {
    match refused.first() {
        Some(address) if taken.len() >= MOST_REFUSED => Err(PlanError::AddressTaken(*address)),
        _ => {
            taken.extend(refused);
            Ok(())
        }
    }
}

/// Chooses with `choose` until `pairs` of the choice are claimed on this host. `taken` are the
/// addresses that the remote host has refused.
pub(super) fn choose<T>(
    start: &Start<'_>,
    taken: &[IpAddr],
    mut choose: impl FnMut(&HostFacts, u64) -> Result<T, PlanError>,
    pairs: impl Fn(&T) -> &[AddressPair],
) -> Result<T, PlanError> {
    // The claims of an earlier choice.
    let _ = start.claims.replace(&[]);
    let mut facts = start.local.clone();
    facts.claimed = address_claim::claimed();
    facts.claimed.extend(taken);
    // Clones of one machine have one seed, and would collide again and again.
    let seed = match taken {
        [] => start.seed,
        _ => start.seed ^ RandomState::new().hash_one(()),
    };
    loop {
        let chosen = choose(&facts, seed)?;
        let refused = match start.claims.replace(pairs(&chosen)) {
            Ok(()) => pairs(&chosen)
                .iter()
                .map(|pair| pair.local)
                .find(|it| taken.contains(it)),
            Err(address) => Some(address),
        };
        match refused {
            None => return Ok(chosen),
            // The user's choice, or a device's, which stays the same.
            Some(address) if facts.claimed.contains(&address) => {
                return Err(PlanError::AddressTaken(address));
            }
            Some(address) => facts.claimed.push(address),
        }
    }
}
