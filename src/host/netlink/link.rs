//! Reads and changes links: up or down, MTU, transmit queue length, IPv6 address generation, bridge
//! and group.

use nix::unistd::Uid;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::{
    AfSpecInet6, AfSpecUnspec, LinkAttribute, LinkExtentMask, LinkMessage,
};
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::{Netlink, Request, odd_name, parse};
use crate::host::error::{NetError, Operation, Refusal};
use crate::host::plan::facts::{AddressGeneration, InterfaceIndex, LinkFacts};

impl Netlink {
    /// Every link of this network namespace.
    pub async fn links(&self) -> Result<Vec<LinkFacts>, NetError> {
        let request = Request::new(Operation::Read, "the links of this host");
        let without_counters = vec![LinkExtentMask::SkipStats];
        let dump = self
            .handle
            .link()
            .get()
            .set_filter_mask(AddressFamily::Unspec, without_counters);
        let messages = request.collect(dump.execute()).await?;
        let mut links: Vec<LinkFacts> = messages.iter().map(LinkFacts::from_message).collect();
        links.extend(odd_name::links());
        Ok(links)
    }

    /// The link of that name.
    pub async fn link_by_name(&self, name: &str) -> Result<LinkFacts, NetError> {
        let request = Request::new(Operation::Read, format!("the link {name}"));
        let get = self.handle.link().get().match_name(name.to_owned());
        match request.collect(get.execute()).await {
            Ok(messages) => messages
                .first()
                .map(LinkFacts::from_message)
                .ok_or_else(|| NetError::NoInterface(name.to_owned())),
            Err(error) if error.refusal() == Some(Refusal::NoDevice) => {
                Err(NetError::NoInterface(name.to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// The link with that number, if it still exists.
    pub async fn link_by_index(
        &self,
        index: InterfaceIndex,
    ) -> Result<Option<LinkFacts>, NetError> {
        if let Some(odd) = odd_name::link(index) {
            return Ok(Some(odd));
        }
        let request = Request::new(Operation::Read, format!("the link number {}", index.0));
        let get = self.handle.link().get().match_index(index.0);
        match request.collect(get.execute()).await {
            Ok(messages) => Ok(messages.first().map(LinkFacts::from_message)),
            Err(error) if error.refusal() == Some(Refusal::NoDevice) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The owner of a tun or tap device (TUNSETOWNER), if it has one.
    pub async fn owner_of_tun(&self, link: &LinkFacts) -> Result<Option<Uid>, NetError> {
        let request = Request::new(Operation::Read, format!("the owner of {}", link.name));
        let get = self.handle.link().get().match_index(link.index.0);
        let messages = request.collect(get.execute()).await?;
        Ok(messages.first().and_then(parse::owner_of_tun))
    }

    /// Brings a link up or down.
    pub async fn set_up(&self, link: &LinkFacts, up: bool) -> Result<(), NetError> {
        let operation = if up {
            Operation::BringUp
        } else {
            Operation::BringDown
        };
        let message = LinkUnspec::new_with_index(link.index.0);
        let message = if up { message.up() } else { message.down() };
        self.change(operation, link, message).await
    }

    /// Sets the MTU, in bytes.
    pub async fn set_mtu(&self, link: &LinkFacts, mtu: u32) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(link.index.0)
            .append_extra_attribute(LinkAttribute::Mtu(mtu));
        self.change(Operation::SetMtu, link, message).await
    }

    /// Sets the length of the transmit queue, in packets.
    pub async fn set_tx_queue_length(
        &self,
        link: &LinkFacts,
        packets: u32,
    ) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(link.index.0)
            .append_extra_attribute(LinkAttribute::TxQueueLen(packets));
        self.change(Operation::SetTxQueueLength, link, message)
            .await
    }

    /// Limits the size of a super-packet, in bytes.
    pub async fn set_gso_max_size(&self, link: &LinkFacts, bytes: u32) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(link.index.0)
            .append_extra_attribute(LinkAttribute::GsoMaxSize(bytes));
        self.change(Operation::SetGsoMaxSize, link, message).await
    }

    /// Sets how the kernel generates the link's IPv6 addresses.
    pub async fn set_address_generation(
        &self,
        link: &LinkFacts,
        mode: AddressGeneration,
    ) -> Result<(), NetError> {
        let inet6 = AfSpecUnspec::Inet6(vec![AfSpecInet6::AddrGenMode(mode.0.into())]);
        let message = LinkUnspec::new_with_index(link.index.0)
            .append_extra_attribute(LinkAttribute::AfSpecUnspec(vec![inet6]));
        self.change(Operation::SetAddressGeneration, link, message)
            .await
    }

    /// Makes the link a port of another link (a bridge, for instance), or of none.
    pub async fn set_master(
        &self,
        link: &LinkFacts,
        master: Option<InterfaceIndex>,
    ) -> Result<(), NetError> {
        let index = master.map_or(0, |master| master.0);
        let message = LinkUnspec::new_with_index(link.index.0)
            .append_extra_attribute(LinkAttribute::Controller(index));
        self.change(Operation::SetMaster, link, message).await
    }

    /// Sets the link's group.
    pub async fn set_group(&self, link: &LinkFacts, group: u32) -> Result<(), NetError> {
        let message = LinkUnspec::new_with_index(link.index.0)
            .append_extra_attribute(LinkAttribute::Group(group));
        self.change(Operation::SetGroup, link, message).await
    }

    async fn change(
        &self,
        operation: Operation,
        link: &LinkFacts,
        message: LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), NetError> {
        let request =
            Request::new(operation, &link.name).ipv6(operation == Operation::SetAddressGeneration);
        let message: LinkMessage = message.build();
        let change = self.handle.link().change(message);
        change
            .execute()
            .await
            .map_err(|error| request.failed(error))
    }
}
