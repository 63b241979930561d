//! Two whole ends: our client and our server over loopback, each with a guard and a device
//! in memory. Needs no privileges.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ipnetwork::IpNetwork;
use nix::errno::Errno;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::control::Conversation;
use super::datagram::{Link, LinkCounters, Restrictions};
use super::device::LinkDevice;
use super::process_stream::of_process;
use super::stream::{LinkEvent, StreamLink};
use crate::config::ssh::options::StrictHostKeyChecking;
use crate::frame::waiting::Waiting;
use crate::packet::IpVersion;
use crate::packet::guard::{GuardRules, Reach};
use crate::packet::offload::virtio::{Offload, VirtioHeader};
use crate::packet::test_packets::{self, Template, payload};
use crate::pump::{End, FrameSink, FrameSource, Framing, PacketSink, PacketSource, Snapshot};
use crate::ssh::client::attempts::Attempts;
use crate::ssh::client::connect::Connection;
use crate::ssh::server::requests::Request;
use crate::ssh::server::test_lab::{HANGS, Lab};
use crate::ssh::test_settings;
use crate::types::address_set::AddressSet;
use crate::types::{Mode, UnitRequest};

const MODE: Mode = Mode::PointToPoint;
/// The last bytes of the addresses of client and server, and of a third host.
const CLIENT: u8 = 1;
const SERVER: u8 = 2;
const STRANGER: u8 = 66;

/// A device that is two queues; its clones are the same device.
#[derive(Clone)]
struct MemoryDevice(Arc<Queues>);

struct Queues {
    takes: Offload,
    /// Packets behind their offload headers.
    unread: Mutex<VecDeque<Vec<u8>>>,
    written: Mutex<Vec<(VirtioHeader, Vec<u8>)>>,
    came: Notify,
    deleted: AtomicBool,
    /// Writes until it is full.
    room: Semaphore,
}

impl MemoryDevice {
    fn new(takes: Offload) -> Self {
        MemoryDevice(Arc::new(Queues {
            takes,
            unread: Mutex::default(),
            written: Mutex::default(),
            came: Notify::new(),
            deleted: AtomicBool::new(false),
            room: Semaphore::new(Semaphore::MAX_PERMITS / 2),
        }))
    }

    /// Sends a packet into the tunnel.
    fn send(&self, (header, packet): &(VirtioHeader, Vec<u8>)) {
        let read = [&header.to_bytes(), &packet[..]].concat();
        self.0.unread.lock().unwrap().push_back(read);
        self.0.came.notify_one();
    }

    fn delete(&self) {
        self.0.deleted.store(true, Ordering::Relaxed);
        self.0.came.notify_one();
    }

    fn has_unread(&self) -> bool {
        !self.0.unread.lock().unwrap().is_empty()
    }

    /// The ordinary packets that what was written stands for.
    fn packets(&self) -> Vec<Vec<u8>> {
        let written = self.0.written.lock().unwrap();
        let all = written.iter();
        let all = all.map(|(header, packet)| ordinary(header, packet));
        all.flatten().collect()
    }
}

/// The ordinary packets that a packet stands for.
fn ordinary(header: &VirtioHeader, packet: &[u8]) -> Vec<Vec<u8>> {
    if header.gso.is_some() {
        return test_packets::divide(MODE, header, packet);
    }
    let mut packet = packet.to_vec();
    crate::packet::offload::finish_checksum(MODE, header, &mut packet).unwrap();
    vec![packet]
}

impl PacketSource for MemoryDevice {
    async fn read(&self, packet: &mut Waiting) -> io::Result<()> {
        while !self.try_read(packet)? {
            self.0.came.notified().await;
        }
        Ok(())
    }

    fn try_read(&self, packet: &mut Waiting) -> io::Result<bool> {
        let next = self.0.unread.lock().unwrap().pop_front();
        match next {
            Some(read) => packet.space().extend_from_slice(&read),
            None if self.0.deleted.load(Ordering::Relaxed) => return Err(Errno::EBADFD.into()),
            None => return Ok(false),
        }
        Ok(true)
    }

    async fn readable(&self) -> io::Result<()> {
        while !self.has_unread() && !self.0.deleted.load(Ordering::Relaxed) {
            self.0.came.notified().await;
        }
        Ok(())
    }

    fn decline_offload(&self) {}
}

impl PacketSink for MemoryDevice {
    fn takes(&self) -> Offload {
        self.0.takes
    }

    async fn write(&self, header: &VirtioHeader, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        self.0.room.acquire().await.unwrap().forget();
        let packet = pieces.iter().flat_map(|piece| piece.iter().copied());
        let written = (*header, packet.collect());
        self.0.written.lock().unwrap().push(written);
        Ok(())
    }
}

impl LinkDevice for MemoryDevice {
    fn mode(&self) -> Mode {
        MODE
    }
}

/// How packets travel between the ends.
#[derive(Debug, Clone, Copy)]
enum Carrier {
    Channel(Framing),
    Stream,
}

const CARRIERS: [Carrier; 3] = [
    Carrier::Channel(Framing::Datagrams),
    Carrier::Channel(Framing::DatagramsWithOffload),
    Carrier::Stream,
];

/// A client or a server.
struct Side {
    device: MemoryDevice,
    counters: Arc<LinkCounters>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<Option<End>>,
}

impl Side {
    /// Why its link ended; `None` if it was stopped.
    async fn end(&mut self) -> Option<End> {
        let ended = timeout(HANGS, &mut self.ended).await;
        ended.expect("a link does not end").unwrap()
    }

    fn sent(&self) -> Snapshot {
        self.counters.outbound.snapshot()
    }

    fn received(&self) -> Snapshot {
        self.counters.inbound.snapshot()
    }
}

/// Packets of a peer at these addresses, who may reach everything.
fn from(host: u8) -> Restrictions {
    let everything: [IpNetwork; 2] = ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap());
    let sources = [
        format!("10.0.0.{host}"),
        format!("fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fdfd:fd{host:02x}"),
    ];
    let reach = Reach {
        here: &AddressSet::EMPTY,
        networks: &everything,
        clients: &AddressSet::EMPTY,
        peers: &AddressSet::EMPTY,
    };
    let sources = sources
        .iter()
        .map(|text| text.parse::<IpNetwork>().unwrap());
    Restrictions::of_addresses(GuardRules::new(sources.collect(), &reach, true))
}

fn side<W, R>(carrier: Carrier, takes: Offload, sender: W, receiver: R, peer: u8) -> Side
where
    W: FrameSink + Send + 'static,
    R: FrameSource + Send + 'static,
{
    let (device, counters) = (MemoryDevice::new(takes), Arc::<LinkCounters>::default());
    let (stop, stopped) = oneshot::channel();
    let ended = {
        let (device, counters) = (device.clone(), Arc::clone(&counters));
        tokio::spawn(async move {
            match carrier {
                Carrier::Channel(framing) => {
                    let held = from(peer);
                    let mut link = Link::start(device, framing, sender, receiver, held, counters);
                    let end = tokio::select! {
                        end = link.ended() => Some(end),
                        _ = stopped => None,
                    };
                    link.stop().await;
                    end
                }
                Carrier::Stream => {
                    let conversation = Conversation::new(receiver, sender);
                    let takes = Offload::ALL;
                    let mut link =
                        StreamLink::start(device, conversation, takes, from(peer), counters);
                    let ended = async {
                        loop {
                            if let LinkEvent::Ended(end) = link.next().await {
                                return end;
                            }
                        }
                    };
                    tokio::select! {
                        end = ended => Some(end),
                        _ = stopped => None,
                    }
                }
            }
        })
    };
    Side {
        device,
        counters,
        stop: Some(stop),
        ended,
    }
}

/// Two ends, and the connection between them.
struct Ends {
    client: Side,
    server: Side,
    connection: Connection,
    /// Ends the connection at the server.
    hang_up: oneshot::Sender<()>,
}

async fn ends(carrier: Carrier, takes: Offload) -> Ends {
    let lab = Lab::new().await;
    lab.known_key("key");
    let mut options = test_settings::options();
    options.host = "127.0.0.1".into();
    options.port = lab.address().port();
    options.identity_files = vec![lab.path("key")];
    options.user_known_hosts = vec![lab.path("known_hosts")];
    options.strict_host_key_checking = StrictHostKeyChecking::Yes;
    options.kex_algorithms = vec!["curve25519-sha256".into()];
    options.ciphers = vec!["aes256-gcm@openssh.com".into()];
    options.macs = vec!["hmac-sha2-256-etm@openssh.com".into()];
    let (args, invoker) = (Default::default(), test_settings::invoker());
    let opened = async {
        Connection::open(&options, &args, &invoker, Attempts::one())
            .await
            .unwrap()
    };
    let (mut login, connection) = tokio::join!(lab.login(), opened);
    let served = async {
        match login.requests.next().await.expect("no request") {
            Request::Tunnel { reply, .. } => {
                let (sender, receiver) = reply.accept().await;
                side(carrier, takes, sender, receiver, CLIENT)
            }
            Request::Subsystem { reply, .. } => {
                let (output, input) = reply.accept().await;
                side(carrier, takes, output, input, CLIENT)
            }
            _ => panic!("another request"),
        }
    };
    let asked = async {
        match carrier {
            Carrier::Channel(_) => {
                let opened = connection.open_tunnel(MODE, UnitRequest::Any).await;
                let (sender, receiver) = opened.unwrap();
                side(carrier, takes, sender, receiver, SERVER)
            }
            Carrier::Stream => {
                let process = connection.subsystem("sshvpn").await.unwrap();
                let (output, input) = of_process("server".into(), process);
                side(carrier, takes, input, output, SERVER)
            }
        }
    };
    let (server, client) = timeout(HANGS, async { tokio::join!(served, asked) })
        .await
        .expect("the channel hangs");
    let (hang_up, hung_up) = oneshot::channel();
    tokio::spawn(async move {
        let requests = async { while login.requests.next().await.is_some() {} };
        tokio::select! {
            () = requests => {}
            _ = hung_up => login.connection.disconnect("the tunnel has ended").await,
        }
    });
    Ends {
        client,
        server,
        connection,
        hang_up,
    }
}

fn plain(packet: Vec<u8>) -> (VirtioHeader, Vec<u8>) {
    (VirtioHeader::PLAIN, packet)
}

/// Packets of many sizes of one flow, and what a kernel with offload yields.
fn packets(host: u8, template: &Template) -> Vec<(VirtioHeader, Vec<u8>)> {
    let template = Template {
        host,
        ..template.clone()
    };
    let sizes = [0, 1, 7, 64, 511, 1200, 1372, 4000, 8900, 16_000];
    let plain = sizes.map(|size| plain(template.packet(&payload(size))));
    let whole = [(3000, 1000), (20_000, 1348), (60_000, 1348)]
        .map(|(size, segment)| template.super_packet(&payload(size), segment));
    let mut all = [&plain[..], &whole].concat();
    all.push(template.partial(&payload(700)));
    all
}

fn sorted(mut packets: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    packets.sort();
    packets
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let held = timeout(HANGS, holds).await;
    held.unwrap_or_else(|_| panic!("{what}: never"));
}

#[tokio::test]
async fn packets_of_every_size_pass_both_ways_and_forged_ones_do_not() {
    for carrier in CARRIERS {
        for takes in [Offload::ALL, Offload::NONE] {
            let ends = ends(carrier, takes).await;
            let ways = [
                (&ends.client, &ends.server, CLIENT),
                (&ends.server, &ends.client, SERVER),
            ];
            let mut expected = [Vec::new(), Vec::new()];
            // Not all at once, which the queue would not hold.
            for template in Template::all() {
                for ((from, _, host), expected) in ways.iter().zip(&mut expected) {
                    let own = packets(*host, &template);
                    for (own, forged) in own.iter().zip(&packets(STRANGER, &template)) {
                        from.device.send(forged);
                        from.device.send(own);
                        expected.extend(ordinary(&own.0, &own.1));
                    }
                }
                for ((from, _, _), expected) in ways.iter().zip(&expected) {
                    let count = 2 * expected.len() as u64;
                    let leaves = || from.sent().packets == count;
                    let left = timeout(HANGS / 3, async { until("all leave", leaves).await }).await;
                    let (sent, ended) = (from.sent(), from.ended.is_finished());
                    assert!(
                        left.is_ok(),
                        "{carrier:?}: {sent} of {count}; ended: {ended}"
                    );
                }
            }
            for ((_, to, _), expected) in ways.into_iter().zip(expected) {
                let count = expected.len() as u64;
                until("all packets arrive", || {
                    let received = to.received();
                    received.packets >= count && received.dropped == [("source not allowed", count)]
                })
                .await;
                let arrived = sorted(to.device.packets());
                assert!(arrived == sorted(expected), "{carrier:?}, {takes:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_full_device_stops_the_sender_and_loses_nothing_that_was_sent() {
    for carrier in CARRIERS {
        let ends = ends(carrier, Offload::NONE).await;
        let (from, to) = (&ends.client, &ends.server);
        let permits = Semaphore::MAX_PERMITS / 2;
        to.device.0.room.forget_permits(permits);
        let bulk = Template {
            host: CLIENT,
            ..Template::new(IpVersion::V4, false)
        };
        let mut number = 0_u32;
        let mut next = || {
            number += 1;
            let mut data = payload(1372);
            data[..4].copy_from_slice(&number.to_be_bytes());
            plain(bulk.packet(&data))
        };
        // More than fits on the way and in the queue.
        for _ in 0..100 {
            for _ in 0..120 {
                from.device.send(&next());
            }
            until("the device is read", || !from.device.has_unread()).await;
        }
        assert_eq!(to.received().packets, 0, "{carrier:?}");
        let other = Template {
            host: CLIENT,
            port: 7,
            ..Template::new(IpVersion::V6, false)
        };
        let small = other.packet(b"ping");
        from.device.send(&plain(small.clone()));
        to.device.0.room.add_permits(permits);
        until("the small flow's packet arrives", || {
            to.device.packets().contains(&small)
        })
        .await;
        until("all that was sent arrives", || {
            to.received().packets == from.sent().packets && !from.device.has_unread()
        })
        .await;
        assert_eq!(to.received().dropped, [], "{carrier:?}");
        assert_ne!(from.sent().dropped, [], "{carrier:?}");
        let mut arrived = to.device.packets();
        arrived.retain(|packet| packet != &small);
        assert!(arrived.is_sorted_by_key(|packet| packet[28..32].to_vec()));
    }
}

/// A tunnel's channel ends with its link; a stream with the connection, which each role then
/// closes.
#[tokio::test]
async fn the_end_of_one_side_ends_the_other() {
    for carrier in CARRIERS {
        let mut ends = ends(carrier, Offload::ALL).await;
        let _ = ends.client.stop.take().unwrap().send(());
        assert!(ends.client.end().await.is_none());
        if matches!(carrier, Carrier::Stream) {
            ends.connection.close().await;
        }
        let end = ends.server.end().await;
        assert!(matches!(end, Some(End::Channel)), "{carrier:?}: {end:?}");
    }
    for carrier in CARRIERS {
        let mut ends = ends(carrier, Offload::ALL).await;
        ends.server.device.delete();
        let end = ends.server.end().await;
        assert!(matches!(end, Some(End::Device(_))), "{carrier:?}: {end:?}");
        if matches!(carrier, Carrier::Stream) {
            let _ = ends.hang_up.send(());
        }
        let end = ends.client.end().await;
        assert!(matches!(end, Some(End::Channel)), "{carrier:?}: {end:?}");
    }
}
