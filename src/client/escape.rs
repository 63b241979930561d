//! The escape character of a session with a terminal (ssh(1), ESCAPE
//! CHARACTERS): `~.` at the start of a line ends the connection, `~~` sends one.

use bytes::{Bytes, BytesMut};

/// The result of filtering a chunk of input.
#[derive(Debug, PartialEq, Eq)]
pub enum Escape {
    /// Send these bytes.
    Pass(Bytes),
    /// End the connection.
    Disconnect,
}

/// Finds escape sequences in terminal input.
#[derive(Debug)]
pub struct EscapeFilter {
    character: Option<u8>,
    line_start: bool,
    pending: bool,
}

impl EscapeFilter {
    /// With `None`, everything passes unchanged.
    pub fn new(character: Option<u8>) -> Self {
        EscapeFilter {
            character,
            line_start: true,
            pending: false,
        }
    }

    /// Filters one chunk of input.
    pub fn pass(&mut self, chunk: &Bytes) -> Escape {
        let Some(character) = self.character else {
            return Escape::Pass(chunk.clone());
        };
        let mut out = BytesMut::with_capacity(chunk.len() + 1);
        for &byte in chunk {
            if std::mem::take(&mut self.pending) {
                match byte {
                    b'.' => return Escape::Disconnect,
                    _ if byte == character => {
                        out.extend_from_slice(&[character]);
                        self.line_start = false;
                        continue;
                    }
                    // Unknown escape: send the escape character that was held back as well.
                    _ => out.extend_from_slice(&[character]),
                }
            } else if self.line_start && byte == character {
                self.pending = true;
                continue;
            }
            out.extend_from_slice(&[byte]);
            self.line_start = matches!(byte, b'\r' | b'\n');
        }
        Escape::Pass(out.freeze())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(filter: &mut EscapeFilter, text: &'static str) -> Escape {
        filter.pass(&Bytes::from_static(text.as_bytes()))
    }

    fn sent(text: &'static str) -> Escape {
        Escape::Pass(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn only_at_the_start_of_a_line() {
        let mut filter = EscapeFilter::new(Some(b'~'));
        assert_eq!(typed(&mut filter, "ls ~."), sent("ls ~."));
        assert_eq!(typed(&mut filter, "\r~"), sent("\r"));
        assert_eq!(typed(&mut filter, "."), Escape::Disconnect);
    }

    #[test]
    fn doubled_or_unknown_is_sent() {
        let mut filter = EscapeFilter::new(Some(b'~'));
        assert_eq!(typed(&mut filter, "~~."), sent("~."));
        assert_eq!(typed(&mut filter, "\r~/x"), sent("\r~/x"));
    }

    #[test]
    fn none_passes_everything() {
        assert_eq!(typed(&mut EscapeFilter::new(None), "\r~."), sent("\r~."));
    }
}
