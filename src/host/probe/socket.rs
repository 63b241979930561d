//! A socket for echo requests to one host: the kernel's ping socket where this process's group may
//! have one (net.ipv4.ping_group_range), else a raw socket, which needs CAP_NET_RAW.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recv, recvmsg, setsockopt, sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Answer, Probe, Report};

/// The largest answer that is read, in bytes; longer ones are none of ours.
const LARGEST: usize = 512;
/// Room for the control messages of one report.
const CONTROL: usize = 512;
/// `SO_EE_ORIGIN_ICMP` and `SO_EE_ORIGIN_ICMP6` (linux/errqueue.h).
const ORIGINS: [u8; 2] = [2, 3];

static COUNTER: AtomicU64 = AtomicU64::new(0);

pub(super) struct EchoSocket {
    socket: AsyncFd<Socket>,
    ipv6: bool,
    /// Whether a received datagram begins with an IP header.
    has_header: bool,
    request: Vec<u8>,
    /// The end of the request, which its reply repeats.
    token: [u8; 8],
}

impl EchoSocket {
    pub(super) fn open(probe: Probe<'_>) -> io::Result<Self> {
        let ipv6 = probe.target.is_ipv6();
        let (domain, protocol) = match ipv6 {
            false => (Domain::IPV4, Protocol::ICMPV4),
            true => (Domain::IPV6, Protocol::ICMPV6),
        };
        let (socket, raw) = match Socket::new(domain, Type::DGRAM, Some(protocol)) {
            Ok(socket) => (socket, false),
            Err(_) => (Socket::new(domain, Type::RAW, Some(protocol))?, true),
        };
        socket.set_nonblocking(true)?;
        // Kernels before 5.7 reserve this for root; the packet follows the routes then.
        let _ = socket.bind_device(Some(probe.interface.as_bytes()));
        match (probe.target, probe.hop_limit) {
            (IpAddr::V4(_), Some(limit)) => socket.set_ttl_v4(limit.into())?,
            (IpAddr::V6(_), Some(limit)) => socket.set_unicast_hops_v6(limit.into())?,
            (_, None) => {}
        }
        match ipv6 {
            false => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
            true => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
        }
        socket.connect(&SocketAddr::new(probe.target, 0).into())?;
        let token = token();
        let interest = Interest::READABLE | Interest::ERROR;
        // SAFETY: the socket owns its open descriptor, and stays inside of the AsyncFd.
        let socket = unsafe { AsyncFd::register_with_interest(socket, interest) };
        Ok(Self {
            socket: socket.map_err(io::Error::from)?,
            ipv6,
            has_header: raw && !ipv6,
            request: request(ipv6, &token),
            token,
        })
    }

    pub(super) fn send(&self) -> io::Result<()> {
        self.socket.get_ref().send(&self.request).map(drop)
    }

    /// Waits for the reply or for a report.
    pub(super) async fn answer(&self) -> Answer {
        loop {
            let ready = self.socket.ready(Interest::READABLE | Interest::ERROR);
            let mut ready = match ready.await {
                Ok(ready) => ready,
                Err(error) => return Answer::Unsent(error),
            };
            if let Some(answer) = self.take() {
                return answer;
            }
            ready.clear_ready();
        }
    }

    /// The next reply or report, if one has arrived.
    fn take(&self) -> Option<Answer> {
        loop {
            let mut buffer = [0; LARGEST];
            match recv(self.descriptor(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(length) if self.is_reply(buffer.get(..length).unwrap_or_default()) => {
                    return Some(Answer::Answered);
                }
                Ok(_) => {}
                // Any other error is a report, whose sender is in the error queue.
                Err(errno) => {
                    let reported = self.report();
                    if reported.is_some() || errno == Errno::EAGAIN {
                        return reported;
                    }
                }
            }
        }
    }

    fn descriptor(&self) -> RawFd {
        self.socket.get_ref().as_raw_fd()
    }

    fn is_reply(&self, datagram: &[u8]) -> bool {
        let header = match (self.has_header, datagram.first()) {
            (true, Some(first)) => usize::from(first & 0xf) * 4,
            _ => 0,
        };
        let message = datagram.get(header..).unwrap_or_default();
        let kind = if self.ipv6 { 129 } else { 0 };
        message.first() == Some(&kind) && message.ends_with(&self.token)
    }

    /// The oldest report in the error queue.
    fn report(&self) -> Option<Answer> {
        loop {
            let mut bytes = [0; LARGEST];
            let mut parts = [IoSliceMut::new(&mut bytes)];
            let mut control = vec![0; CONTROL];
            let message = recvmsg::<SockaddrStorage>(
                self.descriptor(),
                &mut parts,
                Some(&mut control),
                MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT,
            )
            .ok()?;
            let answer = message.cmsgs().ok()?.find_map(|message| match message {
                ControlMessageOwned::Ipv4RecvErr(error, Some(by)) => {
                    let by = u32::from_be(by.sin_addr.s_addr);
                    reported(false, &error, IpAddr::V4(by.into()))
                }
                ControlMessageOwned::Ipv6RecvErr(error, Some(by)) => {
                    reported(true, &error, IpAddr::V6(by.sin6_addr.s6_addr.into()))
                }
                _ => None,
            });
            if answer.is_some() {
                return answer;
            }
        }
    }
}

fn reported(ipv6: bool, error: &libc::sock_extended_err, by: IpAddr) -> Option<Answer> {
    let from_network = ORIGINS.contains(&error.ee_origin);
    from_network.then(|| Answer::Reported {
        by,
        report: Report::of(ipv6, error.ee_type, error.ee_code),
    })
}

/// Bytes that no other request of this host has at the same time.
fn token() -> [u8; 8] {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.map_or(0, |time| time.as_nanos() as u64);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    let process = u64::from(std::process::id()) << 32;
    (now ^ process).wrapping_add(count).to_be_bytes()
}

/// An echo request. For IPv6 and for a ping socket the kernel writes the checksum.
fn request(ipv6: bool, token: &[u8; 8]) -> Vec<u8> {
    let kind = if ipv6 { 128 } else { 8 };
    let [.., high, low] = token;
    let mut message = vec![kind, 0, 0, 0, *high, *low, 0, 1];
    message.extend(token);
    let sum = message.chunks_exact(2).fold(0u32, |sum, pair| match pair {
        [high, low] => sum + u32::from(u16::from_be_bytes([*high, *low])),
        _ => sum,
    });
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !((folded & 0xffff) + (folded >> 16)) as u16;
    if let Some(field) = message.get_mut(2..4) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    message
}
