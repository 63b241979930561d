//! Drops Ethernet frames of stations that the peer must not hear. It checks the source
//! address as a frame leaves the device, so it covers broadcasts and frames that a bridge
//! floods.

use std::fmt;
use std::io;

use tokio::task::yield_now;

use crate::frame::waiting::Waiting;
use crate::packet::guard::link::MacAddress;
use crate::pump::{Dropped, Filtered, PacketSource};

/// Frames dropped in a row before other tasks run.
const AT_ONCE: usize = 64;

/// Decides which stations one peer hears; asked for each frame, so the answer may change
/// at any time.
pub trait Hears: fmt::Debug + Send + Sync {
    /// Whether the peer gets frames of this station.
    fn hears(&self, station: MacAddress) -> bool;
}

/// Drops frames of stations that one peer does not hear; none by default.
#[derive(Debug, Default)]
pub struct EgressFilter(Option<Box<dyn Hears>>);

impl EgressFilter {
    /// A filter that drops all stations but those that the peer hears.
    pub fn new(peer: Box<dyn Hears>) -> Self {
        EgressFilter(Some(peer))
    }

    /// Whether the frame is from a station that the peer does not hear.
    fn sent(&self, frame: &[u8]) -> bool {
        /// Behind the destination (IEEE 802.3, section 3.1.1).
        const SOURCE: std::ops::Range<usize> = 6..12;
        let Some(peer) = &self.0 else {
            return false;
        };
        let source = frame.get(SOURCE).and_then(|source| source.try_into().ok());
        source.is_some_and(|source| !peer.hears(MacAddress(source)))
    }
}

impl<S: PacketSource + Sync> PacketSource for Filtered<'_, EgressFilter, &S> {
    async fn read(&self, packet: &mut Waiting) -> io::Result<()> {
        loop {
            for _ in 0..AT_ONCE {
                self.source.read(packet).await?;
                if !self.drops(packet) {
                    return Ok(());
                }
            }
            yield_now().await;
        }
    }

    fn try_read(&self, packet: &mut Waiting) -> io::Result<bool> {
        for _ in 0..AT_ONCE {
            let read = self.source.try_read(packet)?;
            if !read || !self.drops(packet) {
                return Ok(read);
            }
        }
        Ok(false)
    }

    async fn readable(&self) -> io::Result<()> {
        self.source.readable().await
    }

    fn decline_offload(&self) {
        self.source.decline_offload();
    }
}

impl<S> Filtered<'_, EgressFilter, S> {
    /// Whether the frame is dropped, which is counted.
    fn drops(&self, packet: &Waiting) -> bool {
        let strange = self.filter.sent(packet.packet());
        if strange {
            self.counters.dropped(Dropped::Source);
        }
        strange
    }
}
