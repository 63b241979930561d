//! Bridges: a port's settings and the forwarding database (linux/if_bridge.h, linux/if_link.h).

use std::fmt;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{InfoBridgePort, InfoPortData, LinkAttribute, LinkInfo};
use rtnetlink::packet_route::neighbour::{
    NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{LinkBridgePort, LinkUnspec};
use serde::{Deserialize, Serialize};

use super::{Netlink, Request};
use crate::host::error::{NetError, Operation, Refusal};
use crate::host::plan::facts::{InterfaceIndex, LinkFacts};
use crate::packet::guard::link::MacAddress;

/// A bridge port's settings; a setting is `None` if the kernel does not know it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PortSettings {
    /// IFLA_BRPORT_LEARNING: the bridge learns the stations behind the port from its frames.
    pub learning: Option<bool>,
    /// IFLA_BRPORT_LOCKED (Linux 5.18): the bridge drops frames of stations that it does not know
    /// at this port.
    pub locked: Option<bool>,
    /// IFLA_BRPORT_ISOLATED (Linux 4.18): the port reaches no other isolated port.
    pub isolated: Option<bool>,
}

impl PortSettings {
    /// The settings of a port whose stations the server adds; the bridge does not learn them.
    pub fn guarded(isolated: bool) -> Self {
        PortSettings {
            learning: Some(false),
            locked: Some(true),
            isolated: Some(isolated),
        }
    }

    /// Keeps the settings that the kernel also reports in `told`.
    pub fn as_known_to(self, told: &PortSettings) -> Self {
        PortSettings {
            learning: self.learning.filter(|_| told.learning.is_some()),
            locked: self.locked.filter(|_| told.locked.is_some()),
            isolated: self.isolated.filter(|_| told.isolated.is_some()),
        }
    }
}

impl fmt::Display for PortSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = [
            ("learning", self.learning),
            ("locked", self.locked),
            ("isolated", self.isolated),
        ];
        let known = settings
            .iter()
            .filter_map(|(name, on)| on.map(|on| (name, on)));
        for (at, (name, on)) in known.enumerate() {
            let space = if at > 0 { " " } else { "" };
            let on = if on { "on" } else { "off" };
            write!(f, "{space}{name} {on}")?;
        }
        Ok(())
    }
}

/// An entry of a bridge's forwarding database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StationFacts {
    /// The station's MAC address.
    pub station: MacAddress,
    /// The port of the station; the bridge itself if the address is its own.
    pub port: InterfaceIndex,
    /// Whether the address is the port's or the bridge's own, not that of a station behind the
    /// port.
    pub own: bool,
}

impl Netlink {
    /// The settings of this port; none if the link is not a bridge port.
    pub async fn bridge_port(&self, link: &LinkFacts) -> Result<Option<PortSettings>, NetError> {
        let request = Request::new(Operation::Read, format!("the bridge port {}", link.name));
        let get = self.handle.link().get().match_index(link.index.0);
        let messages = request.collect(get.execute()).await?;
        let attributes = messages.into_iter().flat_map(|message| message.attributes);
        let mut settings = attributes.filter_map(|attribute| match attribute {
            LinkAttribute::LinkInfo(info) => info.iter().find_map(port_settings),
            _ => None,
        });
        Ok(settings.next())
    }

    /// Changes the settings of this port.
    pub async fn set_bridge_port(
        &self,
        link: &LinkFacts,
        settings: &PortSettings,
    ) -> Result<(), NetError> {
        let request = Request::new(Operation::SetBridgePort, &link.name);
        let mut message = LinkBridgePort::new(link.index.0);
        if let Some(learning) = settings.learning {
            message = message.learning(learning);
        }
        if let Some(locked) = settings.locked {
            message = message.locked(locked);
        }
        if let Some(isolated) = settings.isolated {
            message = message.isolated(isolated);
        }
        let change = self.handle.link().set_port(message.build());
        change
            .execute()
            .await
            .map_err(|error| request.failed(error))
    }

    /// Gives a link that will become a port a MAC address above those of other ports: a bridge
    /// without an address of its own takes the lowest of its ports, and would change it as the port
    /// comes and goes.
    pub async fn raise_station(&self, link: &LinkFacts) -> Result<(), NetError> {
        let request = Request::new(Operation::SetStation, &link.name);
        let get = self.handle.link().get().match_index(link.index.0);
        let messages = request.collect(get.execute()).await?;
        let attributes = messages.into_iter().flat_map(|message| message.attributes);
        let mut addresses = attributes.filter_map(|attribute| match attribute {
            LinkAttribute::Address(address) => Some(address),
            _ => None,
        });
        let Some(mut address) = addresses.next() else {
            return Ok(());
        };
        if let Some(highest) = address.first_chunk_mut() {
            // A locally administered unicast address. The second byte is set too, since one in 64
            // of the kernel's random addresses begins with the same first byte.
            *highest = [0xfe, 0xff];
        }
        let message = LinkUnspec::new_with_index(link.index.0)
            .append_extra_attribute(LinkAttribute::Address(address));
        let change = self.handle.link().change(message.build());
        change
            .execute()
            .await
            .map_err(|error| request.failed(error))
    }

    /// All stations that this bridge knows, in all of its VLANs.
    pub async fn stations(&self, bridge: InterfaceIndex) -> Result<Vec<StationFacts>, NetError> {
        let all = self.dump_stations(None, Some(bridge)).await?;
        Ok(all)
    }

    /// The stations that the bridge knows at this port.
    pub async fn stations_at(&self, port: &LinkFacts) -> Result<Vec<StationFacts>, NetError> {
        let mut found = self.dump_stations(Some(port.index), None).await?;
        found.retain(|found| found.port == port.index);
        Ok(found)
    }

    async fn dump_stations(
        &self,
        port: Option<InterfaceIndex>,
        bridge: Option<InterfaceIndex>,
    ) -> Result<Vec<StationFacts>, NetError> {
        let request = Request::new(Operation::Read, "the stations that a bridge knows");
        let mut dump = self.handle.neighbours().get();
        let message = dump.message_mut();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port.map_or(0, |port| port.0);
        let controller = bridge.map(|bridge| NeighbourAttribute::Controller(bridge.0));
        message.attributes.extend(controller);
        let messages = request.collect(dump.execute()).await?;
        let of_bridge = |message: &&NeighbourMessage| match bridge {
            // For kernels that do not filter; entries of the bridge itself have no master.
            Some(bridge) => {
                message.header.ifindex == bridge.0
                    || message
                        .attributes
                        .contains(&NeighbourAttribute::Controller(bridge.0))
            }
            None => true,
        };
        let messages = messages.iter().filter(of_bridge);
        Ok(messages.filter_map(StationFacts::from_message).collect())
    }

    /// Adds a station at this port. The entry does not age; if the station sends at another port,
    /// the bridge moves the entry there, as a learnt one.
    pub async fn add_station(&self, port: &LinkFacts, station: MacAddress) -> Result<(), NetError> {
        let request = Request::new(Operation::AddStation, format!("{station} at {}", port.name));
        let add = self
            .handle
            .neighbours()
            .add_bridge(port.index.0, &station.0)
            .state(NeighbourState::Reachable)
            .flags(NeighbourFlags::Controller | NeighbourFlags::ExtLearned)
            .replace();
        add.execute().await.map_err(|error| request.failed(error))
    }

    /// Removes a station at this port; the entry stays if the station has moved to another port.
    pub async fn remove_station(
        &self,
        port: &LinkFacts,
        station: MacAddress,
    ) -> Result<(), NetError> {
        let request = Request::new(
            Operation::RemoveStation,
            format!("{station} at {}", port.name),
        );
        let mut message = NeighbourMessage::default();
        message.header.family = AddressFamily::Bridge;
        message.header.ifindex = port.index.0;
        message.header.flags = NeighbourFlags::Controller;
        let address = NeighbourAttribute::LinkLayerAddress(station.0.to_vec());
        message.attributes.push(address);
        let removed = self.handle.neighbours().del(message).execute().await;
        match removed.map_err(|error| request.failed(error)) {
            Err(error) if error.refusal() == Some(Refusal::Absent) => Ok(()),
            other => other,
        }
    }
}

fn port_settings(info: &LinkInfo) -> Option<PortSettings> {
    let LinkInfo::PortData(InfoPortData::BridgePort(told)) = info else {
        return None;
    };
    let mut settings = PortSettings::default();
    for setting in told {
        match setting {
            InfoBridgePort::Learning(on) => settings.learning = Some(*on),
            InfoBridgePort::Locked(on) => settings.locked = Some(*on),
            InfoBridgePort::Isolated(on) => settings.isolated = Some(*on),
            _ => {}
        }
    }
    Some(settings)
}

impl StationFacts {
    fn from_message(message: &NeighbourMessage) -> Option<Self> {
        // Entries of a device's own filter ("self"), mostly multicast, belong to no port.
        if message.header.flags.contains(NeighbourFlags::Own)
            && !message.header.flags.contains(NeighbourFlags::Controller)
        {
            return None;
        }
        Some(StationFacts {
            station: station(message)?,
            port: InterfaceIndex(message.header.ifindex),
            own: message.header.state == NeighbourState::Permanent,
        })
    }
}

/// The MAC address of a neighbour.
pub(super) fn station(message: &NeighbourMessage) -> Option<MacAddress> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(address) => {
                address.as_slice().try_into().ok().map(MacAddress)
            }
            _ => None,
        })
}
