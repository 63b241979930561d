//! Joins a device and a tunnel channel: the pump's traits for both, and a link
//! that runs both directions until one ends.

use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::frame::waiting::Waiting;
use crate::packet::guard::GuardRules;
use crate::packet::offload::virtio::{Offload, VirtioHeader};
use crate::pump::{
    self, Counters, EgressFilter, End, FrameSink, FrameSource, Framing, Guard, Limited, PacketSink,
    PacketSource, Pings, RateLimit, SendFailure,
};
use crate::ssh::channel::side::{ClientSide, Side};
use crate::ssh::channel::tunnel::{SendError, TunnelReceiver, TunnelSender};
use crate::ssh::server::stream::{SubsystemInput, SubsystemOutput};
use crate::tun::Device;
use crate::types::Mode;

impl PacketSource for Device {
    async fn read(&self, packet: &mut Waiting) -> io::Result<()> {
        Device::read(self, packet.space()).await.map(drop)
    }

    fn try_read(&self, packet: &mut Waiting) -> io::Result<bool> {
        let read = Device::try_read(self, packet.space())?;
        Ok(read.is_some())
    }

    async fn readable(&self) -> io::Result<()> {
        Device::readable(self).await
    }

    fn decline_offload(&self) {
        if let Err(error) = Device::decline_offload(self) {
            tracing::debug!(%error, "the kernel goes on with super-packets");
        }
    }
}

impl PacketSink for Device {
    fn takes(&self) -> Offload {
        self.offload()
    }

    async fn write(&self, header: &VirtioHeader, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        Device::write(self, header, pieces).await
    }
}

impl<S: Side> FrameSink for TunnelSender<S> {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        let sent = TunnelSender::send_all(self, frames).await;
        sent.map_err(|error| match error {
            SendError::TooLarge => {
                // It is the first of those that are left.
                SendFailure::TooLarge(frames.remove(0).len())
            }
            SendError::Closed => SendFailure::Closed,
        })
    }

    async fn ping(&self) -> Option<oneshot::Receiver<()>> {
        TunnelSender::ping(self).await
    }

    async fn close(&self) {
        TunnelSender::close(self).await;
    }
}

impl FrameSource for TunnelReceiver {
    async fn receive(&mut self) -> Option<Bytes> {
        TunnelReceiver::receive(self).await
    }

    fn try_receive(&mut self) -> Option<Bytes> {
        TunnelReceiver::try_receive(self)
    }
}

impl FrameSink for SubsystemOutput {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        for frame in frames.drain(..) {
            let sent = SubsystemOutput::send(self, frame).await;
            sent.map_err(|_| SendFailure::Closed)?;
        }
        Ok(())
    }

    async fn close(&self) {
        SubsystemOutput::close(self, 0).await;
    }
}

impl FrameSource for SubsystemInput {
    async fn receive(&mut self) -> Option<Bytes> {
        SubsystemInput::receive(self).await
    }

    fn try_receive(&mut self) -> Option<Bytes> {
        SubsystemInput::try_receive(self)
    }
}

/// What went through a link, by direction.
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// From our device to the peer.
    pub outbound: Counters,
    /// From the peer to our device.
    pub inbound: Counters,
}

/// How packets travel on a tunnel channel to an end that is sshvpn, or to another.
pub fn framing(is_sshvpn: bool) -> Framing {
    match is_sshvpn {
        true => Framing::DatagramsWithOffload,
        false => Framing::Datagrams,
    }
}

/// What the peer is held to; nothing by default.
#[derive(Debug, Default)]
pub struct Restrictions {
    /// Where it may send from and to; anywhere if `None`.
    pub guard: Option<Guard>,
    /// Whom it does not hear.
    pub egress_filter: EgressFilter,
    /// How much it may send.
    pub upload: RateLimit,
    /// How much it may be sent.
    pub download: RateLimit,
}

impl Restrictions {
    /// Where the peer may send from and to, and no more.
    pub fn of_addresses(rules: GuardRules) -> Self {
        Restrictions {
            guard: Some(Guard::fixed(rules)),
            ..Restrictions::default()
        }
    }
}

/// A running link over a channel whose messages are frames, to which `W` sends.
/// Dropping it stops it and closes the device.
pub struct Link<W = TunnelSender<ClientSide>> {
    directions: JoinSet<End>,
    counters: Arc<LinkCounters>,
    sender: Arc<Limited<W>>,
}

impl<W: FrameSink + Send + 'static> Link<W> {
    /// Starts both directions, with frames as `framing` has them, the peer held
    /// to `restrictions`, and counted in `counters`.
    pub fn start<R>(
        device: Device,
        framing: Framing,
        sender: W,
        receiver: R,
        restrictions: Restrictions,
        counters: Arc<LinkCounters>,
    ) -> Self
    where
        R: FrameSource + Send + 'static,
    {
        let mode: Mode = device.mode();
        let device = Arc::new(device);
        let sender = Arc::new(Limited::new(sender, restrictions.download));
        let mut receiver = Limited::new(receiver, restrictions.upload);
        let (guard, egress_filter) = (restrictions.guard, restrictions.egress_filter);
        let mut directions = JoinSet::new();
        directions.spawn({
            let (device, sender) = (Arc::clone(&device), Arc::clone(&sender));
            let counters = Arc::clone(&counters);
            async move {
                // Nothing but packets goes through such a channel.
                let (_, nothing) = mpsc::channel(1);
                let (sender, counters) = (&*sender, &counters.outbound);
                let device = egress_filter.without(&*device, counters);
                let pings = Pings::OfChannel;
                pump::outbound(mode, framing, &device, sender, nothing, pings, counters).await
            }
        });
        directions.spawn({
            let counters = Arc::clone(&counters);
            async move {
                let (device, counters) = (&*device, &counters.inbound);
                pump::inbound_datagrams(mode, framing, &mut receiver, device, guard, counters).await
            }
        });
        Link {
            directions,
            counters,
            sender,
        }
    }

    /// Waits until a direction has ended; yields why.
    pub async fn ended(&mut self) -> End {
        match self.directions.join_next().await {
            Some(Ok(end)) => end,
            Some(Err(failure)) => End::Device(io::Error::other(failure)),
            None => End::Channel,
        }
    }

    /// Stops both directions and closes the channel and the device; yields
    /// what went through.
    pub async fn stop(mut self) -> Arc<LinkCounters> {
        self.directions.shutdown().await;
        self.sender.close().await;
        self.counters
    }
}
