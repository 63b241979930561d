//! Starts an agent on the remote host: as a subsystem, by a shell line, by the user's command, or
//! by pushing this program. A server has only the subsystem.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::timeout;

use super::error::{RemoteAgentError, Role};
use super::opening::{AgentSocket, Line, NoLine, Opening};
use super::push;
use super::session::RemoteAgent;
use crate::client::remote::login::{NoCommands, SudoRefusal};
use crate::client::remote::shell::quote;
use crate::frame::control::{AgentFacts, CloseReason, Hello, Look};
use crate::link::control::Conversation;
use crate::link::process_stream::{self, AgentInput};
use crate::ssh::channel::process::{Process, ProcessRequest};
use crate::ssh::client::connect::Connection;
use crate::ssh::error::ChannelError;
use crate::types::Mode;

/// The subsystem's name in sshd_config.
const SUBSYSTEM: &str = "sshvpn";

/// Finds sshvpn and starts it as root, if the login may become root; else as the login, since the
/// program may have a capability. POSIX sh in one line, so that any login shell can pass it on.
/// It also works if sudoers allows only this command.
pub(crate) const START: &str = "PATH=$PATH:/usr/local/sbin:/usr/sbin:/usr/local/bin; export PATH; \
    echo; echo sshvpn-start: begun; \
    agent=$(command -v sshvpn) || { echo sshvpn-start: none; exit 127; }; \
    if [ \"$(id -u)\" = 0 ]; then exec \"$agent\" agent; fi; \
    if said=$(LC_ALL=C sudo -n true 2>&1 </dev/null) || sudo -n -l \"$agent\" agent </dev/null >/dev/null 2>&1; \
    then echo sshvpn-start: sudo; exec sudo -n \"$agent\" agent; fi; \
    command -v sudo >/dev/null || said=; set -f; echo sshvpn-start: no sudo $said; \
    exec \"$agent\" agent";
/// Its first output, which tells that the login's shell runs it.
const BEGUN: &str = "sshvpn-start: begun";
/// Its output if sshvpn is not installed.
const NONE: &str = "sshvpn-start: none";
/// Its output before it runs sudo.
const SUDO: &str = "sshvpn-start: sudo";
/// Its output, before sudo's words, if sudo does not run sshvpn.
const NO_SUDO: &str = "sshvpn-start: no sudo";

/// The action before the preamble, for errors.
const START_IT: &str = "start an agent there";
/// Limit for a shell and sudo until the preamble.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The same action by the subsystem.
const BY_SUBSYSTEM: &str = "start an agent there as the subsystem 'sshvpn'";
/// Limit for the preamble of the subsystem, from the server's success reply. Shorter, since the
/// other ways wait for it.
const SUBSYSTEM_TIMEOUT: Duration = Duration::from_secs(10);

/// Limit for the server to connect to the agent's socket, and to take the word or refuse.
const SOCKET_TIMEOUT: Duration = Duration::from_secs(5);

/// How an agent is to be started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AgentRequest {
    /// Only by this command, if set.
    pub command: Option<String>,
    /// Whether to push this program if the remote host has none.
    pub push: bool,
    /// Whether a terminal shows how much of it is sent.
    pub meter: bool,
    /// Addresses for which the agent reports its route.
    pub ways: Vec<IpAddr>,
}

/// The process that was started.
pub enum Started {
    /// An agent that may do its work.
    Agent(StartedAgent),
    /// A server that has answered the greeting.
    Server(RemoteAgent),
}

/// An agent and the facts about its host.
pub struct StartedAgent {
    /// The agent.
    pub agent: RemoteAgent,
    /// Its host's facts.
    pub facts: AgentFacts,
}

/// Starts an agent and asks it for its host's facts; an agent without privilege says so then. The
/// process may turn out to be a server. `progress` receives a line for each slow step.
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
        let name = format!("'{command}'");
        return starting.by_way(command, &Way::by_shell(&name)).await;
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
    let way = Way {
        begins: true,
        ..Way::by_shell("'sshvpn agent'")
    };
    let error = match starting.by_way(&line, &way).await {
        Err(error @ RemoteAgentError::NotInstalled { .. }) => error,
        done => return done,
    };
    if request.push {
        let process = push::push(connection, &progress, request.meter).await?;
        let copy = Way::by_shell("the copy of sshvpn");
        return starting.met(process, &copy).await;
    }
    // A configured subsystem that does not work is the more useful error.
    Err(subsystem.unwrap_or(error))
}

/// Greets a server, by its subsystem, since it starts nothing else.
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

/// A way of starting an agent.
struct Way<'a> {
    /// Its name, for "NAME started no agent".
    name: &'a str,
    /// The action, for "cannot ACTION".
    what: &'static str,
    /// The time limit.
    limit: Duration,
    /// Whether its first output is [`BEGUN`].
    begins: bool,
}

impl<'a> Way<'a> {
    const SUBSYSTEM: Way<'static> = Way {
        name: "the subsystem 'sshvpn'",
        what: BY_SUBSYSTEM,
        limit: SUBSYSTEM_TIMEOUT,
        begins: false,
    };

    fn by_shell(name: &'a str) -> Self {
        Way {
            name,
            what: START_IT,
            limit: START_TIMEOUT,
            begins: false,
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

/// The parameters of every way.
struct Starting<'a> {
    connection: &'a Connection,
    ways: &'a [IpAddr],
}

impl Starting<'_> {
    /// `None` if the server has no such subsystem.
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

    async fn by_way(&self, command: &str, way: &Way<'_>) -> Result<Started, RemoteAgentError> {
        let request = ProcessRequest {
            command: Some(command.to_owned()),
            ..Default::default()
        };
        let process = self.connection.start(&request).await?;
        self.met(parts(self.connection, process), way).await
    }

    /// Waits for the preamble, exchanges hellos, and asks for the host's facts. Closes a process
    /// that is no usable agent.
    async fn met(
        &self,
        (mut opening, mut input): Candidate,
        way: &Way<'_>,
    ) -> Result<Started, RemoteAgentError> {
        let host = self.connection.host();
        let found = timeout(way.limit, preamble(host, &mut opening, way)).await;
        let found = match found.unwrap_or_else(|_| Err(way.no_answer(host))) {
            Ok(met) => self.by_socket(met.socket).await.map(|it| (it, met.no_sudo)),
            Err(error) => Err(error),
        };
        let (socket, no_sudo) = match found {
            Ok(found) => found,
            Err(error) => {
                input.close().await;
                return Err(or_lost(self.connection, error));
            }
        };
        let last_words = opening.last_words();
        let (mut unread, mut output) = opening.into_parts();
        if let Some(socket) = socket {
            process_stream::go_over(socket, &mut output, &mut input);
            // These bytes are output of the process, not of the socket's stream.
            unread.clear();
        }
        let mut conversation = Conversation::new(output, input);
        conversation.unread(unread);
        let mut agent = RemoteAgent::new(host, conversation, last_words);
        let looked = match agent.greet().await {
            Ok(()) if agent.role() == Role::Server => return Ok(Started::Server(agent)),
            Ok(()) => {
                let ways = self.ways.to_vec();
                agent
                    .look(Look {
                        ways,
                        routed: false,
                    })
                    .await
            }
            Err(error) => Err(error),
        };
        match looked {
            Ok(facts) => Ok(Started::Agent(StartedAgent { agent, facts })),
            Err(error) => {
                let (_, _, input) = agent.into_stream().0.into_parts(Mode::default());
                input.close().await;
                Err(or_lost(self.connection, without_root(host, error, no_sudo)))
            }
        }
    }

    /// Connects to the agent's socket, if sshd permits it: sshd is faster with a socket than with a
    /// process's pipes.
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

/// The output before the preamble.
struct Met {
    /// The socket that the agent announced.
    socket: Option<AgentSocket>,
    /// Why the agent was started without sudo.
    no_sudo: Option<SudoRefusal>,
}

/// Reads the output up to the preamble.
async fn preamble(
    host: &str,
    opening: &mut Opening,
    way: &Way<'_>,
) -> Result<Met, RemoteAgentError> {
    let host = host.to_owned();
    let (mut begun, mut sudo) = (!way.begins, false);
    let (mut socket, mut no_sudo) = (None, None);
    loop {
        match opening.line().await {
            Ok(Line::Preamble) => return Ok(Met { socket, no_sudo }),
            Ok(Line::Socket(found)) => socket = Some(found),
            Ok(Line::OtherPreamble(version)) => return Err(other_stream(host, &version)),
            Ok(Line::Other(line)) => match line.strip_prefix(NO_SUDO) {
                _ if line == NONE => return Err(RemoteAgentError::NotInstalled { host }),
                Some(said) => no_sudo = Some(SudoRefusal::of(said)),
                None => {
                    begun |= line == BEGUN;
                    sudo |= line == SUDO;
                }
            },
            Err(NoLine::Ended) if sudo => {
                let said = opening.last_words().to_string();
                return Err(RemoteAgentError::Sudo { host, said });
            }
            Err(no_line) => {
                let said = what_came(opening, no_line);
                return Err(match begun {
                    true => RemoteAgentError::NotStarted {
                        host,
                        how: way.name.to_owned(),
                        said,
                    },
                    false => NoCommands { host, said }.into(),
                });
            }
        }
    }
}

/// The error of an agent that may not do its work, with the reason why it was not started as root.
fn without_root(
    host: &str,
    error: RemoteAgentError,
    no_sudo: Option<SudoRefusal>,
) -> RemoteAgentError {
    match (&error, no_sudo) {
        (
            RemoteAgentError::Closed {
                reason: CloseReason::NotPermitted,
                ..
            },
            Some(sudo),
        ) => RemoteAgentError::NoPrivilege {
            host: host.to_owned(),
            sudo,
        },
        _ => error,
    }
}

/// The output of a process that is no agent, and how it ended.
pub(crate) fn what_came(opening: &Opening, no_line: NoLine) -> String {
    let printed = opening.printed();
    let printed = match printed.is_empty() {
        true => String::new(),
        false => format!("it printed \"{printed}\""),
    };
    match no_line {
        NoLine::TooMuch if printed.is_empty() => "it printed much and no line".to_owned(),
        NoLine::TooMuch => format!("{printed} and much more"),
        NoLine::Ended if printed.is_empty() => opening.last_words().to_string(),
        NoLine::Ended => format!("{printed}; {}", opening.last_words()),
    }
}

/// The error for an agent with another stream version.
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

/// The error, or the loss of the connection that explains it.
pub(crate) fn or_lost(connection: &Connection, error: RemoteAgentError) -> RemoteAgentError {
    match connection.end_reason() {
        Some(reason) => RemoteAgentError::Channel(ChannelError::Gone {
            host: connection.host().to_owned(),
            reason,
        }),
        None => error,
    }
}
