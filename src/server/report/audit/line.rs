//! Audit records as text lines for people.

use std::fmt::{self, Display};
use std::time::Duration;

use super::event::{Asked, Event, Peer, SessionRecord, TunnelFacts, Who};
use crate::process::message::Counted;

impl Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::ServerStarted { listen, pid } => {
                write!(f, "listening on {}, process {pid}", Listed(listen))
            }
            Event::ServerReloaded { listen } => {
                write!(f, "settings reloaded, listening on {}", Listed(listen))
            }
            Event::ServerStopped { reason } => write!(f, "stopping: {reason}"),
            Event::ConnectionRefused {
                peer,
                reason,
                suppressed,
            } => {
                write!(f, "{peer} refused: {reason}{}", Others(*suppressed))
            }
            Event::LoginDenied {
                peer, who, reason, ..
            } => write!(f, "{peer} was denied a login as {who}: {reason}"),
            Event::LoginFailed {
                peer,
                reason,
                detail,
                ..
            } => {
                write!(f, "{peer} disconnected without a login: {reason}")?;
                match detail.as_str() {
                    "" => Ok(()),
                    _ => write!(f, ": {detail}"),
                }
            }
            Event::Login {
                peer,
                who,
                software,
                ..
            } => write!(f, "{who} logged in from {peer} with {software}"),
            Event::RequestGranted {
                who,
                asked,
                suppressed,
                ..
            } => write!(f, "{who} has {asked}{}", Others(*suppressed)),
            Event::RequestRefused {
                who,
                asked,
                reason,
                suppressed,
                ..
            } => write!(
                f,
                "{who} was refused {asked}: {reason}{}",
                Others(*suppressed)
            ),
            Event::TunnelUp {
                who,
                tunnel,
                suppressed,
                ..
            } => write!(f, "{who} is at {tunnel}{}", Others(*suppressed)),
            Event::AccessWithdrawn {
                peer, who, reason, ..
            } => write!(f, "access revoked for {who} at {peer}: {reason}"),
            Event::Session(session) => session.fmt(f),
            Event::RecordsLost { count } => {
                let was = if *count == 1 { "was" } else { "were" };
                write!(
                    f,
                    "{} of the audit log {was} lost",
                    Counted(*count, "record")
                )
            }
        }
    }
}

impl Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

impl Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.certificate {
            None => write!(f, "{} ({})", self.user, self.fingerprint),
            Some(certificate) => write!(
                f,
                "{} (certificate \"{}\", serial {})",
                self.user, certificate.key_id, certificate.serial
            ),
        }
    }
}

impl Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Tunnel { mode, unit } => write!(f, "a tunnel ({}, {unit})", mode.prefix()),
            Asked::Open { host, port } => write!(f, "a connection to {host}:{port}"),
            Asked::Listen { host, port } => write!(f, "a listener at {host}:{port}"),
            Asked::Subsystem { name } => write!(f, "the subsystem {name}"),
            Asked::Other { name } => write!(f, "{name}"),
        }
    }
}

impl Display for TunnelFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.device)?;
        match self.addresses.as_slice() {
            [] => Ok(()),
            addresses => write!(f, " with {}", Listed(addresses)),
        }
    }
}

impl Display for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tcp = |bytes: fn(&_) -> u64| self.forwards.iter().map(bytes).sum::<u64>();
        let up = self.upload.bytes.saturating_add(tcp(|it| it.upload));
        let down = self.download.bytes.saturating_add(tcp(|it| it.download));
        write!(
            f,
            "{} left after {}, {} up, {} down",
            self.who,
            Lasting(self.end.since(self.start)),
            ByteCount(up),
            ByteCount(down)
        )?;
        let dropped = [&self.upload, &self.download].map(|way| way.dropped.values().sum::<u64>());
        if dropped != [0, 0] {
            write!(
                f,
                ", {} + {} dropped",
                dropped[0],
                Counted(dropped[1], "packet")
            )?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// The number of records left out before one.
struct Others(u64);

impl Display for Others {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => Ok(()),
            count => write!(f, " ({} left out)", Counted(count, "earlier record")),
        }
    }
}

/// Items separated by commas.
pub struct Listed<'a, T>(pub &'a [T]);

impl<T: Display> Display for Listed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            let between = if index > 0 { ", " } else { "" };
            write!(f, "{between}{item}")?;
        }
        Ok(())
    }
}

/// A number of bytes, with two or three significant digits.
pub struct ByteCount(pub u64);

impl Display for ByteCount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
        let mut divided = self.0 as f64;
        let mut unit = "B";
        for next in UNITS {
            if divided < 999.5 {
                break;
            }
            divided /= 1000.0;
            unit = next;
        }
        let text = match unit {
            "B" => format!("{divided} B"),
            _ if divided < 9.95 => format!("{divided:.1} {unit}"),
            _ => format!("{divided:.0} {unit}"),
        };
        f.pad(&text)
    }
}

/// A duration in its two largest units.
pub struct Lasting(pub Duration);

impl Display for Lasting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
        let text = match seconds {
            0..60 => format!("{seconds}s"),
            60..3600 => format!("{minutes}m{:02}s", seconds % 60),
            3600..86400 => format!("{hours}h{:02}m", minutes % 60),
            _ => format!("{days}d{:02}h", hours % 24),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_durations_have_few_figures() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (9_949, "9.9 kB"),
            (9_950, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1.0 MB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
        for (seconds, text) in [
            (59, "59s"),
            (60, "1m00s"),
            (3_725, "1h02m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(Lasting(Duration::from_secs(seconds)).to_string(), text);
        }
    }
}
