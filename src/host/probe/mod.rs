//! Asks another host for a sign of life through one interface: an echo request (RFC 792, RFC 4443)
//! or the opening of a TCP connection. Both fail softly where this process lacks the right.

mod socket;

#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout, timeout_at};

use socket::EchoSocket;

/// When a request without an answer is repeated; the last interval goes on.
const INTERVALS: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];
/// The port of a connection that asks for a sign of life: discard (RFC 863), which hardly a host
/// serves, so that the answer is a reset.
const DISCARD: u16 = 9;

/// The question.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// The host that is asked.
    pub target: IpAddr,
    /// The interface by which the packets leave.
    pub interface: &'a str,
    /// The number of hosts that forward the packet, with the last one reporting; `None`: no limit.
    pub hop_limit: Option<u8>,
}

/// The outcome.
#[derive(Debug)]
pub enum Answer {
    /// The host answered.
    Answered,
    /// A host on the path reports that the packet was not delivered.
    Reported {
        /// The reporting host.
        by: IpAddr,
        /// The reason.
        report: Report,
    },
    /// Nothing came back in time.
    Silence,
    /// This host did not send it.
    Unsent(io::Error),
}

impl Answer {
    /// Whether `address` itself sent something.
    pub fn is_from(&self, address: IpAddr) -> bool {
        match self {
            Answer::Answered => true,
            Answer::Reported { by, .. } => *by == address,
            Answer::Silence | Answer::Unsent(_) => false,
        }
    }
}

/// Why a packet was not delivered (ICMP types 3 and 11, ICMPv6 types 1 and 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// There is no route.
    NoRoute,
    /// The host does not answer on its link.
    NoHost,
    /// A firewall or a policy forbids it.
    Prohibited,
    /// The port is closed, or a firewall pretends that.
    Port,
    /// The hop limit was reached.
    Expired,
    /// Another reason.
    Other {
        /// The ICMP type.
        kind: u8,
        /// The ICMP code.
        code: u8,
    },
}

impl Report {
    fn of(ipv6: bool, kind: u8, code: u8) -> Self {
        match (ipv6, kind, code) {
            (false, 3, 0 | 5 | 6 | 11) | (true, 1, 0) => Report::NoRoute,
            (false, 3, 1 | 7 | 12) | (true, 1, 3) => Report::NoHost,
            (false, 3, 9 | 10 | 13) | (true, 1, 1 | 5 | 6) => Report::Prohibited,
            (false, 3, 3) | (true, 1, 4) => Report::Port,
            (false, 11, _) | (true, 3, _) => Report::Expired,
            _ => Report::Other { kind, code },
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Report::NoRoute => f.write_str("network unreachable"),
            Report::NoHost => f.write_str("host unreachable"),
            Report::Prohibited => f.write_str("administratively prohibited"),
            Report::Port => f.write_str("port unreachable"),
            Report::Expired => f.write_str("hop limit exceeded"),
            Report::Other { kind, code } => write!(f, "ICMP type {kind} code {code}"),
        }
    }
}

/// Sends echo requests until there is an answer or a report, for at most `patience`.
pub async fn echo(probe: Probe<'_>, patience: Duration) -> Answer {
    let socket = match EchoSocket::open(probe) {
        Ok(socket) => socket,
        Err(error) => return Answer::Unsent(error),
    };
    let end = Instant::now() + patience;
    let mut intervals = INTERVALS.into_iter().chain(std::iter::repeat(INTERVALS[2]));
    let mut unsent = None;
    loop {
        // A report about an earlier request fails a later one; it is read below.
        unsent = socket.send().err().or(unsent);
        let pause = intervals.next().unwrap_or(INTERVALS[2]);
        let until = end.min(Instant::now() + pause);
        if let Ok(answer) = timeout_at(until, socket.answer()).await {
            return answer;
        }
        if Instant::now() >= end {
            return unsent.map_or(Answer::Silence, Answer::Unsent);
        }
    }
}

/// Whether the host accepts or refuses a TCP connection within `patience`: either shows that
/// packets pass both ways.
pub async fn connects(target: IpAddr, interface: &str, patience: Duration) -> bool {
    let open = async {
        let socket = match target {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // Kernels before 5.7 reserve this for root; the packet follows the routes then.
        let _ = setsockopt(&socket, sockopt::BindToDevice, &interface.into());
        socket.connect(SocketAddr::new(target, DISCARD)).await
    };
    match timeout(patience, open).await {
        Ok(Ok(_)) => true,
        Ok(Err(error)) => error.kind() == io::ErrorKind::ConnectionRefused,
        Err(_) => false,
    }
}
