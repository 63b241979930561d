//! Reads the lines that a remote process prints, also when no caller waits for one: an unread
//! channel blocks every other channel of the connection, including the tunnel's.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::script::BEGIN;
use crate::ssh::channel::process::{ProcessEvent, ProcessEvents};
use crate::ssh::client::prompt::terminal_text;

/// Unread lines that are kept, at most; further ones are dropped.
const KEPT_LINES: usize = 64;
/// Bytes of a line that are kept, at most.
const LINE_LIMIT: usize = 64 * 1024;

/// Lines of a [script](super::script)'s standard output, safe to print. Standard error goes to the
/// log.
pub struct Answers {
    lines: mpsc::Receiver<String>,
    reading: AbortHandle,
}

impl Answers {
    /// Starts to read the events of a process at `host`.
    pub fn of(events: ProcessEvents, host: String) -> Self {
        let (sender, lines) = mpsc::channel(KEPT_LINES);
        let reading = tokio::spawn(read(events, host, sender)).abort_handle();
        Answers { lines, reading }
    }

    /// The next line; `None` once the process has ended.
    pub async fn next(&mut self) -> Option<String> {
        self.lines.recv().await
    }

    /// Drops the lines that came without a request.
    pub fn forget(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            tracing::debug!("unasked: {line}");
        }
    }
}

#[cfg(test)]
impl Answers {
    /// The number of unread lines.
    pub fn kept(&self) -> usize {
        self.lines.len()
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

async fn read(mut events: ProcessEvents, host: String, lines: mpsc::Sender<String>) {
    let mut cutter = LineCutter::default();
    // Startup files may print more lines than are kept.
    let mut begun = false;
    while let Some(event) = events.next().await {
        match event {
            ProcessEvent::Output(data) => cutter.pass(&data, |line| match begun {
                // If it is full, the remote host sent more lines than requested.
                true => drop(lines.try_send(line)),
                false => begun = line == BEGIN,
            }),
            ProcessEvent::ErrorOutput(data) => {
                let text = String::from_utf8_lossy(&data);
                tracing::debug!(host, "{}", terminal_text::line(&text));
            }
            ProcessEvent::OutputEnd | ProcessEvent::Exited(_) => {}
        }
    }
}

/// Cuts a stream into lines of limited length.
#[derive(Default)]
struct LineCutter {
    unfinished: Vec<u8>,
}

impl LineCutter {
    fn pass(&mut self, data: &[u8], mut finished: impl FnMut(String)) {
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_LIMIT.saturating_sub(self.unfinished.len());
            let kept = part.get(..room.min(part.len())).unwrap_or_default();
            self.unfinished.extend_from_slice(kept);
            if part.ends_with(b"\n") {
                let text = String::from_utf8_lossy(&self.unfinished);
                finished(terminal_text::line(text.trim_end()));
                self.unfinished.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(parts: &[&[u8]]) -> (Vec<String>, usize) {
        let mut lines = Vec::new();
        let mut cutter = LineCutter::default();
        for part in parts {
            cutter.pass(part, |line| lines.push(line));
        }
        (lines, cutter.unfinished.len())
    }

    #[test]
    fn lines_are_cut_wherever_the_stream_was() {
        let (lines, left) = cut(&[b"ok a\nno", b" b", b"\n\n\xff\x1b[2J\r\nrest"]);
        assert_eq!(lines, ["ok a", "no b", "", "\u{fffd}[2J"]);
        assert_eq!(left, 4);
    }

    #[test]
    fn a_line_without_end_takes_no_more_than_the_limit() {
        let chunk = [b'x'; 40_000];
        let (lines, left) = cut(&[&chunk[..]; 50]);
        assert!(lines.is_empty());
        assert_eq!(left, LINE_LIMIT);
        let (lines, left) = cut(&[&chunk, &chunk, b"\nok\n"]);
        assert_eq!(
            (lines[0].len(), lines[1].as_str(), left),
            (LINE_LIMIT, "ok", 0)
        );
    }
}
