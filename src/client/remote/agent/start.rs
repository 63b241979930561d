//! Starting an agent at the remote end: as a subsystem, by a line of shell, by the
//! user's own command; or by sending it our program first. A server has but the
//! subsystem.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::error::{RemoteAgentError, Role};
use super::opening::{AgentSocket, Line, NoLine, Opening};
use super::push;
use super::session::RemoteAgent;
use crate::client::remote::shell::quote;
use crate::frame::control::{AgentFacts, Hello};
use crate::link::control::Conversation;
use crate::link::process_stream::{self, AgentInput};
use crate::ssh::channel::process::{Process, ProcessRequest};
use crate::ssh::client::connect::Connection;
use crate::ssh::error::ChannelError;
use crate::types::Mode;

/// The subsystem's name in sshd_config.
const SUBSYSTEM: &str = "sshvpn";

/// Finds sshvpn and starts it as root, if the login may become root; else as
/// it is, since the program may have a capability. POSIX sh in one line, as any
/// login shell can hand it on. A sudoers file may have but this one command.
pub(crate) const START: &str = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/usr/local/bin; export PATH; \
    agent=$(command -v sshvpn) || { echo sshvpn-start: none; exit 127; }; \
    if [ \"$(id -u)\" = 0 ]; then exec \"$agent\" agent; fi; \
    if sudo -n true </dev/null >/dev/null 2>&1 || sudo -n -l \"$agent\" agent </dev/null >/dev/null 2>&1; \
    then echo sshvpn-start: sudo; exec sudo -n \"$agent\" agent; fi; \
    exec \"$agent\" agent";
/// What it prints where there is no sshvpn.
const NONE: &str = "sshvpn-start: none";
/// What it prints before sudo takes over.
const SUDO: &str = "sshvpn-start: sudo";

/// What is done until the preamble comes, for errors.
const START_IT: &str = "start an agent there";
/// How long a shell and sudo may take until then.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The same where nothing is between the server and the agent.
const BY_SUBSYSTEM: &str = "start an agent there as the subsystem 'sshvpn'";
/// How long that may take, from the server's word that it has started it: other
/// ways wait behind it.
const SUBSYSTEM_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take to connect to the agent's socket and to let us say
/// the word, or to refuse.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

/// How an agent is to be started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentRequest {
    /// By this command, and by no other way.
    pub command: Option<String>,
    /// Whether to send our own program if the remote end has none.
    pub push: bool,
    /// Addresses that it is asked its way to.
    pub ways: Vec<IpAddr>,
}

/// What was started.
pub enum Started {
    /// An agent that can do its work.
    Agent(StartedAgent),
    /// A server, which has been greeted.
    Server(RemoteAgent),
}

/// An agent, and what its host is like.
pub struct StartedAgent {
    /// The agent.
    pub agent: RemoteAgent,
    /// Its host.
    pub facts: AgentFacts,
}

/// Starts an agent and has it look at its host: one that may do nothing there
/// says so then. What it says that it is may turn out to be a server. `progress`
/// is told of what takes its time.
pub async fn start(
    connection: &Connection,
    request: &AgentRequest,
    progress: impl Fn(String),
) -> Result<Started, RemoteAgentError> {
    let starting = Starting {
        connection,
        ways: &request.ways,
    };
    if let Some(command) = &request.command {
        return starting.by_command(command, &format!("'{command}'")).await;
    }
    let subsystem = match starting.by_subsystem().await {
        Some(Err(error)) if !error.is_final() => Some(error),
        Some(done) => return done,
        None => None,
    };
    if let Some(error) = &subsystem {
        tracing::debug!("{error}");
    }
    let line = format!("exec sh -c {}", quote(START));
    let error = match starting.by_command(&line, "'sshvpn agent'").await {
        Err(error @ RemoteAgentError::NotInstalled { .. }) => error,
        done => return done,
    };
    if request.push {
        let process = push::push(connection, &progress).await?;
        let copy = Way::by_shell("the copy of sshvpn");
        return starting.met(process, &copy).await;
    }
    // A subsystem that is configured and does not work is the better reason.
    Err(subsystem.unwrap_or(error))
}

/// Meets a server: by its subsystem alone, since it starts nothing else.
pub async fn meet_server(connection: &Connection) -> Result<RemoteAgent, RemoteAgentError> {
    let starting = Starting {
        connection,
        ways: &[],
    };
    let host = connection.host().to_owned();
    let found = match starting.by_subsystem().await {
        Some(Ok(Started::Server(server))) => return Ok(server),
        Some(Ok(Started::Agent(started))) => {
            started.agent.close().await;
            "sshvpn agent".to_owned()
        }
        Some(Err(error)) => return Err(error),
        None if connection.is_sshvpn() => return Err(RemoteAgentError::NotServed { host }),
        None => connection.software(),
    };
    Err(RemoteAgentError::NoServer { host, found })
}

/// A way of starting one.
struct Way<'a> {
    /// What it is, to precede "started no agent".
    name: &'a str,
    /// What is done, to follow "cannot".
    what: &'static str,
    /// How long it may take.
    limit: Duration,
}

impl<'a> Way<'a> {
    const SUBSYSTEM: Way<'static> = Way {
        name: "the subsystem 'sshvpn'",
        what: BY_SUBSYSTEM,
        limit: SUBSYSTEM_TIMEOUT,
    };

    fn by_shell(name: &'a str) -> Self {
        Way {
            name,
            what: START_IT,
            limit: START_TIMEOUT,
        }
    }

    fn no_answer(&self, host: &str) -> RemoteAgentError {
        RemoteAgentError::NoAnswer {
            host: host.to_owned(),
            what: self.what,
            limit: self.limit,
        }
    }
}

/// What every way of starting needs.
struct Starting<'a> {
    connection: &'a Connection,
    ways: &'a [IpAddr],
}

impl Starting<'_> {
    /// Nothing if the server has no such subsystem.
    async fn by_subsystem(&self) -> Option<Result<Started, RemoteAgentError>> {
        match self.connection.subsystem(SUBSYSTEM).await {
            Ok(process) => Some(
                self.met(parts(self.connection, process), &Way::SUBSYSTEM)
                    .await,
            ),
            Err(ChannelError::Process { reason, .. }) => {
                tracing::debug!("no subsystem {SUBSYSTEM}: {reason}");
                None
            }
            Err(error) => Some(Err(error.into())),
        }
    }

    async fn by_command(&self, command: &str, how: &str) -> Result<Started, RemoteAgentError> {
        let request = ProcessRequest {
            command: Some(command.to_owned()),
            ..Default::default()
        };
        let process = self.connection.start(&request).await?;
        let way = Way::by_shell(how);
        self.met(parts(self.connection, process), &way).await
    }

    /// Waits for the preamble, exchanges hellos, and has it look at its host.
    /// Closes what is no agent, or none that can be used.
    async fn met(
        &self,
        (mut opening, mut input): Candidate,
        way: &Way<'_>,
    ) -> Result<Started, RemoteAgentError> {
        let host = self.connection.host();
        let found = timeout(way.limit, preamble(host, &mut opening, way.name)).await;
        let found = match found.unwrap_or_else(|_| Err(way.no_answer(host))) {
            Ok(socket) => self.by_socket(socket).await,
            Err(error) => Err(error),
        };
        let socket = match found {
            Ok(socket) => socket,
            Err(error) => {
                input.close().await;
                return Err(or_lost(self.connection, error));
            }
        };
        let last_words = opening.last_words();
        let (mut unread, mut output) = opening.into_parts();
        if let Some(socket) = socket {
            process_stream::go_over(socket, &mut output, &mut input);
            // That was printed, and is no part of the stream.
            unread.clear();
        }
        let mut conversation = Conversation::new(output, input);
        conversation.unread(unread);
        let mut agent = RemoteAgent::new(host, conversation, last_words);
        let looked = match agent.greet().await {
            Ok(()) if agent.role() == Role::Server => return Ok(Started::Server(agent)),
            Ok(()) => agent.look(self.ways.to_vec()).await,
            Err(error) => Err(error),
        };
        match looked {
            Ok(facts) => Ok(Started::Agent(StartedAgent { agent, facts })),
            Err(error) => {
                let (_, _, input) = agent.into_stream().0.into_parts(Mode::default());
                input.close().await;
                Err(or_lost(self.connection, error))
            }
        }
    }

    /// Goes where the agent listens, if sshd lets us: it is quicker with a socket
    /// than with the pipes to a process.
    async fn by_socket(
        &self,
        socket: Option<AgentSocket>,
    ) -> Result<Option<Process>, RemoteAgentError> {
        let Some(AgentSocket { path, word }) = socket else {
            return Ok(None);
        };
        let answer = timeout(SOCKET_TIMEOUT, async {
            let socket = self.connection.remote_socket(&path).await?;
            let said = socket.input.write(word).await;
            Ok(said.is_ok().then_some(socket))
        });
        let reason = match answer.await {
            Ok(Ok(Some(socket))) => return Ok(Some(socket)),
            Ok(Ok(None)) => "it is closed".to_owned(),
            Ok(Err(ChannelError::Process { reason, .. })) => reason,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => "no answer".to_owned(),
        };
        tracing::debug!("not by the agent's socket {path}: {reason}");
        Ok(None)
    }
}

/// A process that may turn out to be an agent.
pub(crate) type Candidate = (Opening, AgentInput);

pub(crate) fn parts(connection: &Connection, process: Process) -> Candidate {
    let (output, input) = process_stream::of_process(connection.host().to_owned(), process);
    (Opening::new(output), input)
}

/// Passes over all that comes before the preamble, but for the socket there.
async fn preamble(
    host: &str,
    opening: &mut Opening,
    how: &str,
) -> Result<Option<AgentSocket>, RemoteAgentError> {
    let host = host.to_owned();
    let (mut sudo, mut socket) = (false, None);
    loop {
        match opening.line().await {
            Ok(Line::Preamble) => return Ok(socket),
            Ok(Line::Socket(found)) => socket = Some(found),
            Ok(Line::OtherPreamble(version)) => return Err(other_stream(host, &version)),
            Ok(Line::Other(line)) if line == NONE => {
                return Err(RemoteAgentError::NotInstalled { host });
            }
            Ok(Line::Other(line)) => sudo |= line == SUDO,
            Err(NoLine::Ended) if sudo => {
                let said = opening.last_words().to_string();
                return Err(RemoteAgentError::Sudo { host, said });
            }
            Err(no_line) => {
                return Err(RemoteAgentError::NotStarted {
                    host,
                    how: how.to_owned(),
                    said: what_came(opening, no_line),
                });
            }
        }
    }
}

/// All that is known of a process that is no agent.
pub(crate) fn what_came(opening: &Opening, no_line: NoLine) -> String {
    let printed = opening.printed();
    let printed = match printed.is_empty() {
        true => String::new(),
        false => format!("it printed \"{printed}\""),
    };
    match no_line {
        NoLine::TooMuch => format!("{printed} and much more"),
        NoLine::Ended if printed.is_empty() => opening.last_words().to_string(),
        NoLine::Ended => format!("{printed}; {}", opening.last_words()),
    }
}

/// An agent whose stream has another form.
fn other_stream(host: String, version: &str) -> RemoteAgentError {
    let ours = Hello::ours().software;
    RemoteAgentError::Version {
        host,
        theirs: format!("with stream version {version}"),
        ours,
        advice: "the one here is older: update it".to_owned(),
    }
}

pub(crate) fn no_answer(host: &str, limit: Duration) -> RemoteAgentError {
    RemoteAgentError::NoAnswer {
        host: host.to_owned(),
        what: START_IT,
        limit,
    }
}

/// The error, or that the connection is gone, which explains it.
pub(crate) fn or_lost(connection: &Connection, error: RemoteAgentError) -> RemoteAgentError {
    match connection.end_reason() {
        Some(reason) => RemoteAgentError::Channel(ChannelError::Gone {
            host: connection.host().to_owned(),
            reason,
        }),
        None => error,
    }
}
