//! The local terminal: its description for the server, and raw mode during a remote shell.

use std::io;

use nix::sys::termios::{
    self, ControlFlags, InputFlags, LocalFlags, OutputFlags, SetArg, SpecialCharacterIndices,
    Termios,
};

use crate::ssh::channel::process::{Terminal, TerminalSize};

nix::ioctl_read_bad!(
    /// TIOCGWINSZ (ioctl_tty(2)).
    window_size,
    nix::libc::TIOCGWINSZ,
    nix::libc::winsize
);

/// The terminal's size; zeros if standard input is no terminal.
pub fn size() -> TerminalSize {
    let mut size = nix::libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the kernel fills the one winsize that it is given.
    match unsafe { window_size(nix::libc::STDIN_FILENO, &raw mut size) } {
        Ok(_) => TerminalSize {
            columns: size.ws_col,
            rows: size.ws_row,
            width: size.ws_xpixel,
            height: size.ws_ypixel,
        },
        Err(_) => TerminalSize::default(),
    }
}

/// The terminal's name, size and modes, for the pty request (RFC 4254, section 6.2).
pub fn describe() -> Terminal {
    Terminal {
        name: std::env::var("TERM").unwrap_or_default(),
        size: size(),
        modes: termios::tcgetattr(io::stdin())
            .map(|termios| modes(&termios))
            .unwrap_or_default(),
    }
}

/// The terminal modes as opcodes of RFC 4254, section 8, with their values.
fn modes(termios: &Termios) -> Vec<(u8, u32)> {
    use SpecialCharacterIndices as Index;
    let characters = [
        (1, Index::VINTR),
        (2, Index::VQUIT),
        (3, Index::VERASE),
        (4, Index::VKILL),
        (5, Index::VEOF),
        (6, Index::VEOL),
        (7, Index::VEOL2),
        (8, Index::VSTART),
        (9, Index::VSTOP),
        (10, Index::VSUSP),
        (12, Index::VREPRINT),
        (13, Index::VWERASE),
        (14, Index::VLNEXT),
        (18, Index::VDISCARD),
    ];
    let input = [
        (30, InputFlags::IGNPAR),
        (31, InputFlags::PARMRK),
        (32, InputFlags::INPCK),
        (33, InputFlags::ISTRIP),
        (34, InputFlags::INLCR),
        (35, InputFlags::IGNCR),
        (36, InputFlags::ICRNL),
        (38, InputFlags::IXON),
        (39, InputFlags::IXANY),
        (40, InputFlags::IXOFF),
        (41, InputFlags::IMAXBEL),
        (42, InputFlags::IUTF8),
    ];
    let local = [
        (50, LocalFlags::ISIG),
        (51, LocalFlags::ICANON),
        (53, LocalFlags::ECHO),
        (54, LocalFlags::ECHOE),
        (55, LocalFlags::ECHOK),
        (56, LocalFlags::ECHONL),
        (57, LocalFlags::NOFLSH),
        (58, LocalFlags::TOSTOP),
        (59, LocalFlags::IEXTEN),
        (60, LocalFlags::ECHOCTL),
        (61, LocalFlags::ECHOKE),
    ];
    let output = [
        (70, OutputFlags::OPOST),
        (72, OutputFlags::ONLCR),
        (73, OutputFlags::OCRNL),
        (74, OutputFlags::ONOCR),
        (75, OutputFlags::ONLRET),
    ];
    let control = [
        (90, ControlFlags::CS7),
        (91, ControlFlags::CS8),
        (92, ControlFlags::PARENB),
        (93, ControlFlags::PARODD),
    ];
    let mut modes = Vec::new();
    for (code, index) in characters {
        let character = termios
            .control_chars
            .get(index as usize)
            .copied()
            .unwrap_or(0);
        // A disabled character is 255 on the wire (RFC 4254, section 8).
        modes.push((
            code,
            if character == 0 {
                255
            } else {
                u32::from(character)
            },
        ));
    }
    modes.extend(input.map(|(code, flag)| (code, u32::from(termios.input_flags.contains(flag)))));
    modes.extend(local.map(|(code, flag)| (code, u32::from(termios.local_flags.contains(flag)))));
    modes.extend(output.map(|(code, flag)| (code, u32::from(termios.output_flags.contains(flag)))));
    modes.extend(
        control.map(|(code, flag)| (code, u32::from(termios.control_flags.contains(flag)))),
    );
    modes
}

/// The terminal in raw mode; dropping this restores the previous mode.
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Fails if standard input is no terminal.
    pub fn enter() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &raw)?;
        Ok(RawTerminal { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _ = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}
