//! How the receiver of a tun channel counts its window.
//!
//! sshvpn charges and grants the length of a message, as RFC 4254, section 5.2 says.
//! OpenSSH's receiver charges and grants the message and the four bytes of an SSH string
//! length (channels.c, `channel_input_data`: "string length header"), while its sender
//! charges the message alone. A sender that charges the message alone therefore counts
//! four bytes too few with every message, and is disconnected once it exceeds the window
//! by a tenth.

/// The bytes that a peer charges to its receive window for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WindowCredit(u32);

/// The rule by which a receiver of datagrams counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WindowRule {
    /// OpenSSH's rule; also for unknown software.
    OpenSsh,
    /// The rule of RFC 4254, section 5.2, which sshvpn follows. A sender that charges
    /// more never gets the difference back, and stops in the end.
    Exact,
}

impl WindowRule {
    /// The rule of sshvpn, or of other software.
    pub fn of(is_sshvpn: bool) -> Self {
        match is_sshvpn {
            true => WindowRule::Exact,
            false => WindowRule::OpenSsh,
        }
    }

    /// The bytes charged for a datagram besides its length.
    pub fn header(self) -> u32 {
        match self {
            WindowRule::OpenSsh => WindowCredit::DATAGRAM_HEADER,
            WindowRule::Exact => 0,
        }
    }
}

impl WindowCredit {
    /// The bytes that OpenSSH adds to each datagram: the length of an SSH string (RFC
    /// 4251, section 5).
    pub const DATAGRAM_HEADER: u32 = 4;

    /// The charge by `rule` for a frame of `length` bytes; `None` if the frame fits no
    /// message.
    pub fn of_datagram(length: usize, rule: WindowRule) -> Option<Self> {
        u32::try_from(length)
            .ok()?
            .checked_add(rule.header())
            .map(Self)
    }

    /// The charge in bytes.
    pub fn get(self) -> u32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OpenSSH's receiver, which counts as channels.c does.
    struct Receiver {
        window: u32,
        consumed: u32,
        exceeded: u32,
    }

    impl Receiver {
        const MAX: u32 = 64 * 32 * 1024;

        fn take(&mut self, length: u32) -> u32 {
            let charged = length + 4;
            if charged > self.window {
                self.exceeded += charged - self.window;
                self.window = 0;
            } else {
                self.window -= charged;
            }
            self.consumed += charged;
            // channel_check_window: an adjustment once three packets are consumed.
            if Self::MAX - self.window > 3 * 32 * 1024 {
                let grant = self.consumed;
                self.window += grant;
                self.consumed = 0;
                return grant;
            }
            0
        }
    }

    #[test]
    fn a_sender_that_charges_so_never_overruns() {
        let mut receiver = Receiver {
            window: Receiver::MAX,
            consumed: 0,
            exceeded: 0,
        };
        let mut credit = Receiver::MAX;
        for turn in 0..2_000_000_u32 {
            let length = 40 + turn % 97;
            let charge = WindowCredit::of_datagram(length as usize, WindowRule::OpenSsh)
                .unwrap()
                .get();
            assert!(
                charge <= credit,
                "turn {turn}: a sender that would wait for ever"
            );
            credit = credit - charge + receiver.take(length);
            assert_eq!(receiver.exceeded, 0);
            assert_eq!(credit, receiver.window);
        }
    }

    #[test]
    fn impossible_lengths_have_no_charge() {
        let most = u32::MAX as usize;
        for (length, rule) in [
            (usize::MAX, WindowRule::OpenSsh),
            (usize::MAX, WindowRule::Exact),
            (most, WindowRule::OpenSsh),
        ] {
            assert_eq!(WindowCredit::of_datagram(length, rule), None);
        }
        let exact = WindowCredit::of_datagram(most, WindowRule::Exact);
        assert_eq!(exact.map(WindowCredit::get), Some(u32::MAX));
    }
}
