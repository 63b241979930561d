//! A server's status as a table.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;

use crate::server::report::audit::line::{ByteCount, Listed};
use crate::server::report::audit::text::Text;
use crate::server::report::registry::Forwarded;
use crate::server::report::registry::forwards::ForwardRecord;
use crate::server::report::registry::traffic::{DirectionTraffic, Traffic};

/// Displayed characters of a fingerprint, enough to tell keys apart.
const FINGERPRINT: usize = "SHA256:".len() + 12;
/// Characters of a time up to its minutes.
const MINUTES: usize = "2026-01-01T00:00".len();

/// The fields of a document that the table shows.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    server: Server,
    sessions: Vec<Session>,
    totals: Totals,
}

#[derive(Debug, Deserialize)]
struct Server {
    pid: u32,
    listen: Vec<SocketAddr>,
    started: Text,
    reloads: u64,
}

#[derive(Debug, Deserialize)]
struct Session {
    user: Text,
    fingerprint: Text,
    peer_address: IpAddr,
    peer_port: u16,
    since: Text,
    tunnel: Option<Tunnel>,
    #[serde(flatten)]
    traffic: Traffic,
    forwards: Vec<ForwardRecord>,
}

#[derive(Debug, Deserialize)]
struct Tunnel {
    device: Text,
    addresses: Vec<IpAddr>,
}

#[derive(Debug, Deserialize)]
struct Totals {
    logins: u64,
    #[serde(flatten)]
    traffic: Traffic,
    forwarded: Forwarded,
}

const HEAD: [&str; 9] = [
    "USER",
    "KEY",
    "PEER",
    "DEVICE",
    "ADDRESSES",
    "SINCE (UTC)",
    "UP",
    "DOWN",
    "DROPPED",
];

/// Renders the table, with a line break at the end.
pub(super) fn render(answer: &Answer) -> String {
    let mut rows = vec![HEAD.map(str::to_owned)];
    rows.extend(answer.sessions.iter().map(row));
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or_default()
    };
    let widths: [usize; HEAD.len()] = std::array::from_fn(width);
    let mut text = head(answer);
    if answer.sessions.is_empty() {
        return text;
    }
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            // Writing to a string does not fail.
            let _ = write!(line, "{cell:width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn head(answer: &Answer) -> String {
    let (server, totals) = (&answer.server, &answer.totals);
    let reloads = match server.reloads {
        0 => String::new(),
        1 => ", reloaded once".to_owned(),
        count => format!(", reloaded {count} times"),
    };
    let up = (totals.traffic.upload.bytes).saturating_add(totals.forwarded.upload);
    let down = (totals.traffic.download.bytes).saturating_add(totals.forwarded.download);
    format!(
        "sshvpn serve, process {}, on {}, since {}{reloads}\n\
         {} logged in, {} logins in all, {} up, {} down\n",
        server.pid,
        Listed(&server.listen),
        minutes(&server.started),
        answer.sessions.len(),
        totals.logins,
        ByteCount(up),
        ByteCount(down),
    )
}

fn row(session: &Session) -> [String; HEAD.len()] {
    let (device, addresses) = match &session.tunnel {
        Some(tunnel) => (
            tunnel.device.to_string(),
            Listed(&tunnel.addresses).to_string(),
        ),
        None => ("-".to_owned(), "-".to_owned()),
    };
    let fingerprint = session.fingerprint.to_string();
    [
        session.user.to_string(),
        fingerprint.chars().take(FINGERPRINT).collect(),
        SocketAddr::new(session.peer_address, session.peer_port).to_string(),
        device,
        addresses,
        minutes(&session.since),
        carried(
            &session.traffic.upload,
            session.forwards.iter().map(|it| it.upload),
        ),
        carried(
            &session.traffic.download,
            session.forwards.iter().map(|it| it.download),
        ),
        session
            .traffic
            .upload
            .dropped_packets()
            .saturating_add(session.traffic.download.dropped_packets())
            .to_string(),
    ]
}

fn carried(direction: &DirectionTraffic, forwards: impl Iterator<Item = u64>) -> String {
    ByteCount(forwards.fold(direction.bytes, u64::saturating_add)).to_string()
}

/// The time without its seconds.
fn minutes(time: &Text) -> String {
    let text = time.to_string().replacen('T', " ", 1);
    text.chars().take(MINUTES).collect()
}
