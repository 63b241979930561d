//! IPv6 neighbours: reads and probes entries, and proxies for neighbours behind another link
//! (`struct ndmsg`, linux/neighbour.h).

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

/// An IPv6 neighbour entry of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NeighbourFacts {
    /// The address.
    pub address: Ipv6Addr,
    /// The station that has the address, or had it at its last answer.
    pub station: Option<MacAddress>,
    /// Whether the station has confirmed the address recently.
    pub reachable: bool,
    /// Whether the entry is permanent: set on this host, not learnt.
    pub fixed: bool,
    /// Whether the address did not resolve.
    pub failed: bool,
    /// NTF_ROUTER: whether the neighbour says that it is a router.
    pub router: bool,
}

impl Netlink {
    /// This host's entry for the address on this link, if any.
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

    /// Lets the kernel resolve this address; with `again`, confirm the station that it knows.
    /// [`neighbour`](Self::neighbour) shows the answer.
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

    /// Removes the entry of this address on this link.
    pub async fn remove_neighbour(
        &self,
        link: InterfaceIndex,
        address: Ipv6Addr,
    ) -> Result<(), NetError> {
        self.delete_neighbour(link, address, NeighbourFlags::empty())
            .await
    }

    /// Answers neighbour solicitations on this link for an address that is reached through this
    /// host (proxying, RFC 4389); needs the sysctl `proxy_ndp` of the link.
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

    /// Stops answering for the address.
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
