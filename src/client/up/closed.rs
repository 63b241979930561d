//! Closes this host to the remote host and its networks: no inbound connections and no forwarding,
//! except for what the user allows.
//!
//! It uses nft, else iptables; a line reports what neither can do.

use ipnetwork::IpNetwork;

use super::remote_part::Agreed;
use super::{Reporter, UpRequest};
use crate::host::change::Change;
use crate::host::change::client_firewall::{ClientFirewall, Means};
use crate::host::change::nft::NftError;
use crate::host::change::sysctl::SysctlKey;
use crate::host::error::NetError;
use crate::host::journal::state::HostState;
use crate::process::failure::Failure;
use crate::types::family::Family;
use crate::types::{InterfaceName, Mode};

/// The firewall rules, given the `routes` to be installed on this host.
pub(super) fn firewall<P>(
    request: &UpRequest,
    agreed: &Agreed<P>,
    routes: &[IpNetwork],
) -> ClientFirewall {
    let mut inbound = Vec::new();
    if request.inbound {
        inbound.extend(agreed.addresses.iter().map(|pair| match request.mode {
            Mode::PointToPoint => IpNetwork::from(pair.remote),
            // The remote host is one of several on the link.
            Mode::Ethernet => pair.local_network().unwrap_or(pair.remote.into()),
        }));
    }
    if request.inbound || agreed.without_nat {
        inbound.extend(routes);
    }
    ClientFirewall {
        inbound,
        forward: request.forward.clone(),
    }
}

/// Installs the rules, and turns IPv4 forwarding off for the device.
pub(super) async fn close<P>(
    local: &mut HostState,
    firewall: ClientFirewall,
    agreed: &Agreed<P>,
    host: &str,
    reporter: Reporter,
) -> Result<(), Failure> {
    let families: Vec<Family> = [Family::V4, Family::V6]
        .into_iter()
        .filter(|family| {
            let mut addresses = agreed.addresses.iter();
            addresses.any(|pair| Family::of(pair.local) == *family)
        })
        .collect();
    let forwards = !firewall.forward.is_empty();
    let who = format!("{host} and what is behind it");
    let open: Vec<String> = firewall.inbound.iter().map(ToString::to_string).collect();
    match make(local, firewall, &families).await? {
        Made::All if open.is_empty() => reporter.step(format_args!(
            "here: {who} cannot open connections to this host (--inbound allows it)"
        )),
        Made::All => reporter.step(format_args!(
            "here: {} can open connections to this host",
            open.join(", ")
        )),
        Made::Stateless => reporter.warning(format_args!(
            "this kernel has no connection tracking: {who} cannot open TCP connections to this host, \
             but can send it datagrams"
        )),
        Made::Nothing(error) => reporter.warning(format_args!(
            "no firewall: {who} can open connections to this host: {error}"
        )),
    }
    if !forwards {
        forward_nothing(local).await;
    }
    Ok(())
}

/// Which rules were installed.
enum Made {
    All,
    /// Rules without connection tracking: they only stop TCP.
    Stateless,
    /// A family lacks rules, for this reason.
    Nothing(NetError),
}

async fn make(
    local: &mut HostState,
    firewall: ClientFirewall,
    families: &[Family],
) -> Result<Made, Failure> {
    let mut refused = match attempt(local, &firewall, Means::Nft).await? {
        Ok(()) => return Ok(Made::All),
        Err(error) => error,
    };
    let mut missing = Vec::new();
    for family in [Family::V4, Family::V6] {
        if let Err(error) = attempt(local, &firewall, Means::Iptables(family)).await? {
            missing.push(family);
            if matches!(refused, NetError::Nft(NftError::Missing)) {
                refused = error;
            }
        }
    }
    // Without agreed addresses, packets of either family may come.
    let unmade = match families {
        [] => !missing.is_empty(),
        _ => families.iter().any(|family| missing.contains(family)),
    };
    if !unmade {
        return Ok(Made::All);
    }
    Ok(
        match attempt(local, &firewall, Means::NftStateless).await? {
            Ok(()) => Made::Stateless,
            Err(_) => Made::Nothing(refused),
        },
    )
}

/// An error of the firewall is returned in the inner result: it does not fail the tunnel.
async fn attempt(
    local: &mut HostState,
    firewall: &ClientFirewall,
    means: Means,
) -> Result<Result<(), NetError>, Failure> {
    let change = Change::ClientFirewall(firewall.clone(), means);
    match local.apply(change).await {
        Ok(()) => Ok(Ok(())),
        Err(error @ (NetError::Nft(_) | NetError::Iptables(_) | NetError::Borrowed)) => {
            tracing::debug!(%error, ?means, "no firewall by this");
            Ok(Err(error))
        }
        Err(error) => Err(Failure::local(error)),
    }
}

/// Makes the kernel forward no IPv4 packet of the device, whatever it does for other devices.
/// IPv6 has no such switch, so there the firewall rules stand alone.
async fn forward_nothing(local: &mut HostState) {
    let Ok(name) = local.name().parse::<InterfaceName>() else {
        return;
    };
    let change = SysctlKey::ipv4(&name, "forwarding").map(|key| Change::Sysctl {
        key,
        value: "0".to_owned(),
    });
    let done = match change {
        Ok(change) => local.apply(change).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = done {
        // A container's /proc/sys cannot be written.
        tracing::debug!(%error, "the rules alone keep this host from forwarding");
    }
}
