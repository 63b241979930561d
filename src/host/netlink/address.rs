//! Reads, adds and removes addresses.

use std::fmt;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use serde::{Deserialize, Serialize};

use super::{Netlink, Request};
use crate::host::error::{NetError, Operation};
use crate::host::plan::facts::{AddressFacts, InterfaceIndex, LinkFacts};

/// An address of an interface, in one of two forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum InterfaceAddress {
    /// A local and a peer address, for a tun device.
    PointToPoint {
        /// The local address.
        local: IpAddr,
        /// The peer's address, of the same family.
        peer: IpAddr,
    },
    /// A local address in the link's network, for a tap device.
    Network(IpNetwork),
}

impl InterfaceAddress {
    /// The local address.
    pub fn local(&self) -> IpAddr {
        match self {
            InterfaceAddress::PointToPoint { local, .. } => *local,
            InterfaceAddress::Network(network) => network.ip(),
        }
    }

    /// The peer's address, if one is given.
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            InterfaceAddress::PointToPoint { peer, .. } => Some(*peer),
            InterfaceAddress::Network(_) => None,
        }
    }

    /// The prefix length: the length of a whole address if there is a peer.
    pub fn prefix(&self) -> u8 {
        match self {
            InterfaceAddress::PointToPoint { local, .. } => IpNetwork::from(*local).prefix(),
            InterfaceAddress::Network(network) => network.prefix(),
        }
    }
}

impl fmt::Display for InterfaceAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InterfaceAddress::PointToPoint { local, peer } => write!(f, "{local} peer {peer}"),
            InterfaceAddress::Network(network) => network.fmt(f),
        }
    }
}

impl Netlink {
    /// The addresses of one interface, or of all interfaces.
    pub async fn addresses(
        &self,
        of: Option<InterfaceIndex>,
    ) -> Result<Vec<AddressFacts>, NetError> {
        let request = Request::new(Operation::Read, "the addresses of this host");
        let mut dump = self.handle.address().get();
        if let Some(index) = of {
            dump.message_mut().header.index = index.0;
        }
        let messages = request.collect(dump.execute()).await?;
        Ok(messages
            .iter()
            .filter_map(AddressFacts::from_message)
            .filter(|address| of.is_none_or(|index| address.index == index))
            .collect())
    }

    /// Adds an address; the kernel refuses one that exists already. An IPv6 address is usable at
    /// once (IFA_F_NODAD).
    pub async fn add_address(
        &self,
        link: &LinkFacts,
        address: &InterfaceAddress,
    ) -> Result<(), NetError> {
        let facts = AddressFacts {
            index: link.index,
            address: address.local(),
            prefix: address.prefix(),
            peer: address.peer(),
            no_dad: true,
        };
        self.put_address(link, &facts).await
    }

    /// Adds an address with the attributes that were read before.
    pub async fn put_address(
        &self,
        link: &LinkFacts,
        address: &AddressFacts,
    ) -> Result<(), NetError> {
        let request = Request::new(Operation::AddAddress, described(link, address))
            .ipv6(address.address.is_ipv6());
        let mut add = self
            .handle
            .address()
            .add(link.index.0, address.address, address.prefix);
        *add.message_mut() = message(link.index, address);
        add.execute().await.map_err(|error| request.failed(error))
    }

    /// Removes exactly this address.
    pub async fn remove_address(
        &self,
        link: &LinkFacts,
        address: &AddressFacts,
    ) -> Result<(), NetError> {
        let request = Request::new(Operation::RemoveAddress, described(link, address))
            .ipv6(address.address.is_ipv6());
        let remove = self.handle.address().del(message(link.index, address));
        remove
            .execute()
            .await
            .map_err(|error| request.failed(error))
    }
}

fn described(link: &LinkFacts, address: &AddressFacts) -> String {
    match address.peer {
        Some(peer) => format!("{} peer {peer} on {}", address.address, link.name),
        None => format!("{}/{} on {}", address.address, address.prefix, link.name),
    }
}

/// IFA_LOCAL is our address, IFA_ADDRESS the peer's; without a peer both are ours
/// (linux/if_addr.h).
fn message(index: InterfaceIndex, address: &AddressFacts) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = match address.address {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    message.header.index = index.0;
    message.header.prefix_len = address.prefix;
    message.attributes = vec![
        AddressAttribute::Local(address.address),
        AddressAttribute::Address(address.peer.unwrap_or(address.address)),
    ];
    if let (IpAddr::V4(own), None) = (address.address, address.peer)
        && address.prefix < 31
    {
        let broadcast = u32::from(own) | (u32::MAX >> address.prefix);
        message
            .attributes
            .push(AddressAttribute::Broadcast(broadcast.into()));
    }
    if address.address.is_ipv6() && address.no_dad {
        message
            .attributes
            .push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    message
}
