//! The device of a link: the pump's traits for a tun or tap device of this host.

use std::io::{self, IoSlice};

use crate::frame::waiting::Waiting;
use crate::packet::offload::virtio::{Offload, VirtioHeader};
use crate::pump::{PacketSink, PacketSource};
use crate::tun::Device;
use crate::types::Mode;

/// A device that both directions of a link share.
pub trait LinkDevice: PacketSource + PacketSink + Send + Sync + 'static {
    /// Whether it carries packets or Ethernet frames.
    fn mode(&self) -> Mode;
}

impl LinkDevice for Device {
    fn mode(&self) -> Mode {
        Device::mode(self)
    }
}

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
