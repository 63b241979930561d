//! `--push`: sends this program to a remote host that has none, to run as the agent for as long as
//! the tunnel is up; compressed, where that host has gzip. push.sh is the remote part.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::time::timeout;

use super::error::RemoteAgentError;
use super::meter::Meter;
use super::opening::{Line, Opening};
use super::start::{Candidate, no_answer, or_lost, parts, what_came};
use crate::client::remote::login::{NoCommands, SudoRefusal};
use crate::client::remote::shell::script::Script;
use crate::link::process_stream::AgentInput;
use crate::ssh::channel::process::ProcessRequest;
use crate::ssh::client::connect::Connection;
use crate::ssh::client::prompt::terminal_text;

/// The script that receives the program. POSIX sh.
pub(crate) const PUSH: &str = include_str!("push.sh");
/// The prefix of the script's lines.
const SAID: &str = "sshvpn-push: ";
/// This program's executable, even if its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Limit for the script's next line; `sudo` can be slow.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Limit for sending one piece of the program.
const PIECE_TIMEOUT: Duration = Duration::from_secs(60);
/// The compression that the script may ask for.
const GZIP: &str = "gzip";
/// Bytes of the program sent at once.
const PIECE: usize = 256 * 1024;

/// The program to send.
pub(crate) struct Program {
    file: File,
    pub(crate) length: u64,
    /// SHA-256, in hexadecimal.
    pub(crate) sum: String,
}

/// What is sent of it.
enum Form {
    /// The file as it is.
    Plain(File),
    /// The rest of the compressed program.
    Packed(Bytes),
}

impl Program {
    pub(crate) fn read(path: &str) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let mut digest = Context::new(&SHA256);
        let mut length = 0;
        let mut piece = vec![0; PIECE];
        loop {
            let read = file.read(&mut piece)?;
            if read == 0 {
                break;
            }
            digest.update(piece.get(..read).unwrap_or_default());
            length += read as u64;
        }
        file.rewind()?;
        let sum = digest.finish();
        let sum = sum.as_ref().iter().map(|byte| format!("{byte:02x}"));
        Ok(Program {
            file,
            length,
            sum: sum.collect(),
        })
    }

    /// The program, compressed by gzip.
    pub(crate) fn pack(&mut self) -> io::Result<Bytes> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        io::copy(&mut self.file, &mut packed)?;
        Ok(packed.finish()?.into())
    }
}

impl Form {
    /// The next bytes; empty at the end.
    fn piece(&mut self) -> io::Result<Bytes> {
        match self {
            Form::Plain(file) => {
                let mut piece = vec![0; PIECE];
                let read = file.read(&mut piece)?;
                piece.truncate(read);
                Ok(piece.into())
            }
            Form::Packed(rest) => Ok(rest.split_to(rest.len().min(PIECE))),
        }
    }
}

/// Sends this program and starts it. Returns the process once it is about to become the agent.
pub(crate) async fn push(
    connection: &Connection,
    progress: &impl Fn(String),
    meter: bool,
) -> Result<Candidate, RemoteAgentError> {
    let program = blocking(|| Program::read(OWN_PROGRAM)).await?;
    let script = Script {
        name: "sshvpn-push",
        text: PUSH,
    };
    let arguments = [
        program.length.to_string(),
        program.sum.clone(),
        GZIP.to_owned(),
    ];
    let request = ProcessRequest {
        command: Some(script.command("", &arguments)),
        ..Default::default()
    };
    let process = connection.start(&request).await?;
    let mut candidate = parts(connection, process);
    // A process that is gone is named by its last words.
    let _ = candidate.1.write(script.input().into()).await;
    match hand_over(connection.host(), &mut candidate, program, progress, meter).await {
        Ok(()) => Ok(candidate),
        Err(error) => {
            candidate.1.close().await;
            Err(or_lost(connection, error))
        }
    }
}

pub(crate) async fn hand_over(
    host: &str,
    (opening, input): &mut Candidate,
    program: Program,
    progress: &impl Fn(String),
    meter: bool,
) -> Result<(), RemoteAgentError> {
    let system = match timeout(ANSWER_TIMEOUT, opening_word(host, opening)).await {
        Ok(said) => rest_of(host, &said?, "system")?,
        Err(_) => return Err(no_answer(host, ANSWER_TIMEOUT)),
    };
    if !runs_our_programs(&system) {
        let reason = format!(
            "it runs {system}, and this sshvpn is for Linux {}: install a fitting one there",
            std::env::consts::ARCH
        );
        return Err(refused(host, reason));
    }
    let unpacks = expect(host, opening, "send").await? == GZIP;
    let (form, length, note) = if unpacks {
        let packed = blocking(move || {
            let mut program = program;
            program.pack()
        });
        let packed = packed.await?;
        let length = packed.len() as u64;
        // A process that is gone is named by its last words.
        let _ = input.write(format!("{length}\n").into()).await;
        (Form::Packed(packed), length, " compressed")
    } else {
        (Form::Plain(program.file), program.length, "")
    };
    progress(format!(
        "{host}: sending sshvpn, {:.1} MB{note}; it is removed at the end",
        length as f64 / 1e6
    ));
    let meter = Meter::new(host, length, meter);
    // Read answers while sending: the script may refuse early.
    let mut sent = false;
    let answer = {
        let sending = send(host, input, form, length, meter);
        let answering = next_word(host, opening);
        tokio::pin!(sending, answering);
        loop {
            tokio::select! {
                biased;
                answer = &mut answering => break answer?,
                done = &mut sending, if !sent => {
                    done?;
                    sent = true;
                }
                () = tokio::time::sleep(ANSWER_TIMEOUT), if sent => {
                    return Err(no_answer(host, ANSWER_TIMEOUT));
                }
            }
        }
    };
    match (sent, answer) {
        (true, word) if word == "run" => Ok(()),
        (_, word) => Err(no_or_nonsense(host, &word)),
    }
}

/// Sends the whole program, `left` bytes.
async fn send(
    host: &str,
    input: &AgentInput,
    mut form: Form,
    mut left: u64,
    mut meter: Meter,
) -> Result<(), RemoteAgentError> {
    while left > 0 {
        let (rest, piece) = blocking(move || {
            let piece = form.piece()?;
            Ok((form, piece))
        })
        .await?;
        if piece.is_empty() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let length = piece.len();
        left = left.saturating_sub(length as u64);
        match timeout(PIECE_TIMEOUT, input.write(piece)).await {
            Ok(Ok(())) => {
                form = rest;
                meter.add(length);
            }
            Ok(Err(gone)) => return Err(refused(host, gone.to_string())),
            Err(_) => return Err(refused(host, "it stopped reading the program".to_owned())),
        }
    }
    Ok(())
}

/// The script's next line, which has to begin with `word`; returns the rest of it.
async fn expect(host: &str, opening: &mut Opening, word: &str) -> Result<String, RemoteAgentError> {
    let said = timeout(ANSWER_TIMEOUT, next_word(host, opening)).await;
    rest_of(
        host,
        &said.unwrap_or_else(|_| Err(no_answer(host, ANSWER_TIMEOUT)))?,
        word,
    )
}

/// The rest of the line `said`, which has to begin with `word`.
fn rest_of(host: &str, said: &str, word: &str) -> Result<String, RemoteAgentError> {
    match said.split_once(' ').unwrap_or((said, "")) {
        (first, rest) if first == word => Ok(rest.to_owned()),
        _ => Err(no_or_nonsense(host, said)),
    }
}

/// The script's first line. Without one, the login's shell did not run it.
async fn opening_word(host: &str, opening: &mut Opening) -> Result<String, RemoteAgentError> {
    word_or(opening, |said| {
        let host = host.to_owned();
        NoCommands { host, said }.into()
    })
    .await
}

/// The script's next line; skips other output.
async fn next_word(host: &str, opening: &mut Opening) -> Result<String, RemoteAgentError> {
    word_or(opening, |said| refused(host, said)).await
}

/// The script's next line; the error `missing` if it has ended.
async fn word_or(
    opening: &mut Opening,
    missing: impl Fn(String) -> RemoteAgentError,
) -> Result<String, RemoteAgentError> {
    loop {
        match opening.line().await {
            Ok(Line::Other(line)) => {
                if let Some(said) = line.strip_prefix(SAID) {
                    return Ok(terminal_text::line(said.trim()).chars().take(300).collect());
                }
            }
            Ok(Line::Preamble | Line::OtherPreamble(_) | Line::Socket(_)) => {}
            Err(no_line) => return Err(missing(what_came(opening, no_line))),
        }
    }
}

fn no_or_nonsense(host: &str, said: &str) -> RemoteAgentError {
    if let Some(said) = said.strip_prefix("no-sudo") {
        let sudo = SudoRefusal::of(said);
        return refused(
            host,
            format!(
                "the login is not root there, and {sudo}: log in as root, or allow 'sudo -n' (NOPASSWD)"
            ),
        );
    }
    match said.strip_prefix("no ") {
        Some(reason) => refused(host, reason.to_owned()),
        None => refused(host, format!("unexpected answer '{said}'")),
    }
}

fn refused(host: &str, reason: String) -> RemoteAgentError {
    RemoteAgentError::Push {
        host: host.to_owned(),
        reason,
    }
}

/// Whether this program runs on a host with this system (`uname -s`, `uname -m`).
fn runs_our_programs(system: &str) -> bool {
    let Some(machine) = system.strip_prefix("Linux ") else {
        return false;
    };
    match std::env::consts::ARCH {
        "x86" => matches!(machine, "i386" | "i486" | "i586" | "i686" | "x86_64"),
        // A 64-bit kernel may run a 32-bit system; push.sh tries the program
        // before it uses it.
        "arm" => machine.starts_with("arm") || machine == "aarch64",
        "powerpc64" => machine == "ppc64" || machine == "ppc64le",
        own => machine == own,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(io::Error::other)?
}
