//! Neighbours by IPv6: who has an address on a link, asking for it, and answering
//! for somebody behind another link (`struct ndmsg`, linux/neighbour.h).

use std::net::{IpAddr, Ipv6Addr};

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};

use super::bridge::station;
use super::{Netlink, Request};
use crate::host::error::{NetError, Operation, Refusal};
use crate::host::plan::facts::InterfaceIndex;
use crate::packet::guard::link::MacAddress;

/// Who has an address on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourFacts {
    /// The address.
    pub address: Ipv6Addr,
    /// The station that has it, or had it when it was last heard of.
    pub station: Option<MacAddress>,
    /// Whether it has said so just now.
    pub reachable: bool,
    /// Whether somebody has set it on this host, for good.
    pub fixed: bool,
    /// Whether it was asked in vain.
    pub failed: bool,
    /// NTF_ROUTER: whether it said that it is a router.
    pub router: bool,
}

impl Netlink {
    /// Who has this address on this link, as far as this host knows.
    pub async fn neighbour(
        &self,
        link: InterfaceIndex,
        address: Ipv6Addr,
    ) -> Result<Option<NeighbourFacts>, NetError> {
        let request = Request::new(Operation::Read, "the neighbours of this host").ipv6(true);
        let mut dump = self.handle.neighbours().get();
        let message = dump.message_mut();
        message.header.family = AddressFamily::Inet6;
        let only = NeighbourAttribute::IfIndex(link.0);
        message.attributes.push(only);
        let messages = request.collect(dump.execute()).await?;
        let of_link = messages
            .iter()
            .filter(|message| message.header.ifindex == link.0);
        let mut facts = of_link.filter_map(NeighbourFacts::from_message);
        Ok(facts.find(|facts| facts.address == address))
    }

    /// Lets the kernel ask who has this address: for anyone, or (`again`) the one
    /// that it knows, whether it still has it. The answer shows in
    /// [`neighbour`](Self::neighbour).
    pub async fn ask_for_neighbour(
        &self,
        link: InterfaceIndex,
        address: Ipv6Addr,
        again: bool,
    ) -> Result<(), NetError> {
        let request = Request::new(Operation::AddNeighbour, address.to_string()).ipv6(true);
        let add = self.handle.neighbours().add(link.0, IpAddr::V6(address));
        let add = match again {
            true => add.state(NeighbourState::Probe),
            false => add.state(NeighbourState::None).flags(NeighbourFlags::Use),
        };
        let asked = add.replace().execute().await;
        asked.map_err(|error| request.failed(error))
    }

    /// Forgets who has this address on this link.
    pub async fn remove_neighbour(
        &self,
        link: InterfaceIndex,
        address: Ipv6Addr,
    ) -> Result<(), NetError> {
        self.delete_neighbour(link, address, NeighbourFlags::empty())
            .await
    }

    /// Answers on this link for an address that is reached through this host
    /// (RFC 4389 calls it proxying); needs the sysctl `proxy_ndp` of the link.
    pub async fn answer_for(
        &self,
        link: InterfaceIndex,
        address: Ipv6Addr,
    ) -> Result<(), NetError> {
        let request = Request::new(Operation::AddNeighbour, address.to_string()).ipv6(true);
        let add = self.handle.neighbours().add(link.0, IpAddr::V6(address));
        let add = add.flags(NeighbourFlags::Proxy).replace();
        add.execute().await.map_err(|error| request.failed(error))
    }

    /// Answers for it no more.
    pub async fn answer_no_more(
        &self,
        link: InterfaceIndex,
        address: Ipv6Addr,
    ) -> Result<(), NetError> {
        self.delete_neighbour(link, address, NeighbourFlags::Proxy)
            .await
    }

    async fn delete_neighbour(
        &self,
        link: InterfaceIndex,
        address: Ipv6Addr,
        flags: NeighbourFlags,
    ) -> Result<(), NetError> {
        let request = Request::new(Operation::RemoveNeighbour, address.to_string()).ipv6(true);
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Inet6;
        message.header.ifindex = link.0;
        message.header.flags = flags;
        let destination = NeighbourAttribute::Destination(NeighbourAddress::Inet6(address));
        message.attributes.push(destination);
        let removed = self.handle.neighbours().del(message).execute().await;
        match removed.map_err(|error| request.failed(error)) {
            Err(error) if matches!(error.refusal(), Some(Refusal::Absent | Refusal::NoDevice)) => {
                Ok(())
            }
            other => other,
        }
    }

    /// The link-layer addresses of this host.
    pub async fn own_stations(&self) -> Result<Vec<MacAddress>, NetError> {
        let request = Request::new(Operation::Read, "the links of this host");
        let messages = request.collect(self.handle.link().get().execute()).await?;
        let attributes = messages.into_iter().flat_map(|message| message.attributes);
        let own = attributes.filter_map(|attribute| match attribute {
            LinkAttribute::Address(address) => address.as_slice().try_into().ok().map(MacAddress),
            _ => None,
        });
        Ok(own.collect())
    }
}

impl NeighbourFacts {
    fn from_message(message: &NeighbourMessage) -> Option<Self> {
        let address = message
            .attributes
            .iter()
            .find_map(|attribute| match attribute {
                NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => Some(*address),
                _ => None,
            })?;
        let state = message.header.state;
        Some(NeighbourFacts {
            address,
            station: station(message),
            reachable: state == NeighbourState::Reachable,
            fixed: matches!(state, NeighbourState::Permanent | NeighbourState::Noarp),
            failed: matches!(state, NeighbourState::Failed | NeighbourState::None),
            router: message.header.flags.contains(NeighbourFlags::Router),
        })
    }
}
