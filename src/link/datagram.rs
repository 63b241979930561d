//! Joins a device and a tunnel channel: implements the pump's traits for channels, and
//! runs both directions until one ends.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::device::LinkDevice;
use crate::packet::guard::GuardRules;
use crate::pump::{
    self, Counters, Deframer, EgressFilter, End, Filtered, FrameSink, FrameSource, Framer, Framing,
    Guard, Limited, Pings, RateLimit, SendFailure,
};
use crate::ssh::channel::side::{ClientSide, Side};
use crate::ssh::channel::tunnel::{SendError, TunnelReceiver, TunnelSender};
use crate::ssh::server::stream::{SubsystemInput, SubsystemOutput};

impl<S: Side> FrameSink for TunnelSender<S> {
    async fn send_all(&self, frames: &mut Vec<Bytes>) -> Result<(), SendFailure> {
        let sent = TunnelSender::send_all(self, frames).await;
        sent.map_err(|error| match error {
            SendError::TooLarge => {
                // It is the first frame left.
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

/// The counters of a link, by direction.
#[derive(Debug, Default)]
pub struct LinkCounters {
    /// From this host's device to the peer.
    pub outbound: Counters,
    /// From the peer to this host's device.
    pub inbound: Counters,
}

/// The framing on a tunnel channel to a peer that is sshvpn, or to other software.
pub fn framing(is_sshvpn: bool) -> Framing {
    match is_sshvpn {
        true => Framing::DatagramsWithOffload,
        false => Framing::Datagrams,
    }
}

/// The restrictions on a peer; none by default.
#[derive(Debug, Default)]
pub struct Restrictions {
    /// The addresses that it may send from and to; all if `None`.
    pub guard: Option<Guard>,
    /// The stations whose frames it does not get.
    pub egress_filter: EgressFilter,
    /// The rate limit for what it sends.
    pub upload: RateLimit,
    /// The rate limit for what it is sent.
    pub download: RateLimit,
}

impl Restrictions {
    /// Restricts only the addresses that the peer may send from and to.
    pub fn of_addresses(rules: GuardRules) -> Self {
        Restrictions {
            guard: Some(Guard::fixed(rules)),
            ..Restrictions::default()
        }
    }
}

/// A running link over a channel whose messages are frames; `W` sends them. Dropping it
/// stops it and closes the device.
pub struct Link<W = TunnelSender<ClientSide>> {
    directions: JoinSet<End>,
    counters: Arc<LinkCounters>,
    sender: Arc<Limited<W>>,
}

impl<W: FrameSink + Send + 'static> Link<W> {
    /// Starts both directions with this framing, applies `restrictions` to the peer, and
    /// counts in `counters`.
    pub fn start<R>(
        device: impl LinkDevice,
        framing: Framing,
        sender: W,
        receiver: R,
        restrictions: Restrictions,
        counters: Arc<LinkCounters>,
    ) -> Self
    where
        R: FrameSource + Send + 'static,
    {
        let mode = device.mode();
        let device = Arc::new(device);
        let sender = Arc::new(Limited::new(sender, restrictions.download));
        let mut receiver = Limited::new(receiver, restrictions.upload);
        let (guard, egress_filter) = (restrictions.guard, restrictions.egress_filter);
        let mut directions = JoinSet::new();
        directions.spawn({
            let (device, sender) = (Arc::clone(&device), Arc::clone(&sender));
            let counters = Arc::clone(&counters);
            async move {
                let (sender, counters) = (&*sender, &counters.outbound);
                let device = Filtered::new(egress_filter, &*device, counters);
                let (framer, pings) = (Framer::new(mode, framing), Pings::OfChannel);
                // Such a channel carries only packets.
                let (_, nothing) = mpsc::channel(1);
                pump::outbound(mode, framer, &device, sender, nothing, pings, counters).await
            }
        });
        directions.spawn({
            let counters = Arc::clone(&counters);
            async move {
                let (device, counters) = (&*device, &counters.inbound);
                let guarded = Filtered::new(guard, Deframer::new(mode, framing), counters);
                let (nowhere, _) = mpsc::channel(1);
                pump::inbound(mode, guarded, &mut receiver, device, &nowhere, counters).await
            }
        });
        Link {
            directions,
            counters,
            sender,
        }
    }

    /// Waits until a direction has ended; yields the reason.
    pub async fn ended(&mut self) -> End {
        match self.directions.join_next().await {
            Some(Ok(end)) => end,
            Some(Err(failure)) => End::Device(io::Error::other(failure)),
            None => End::Channel,
        }
    }

    /// Stops both directions and closes the channel and the device; yields the counters.
    pub async fn stop(mut self) -> Arc<LinkCounters> {
        self.directions.shutdown().await;
        self.sender.close().await;
        self.counters
    }
}
