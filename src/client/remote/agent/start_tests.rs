//! Starting an agent on servers without one, with other output before it, or with other answers;
//! and the shell line that finds it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tokio::time::timeout;

use super::start::{AgentRequest, START, Started, StartedAgent, meet_server, start};
use super::*;
use crate::client::remote::shell::quote;
use crate::frame::control::{AgentFacts, CloseReason, Hello, Message, PREAMBLE, Permissions};
use crate::frame::stream::encode_control;
use crate::ssh::client::wire_server::{Wire, WireServer, about, confirmation, data, number};
use crate::ssh::test_settings::write_program;

/// Far longer than any step here takes; a test that reaches it hangs.
const HANGS: Duration = Duration::from_secs(20);

type Served = std::io::Result<()>;

fn plain() -> AgentRequest {
    AgentRequest::default()
}

fn by_command() -> AgentRequest {
    AgentRequest {
        command: Some("run it".to_owned()),
        ..plain()
    }
}

/// The result of starting at a server that behaves as `server`.
async fn started(
    request: AgentRequest,
    server: impl AsyncFnOnce(&mut Wire) -> Served,
) -> Result<Started, RemoteAgentError> {
    let listening = WireServer::bind().await;
    let (connection, mut wire) = listening.connect().await;
    let serve = async {
        server(&mut wire).await.unwrap();
        wire
    };
    let both = async { tokio::join!(start(&connection, &request, |_| {}), serve) };
    timeout(HANGS, both).await.expect("it hangs").0
}

/// The error of starting at a server that behaves as `server`.
async fn error_of(
    request: AgentRequest,
    server: impl AsyncFnOnce(&mut Wire) -> Served,
) -> RemoteAgentError {
    started(request, server).await.err().expect("it started")
}

/// Refuses the subsystem, which the client requests first.
async fn no_subsystem(wire: &mut Wire) -> Served {
    let channel = wire.confirm_next().await?;
    let asked = wire.wait_for(number::CHANNEL_REQUEST).await?;
    assert!(asked.ends_with(b"sshvpn"), "{asked:?}");
    wire.send(&about(number::CHANNEL_FAILURE, channel)).await
}

/// Accepts the shell line; returns its channel.
async fn line(wire: &mut Wire) -> std::io::Result<u32> {
    no_subsystem(wire).await?;
    let (channel, command) = wire.start_next().await?;
    assert!(command.contains("sshvpn-start"), "{command}");
    Ok(channel)
}

/// Sends a process's output and standard error, and its end.
async fn ends(wire: &mut Wire, channel: u32, text: &str, errors: &str, code: u32) -> Served {
    wire.put(&data(channel, text)).await?;
    let extended = about(number::CHANNEL_EXTENDED_DATA, channel).word(1);
    wire.put(&extended.string(errors)).await?;
    let status = about(number::CHANNEL_REQUEST, channel).string("exit-status");
    wire.put(&status.byte(0).word(code)).await?;
    wire.put(&about(number::CHANNEL_EOF, channel)).await?;
    wire.send(&about(number::CHANNEL_CLOSE, channel)).await
}

fn frame(message: &Message) -> Vec<u8> {
    encode_control(&message.to_json().unwrap())
        .unwrap()
        .to_vec()
}

fn facts() -> Message {
    Message::AgentFacts(AgentFacts {
        login: "root".to_owned(),
        networks: Vec::new(),
        ipv6: true,
        ways: Default::default(),
        permissions: Permissions::all(),
        routed: None,
    })
}

/// An agent's preamble and hello.
fn first_words(hello: Hello) -> Vec<u8> {
    [PREAMBLE, &frame(&Message::Hello(hello)), &frame(&facts())].concat()
}

#[tokio::test]
async fn a_subsystem_is_taken_first() {
    let done = started(plain(), async |wire| {
        let (channel, name) = wire.start_next().await?;
        assert!(name.ends_with("sshvpn") && !name.contains("exec"));
        wire.send(&data(channel, first_words(Hello::ours()))).await
    })
    .await
    .unwrap();
    let Started::Agent(StartedAgent { agent, facts }) = done else {
        panic!("it is a server")
    };
    assert_eq!(agent.software(), Hello::ours().software);
    assert_eq!(facts.login, "root");
}

#[tokio::test]
async fn without_subsystem_a_shell_starts_it_behind_noise() {
    let done = started(plain(), async |wire| {
        let channel = line(wire).await?;
        wire.send(&data(channel, "Last login: today\r\nsshvpn-start: sudo\n"))
            .await?;
        for byte in first_words(Hello::ours()).chunks(3) {
            wire.put(&data(channel, byte)).await?;
        }
        wire.flush().await
    });
    assert!(done.await.is_ok());
}

const SOCKET: &str = "sshvpn-socket: /run/x/socket 0123456789abcdef0123456789abcdef\r\n";

/// Starts an agent that announces a socket; returns the process's channel and the one in which
/// the client requests the socket.
async fn with_socket(wire: &mut Wire) -> std::io::Result<(u32, u32)> {
    let (process, _) = wire.start_next().await?;
    let words = [SOCKET.as_bytes(), PREAMBLE].concat();
    wire.send(&data(process, words)).await?;
    let (socket, kind) = wire.open_request().await?;
    assert_eq!(kind, "direct-streamlocal@openssh.com");
    Ok((process, socket))
}

#[tokio::test]
async fn an_agent_is_talked_to_by_its_socket() {
    let done = started(plain(), async |wire| {
        let (process, socket) = with_socket(wire).await?;
        wire.send(&confirmation(socket, 1 << 20, 1 << 15)).await?;
        let word = wire.wait_for(number::CHANNEL_DATA).await?;
        assert!(word.ends_with(b"0123456789abcdef"), "{word:?}");
        let hello = wire.wait_for(number::CHANNEL_DATA).await?;
        assert_eq!(hello[1..5], word[1..5], "two channels are spoken to");
        // Further output of the process is not part of the stream.
        wire.put(&data(process, "more\n")).await?;
        let hello = frame(&Message::Hello(Hello::ours()));
        wire.put(&data(socket, hello)).await?;
        wire.put(&about(number::CHANNEL_EOF, process)).await?;
        wire.send(&data(socket, frame(&facts()))).await
    });
    let Started::Agent(StartedAgent { facts, .. }) = done.await.unwrap() else {
        panic!("it is a server")
    };
    assert_eq!(facts.login, "root");
}

#[tokio::test]
async fn where_the_socket_is_refused_the_process_is_talked_to() {
    let done = started(plain(), async |wire| {
        let (process, socket) = with_socket(wire).await?;
        let failure = about(number::CHANNEL_OPEN_FAILURE, socket).word(1);
        wire.send(&failure.string("open failed").string("")).await?;
        wire.wait_for(number::CHANNEL_DATA).await?;
        let words = [&frame(&Message::Hello(Hello::ours())), &frame(&facts())[..]].concat();
        wire.send(&data(process, words)).await
    });
    assert!(matches!(done.await, Ok(Started::Agent(_))));
}

#[tokio::test]
async fn a_socket_that_takes_nothing_is_passed_over() {
    let done = started(plain(), async |wire| {
        let (process, socket) = with_socket(wire).await?;
        wire.send(&confirmation(socket, 0, 1 << 15)).await?;
        let hello = wire.wait_for(number::CHANNEL_DATA).await?;
        assert_eq!(hello[1..5], process.to_be_bytes());
        let words = [frame(&Message::Hello(Hello::ours())), frame(&facts())].concat();
        wire.send(&data(process, words)).await
    });
    assert!(matches!(done.await, Ok(Started::Agent(_))));
}

#[tokio::test]
async fn a_socket_that_ends_is_the_end_of_the_agent() {
    let error = error_of(by_command(), async |wire| {
        let (process, socket) = with_socket(wire).await?;
        wire.send(&confirmation(socket, 1 << 20, 1 << 15)).await?;
        wire.wait_for(number::CHANNEL_DATA).await?;
        wire.put(&about(number::CHANNEL_EOF, socket)).await?;
        ends(wire, process, "", "it broke\n", 3).await
    })
    .await;
    let text = error.to_string();
    assert!(text.contains("it broke (it ended with code 3)"), "{text}");
}

#[tokio::test]
async fn a_host_without_sshvpn_is_told_apart() {
    let error = error_of(plain(), async |wire| {
        let channel = line(wire).await?;
        ends(wire, channel, "motd\nsshvpn-start: none\n", "", 127).await
    })
    .await;
    assert!(matches!(error, RemoteAgentError::NotInstalled { .. }));
    let text = error.to_string();
    assert_eq!(
        text,
        "no sshvpn at server (install it there, or use --push)"
    );
    assert!(!error.lost_connection());
}

#[tokio::test]
async fn a_subsystem_that_does_not_work_is_the_reason() {
    let error = error_of(plain(), async |wire| {
        let (channel, _) = wire.start_next().await?;
        let missing = "/usr/bin/sshvpn: not found\n";
        ends(wire, channel, "", missing, 127).await?;
        let (channel, _) = wire.start_next().await?;
        ends(wire, channel, "sshvpn-start: none\n", "", 127).await
    })
    .await;
    let text = error.to_string();
    assert!(
        text.contains("the subsystem 'sshvpn' started no agent"),
        "{text}"
    );
    assert!(
        text.contains("not found (it ended with code 127)"),
        "{text}"
    );
}

/// A subsystem runs as the login; the shell line may become root.
#[tokio::test]
async fn a_subsystem_that_may_do_nothing_is_not_the_last_try() {
    let done = started(plain(), async |wire| {
        let (channel, _) = wire.start_next().await?;
        let close = Message::Close {
            reason: CloseReason::NotPermitted,
            text: "needs root".to_owned(),
        };
        let hello = frame(&Message::Hello(Hello::ours()));
        let words = [PREAMBLE, &hello, &frame(&close)].concat();
        wire.send(&data(channel, words)).await?;
        wire.wait_for(number::CHANNEL_CLOSE).await?;
        let (channel, _) = wire.start_next().await?;
        wire.send(&data(channel, first_words(Hello::ours()))).await
    });
    assert!(done.await.is_ok());
}

#[tokio::test]
async fn a_refusal_by_sudo_is_quoted() {
    let error = error_of(plain(), async |wire| {
        let channel = line(wire).await?;
        let refusal = "sudo: a \x1b[2Jpassword is required\n";
        ends(wire, channel, "sshvpn-start: sudo\n", refusal, 1).await
    })
    .await;
    assert!(matches!(error, RemoteAgentError::Sudo { .. }));
    let text = error.to_string();
    assert!(text.contains("sudo: a [2Jpassword is required"), "{text}");
}

#[tokio::test]
async fn noise_without_an_agent_is_quoted() {
    let error = error_of(plain(), async |wire| {
        let channel = line(wire).await?;
        let noise = "\x1b]0;x\x07This account is\r\n currently not available.\n";
        ends(wire, channel, noise, "bye\n", 1).await
    })
    .await
    .to_string();
    let said =
        "it printed \"]0;xThis account is; currently not available.\"; bye (it ended with code 1)";
    assert!(
        error.contains(said) && error.contains("runs no commands"),
        "{error}"
    );

    let flood = error_of(by_command(), async |wire| {
        let (channel, _) = wire.start_next().await?;
        for _ in 0..5 {
            wire.put(&data(channel, "yes\n".repeat(4000))).await?;
        }
        wire.flush().await?;
        // A process that is no agent is closed.
        wire.wait_for(number::CHANNEL_CLOSE).await.map(drop)
    })
    .await
    .to_string();
    assert!(
        flood.contains("and much more") && flood.len() < 500,
        "{flood}"
    );
}

#[tokio::test]
async fn an_own_command_is_the_only_try() {
    let error = error_of(by_command(), async |wire| {
        let (channel, command) = wire.start_next().await?;
        assert!(command.ends_with("run it"), "{command}");
        ends(wire, channel, "", "run: not found\n", 127).await
    })
    .await
    .to_string();
    assert!(
        error.contains("'run it' started no agent: run: not found"),
        "{error}"
    );
}

#[tokio::test]
async fn a_newer_agent_says_so_by_hello_or_by_its_stream() {
    let newer = Hello {
        version: 9,
        oldest: 8,
        software: "sshvpn 7.0".to_owned(),
        ..Hello::ours()
    };
    let words = first_words(newer);
    let by_hello = error_of(plain(), async |wire| {
        let (channel, _) = wire.start_next().await?;
        wire.send(&data(channel, words)).await?;
        wire.wait_for(number::CHANNEL_DATA).await?;
        let closed = Message::Closed { left: Vec::new() };
        wire.send(&data(channel, frame(&closed))).await
    });
    let by_stream = error_of(plain(), async |wire| {
        let (channel, _) = wire.start_next().await?;
        wire.send(&data(channel, "sshvpn-agent/2\r\nwhatever"))
            .await
    });
    for (error, theirs) in [
        (by_hello.await, "sshvpn 7.0"),
        (by_stream.await, "stream version 2"),
    ] {
        let text = error.to_string();
        assert!(
            text.contains(theirs) && text.contains("the one here is older"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_lost_connection_is_no_missing_agent() {
    let listening = WireServer::bind().await;
    let (connection, mut wire) = listening.connect().await;
    let request = plain();
    let serve = async {
        wire.start_next().await.unwrap();
        drop(wire);
    };
    let both = async { tokio::join!(start(&connection, &request, |_| {}), serve) };
    let error = timeout(HANGS, both)
        .await
        .expect("it hangs")
        .0
        .err()
        .unwrap();
    assert!(error.lost_connection(), "{error}");
}

#[tokio::test]
async fn a_process_that_says_nothing_is_given_up() {
    let listening = WireServer::bind().await;
    let (connection, mut wire) = listening.connect().await;
    let request = by_command();
    let silent = async {
        wire.start_next().await.unwrap();
        // From here on the paused clock advances when every task waits.
        tokio::time::pause();
        wire.drain().await;
    };
    let error = tokio::select! {
        started = start(&connection, &request, |_| {}) => started.err().unwrap(),
        () = silent => panic!("the connection ended"),
    };
    tokio::time::resume();
    let text = "server: cannot start an agent there: no answer in 30 seconds";
    assert_eq!(error.to_string(), text);
}

#[tokio::test]
async fn a_subsystem_that_says_nothing_is_passed_over_soon() {
    let listening = WireServer::bind().await;
    let (connection, mut wire) = listening.connect().await;
    let request = plain();
    let late = async {
        let (_, name) = wire.start_next().await.unwrap();
        assert!(name.ends_with("sshvpn"), "{name}");
        let before = tokio::time::Instant::now();
        tokio::time::pause();
        let (channel, command) = wire.start_next().await.unwrap();
        tokio::time::resume();
        assert!(command.contains("sshvpn-start"), "{command}");
        let waited = before.elapsed().as_secs();
        assert!((9..=11).contains(&waited), "{waited} s");
        wire.send(&data(channel, first_words(Hello::ours())))
            .await
            .unwrap();
        wire
    };
    let both = async { tokio::join!(start(&connection, &request, |_| {}), late) };
    let (started, _wire) = both.await;
    assert!(matches!(started, Ok(Started::Agent(_))));
}

#[tokio::test]
async fn a_subsystem_that_says_nothing_is_the_reason() {
    let listening = WireServer::bind().await;
    let (connection, mut wire) = listening.connect().await;
    let request = plain();
    let none = async {
        wire.start_next().await.unwrap();
        tokio::time::pause();
        let (channel, _) = wire.start_next().await.unwrap();
        tokio::time::resume();
        ends(&mut wire, channel, "sshvpn-start: none\n", "", 127)
            .await
            .unwrap();
        wire
    };
    let both = async { tokio::join!(start(&connection, &request, |_| {}), none) };
    let (started, _wire) = both.await;
    let text =
        "server: cannot start an agent there as the subsystem 'sshvpn': no answer in 10 seconds";
    assert_eq!(started.err().unwrap().to_string(), text);
}

/// The result of greeting a server with this identification.
async fn met(
    identification: &'static str,
    server: impl AsyncFnOnce(&mut Wire) -> Served,
) -> Result<RemoteAgent, RemoteAgentError> {
    let listening = WireServer::bind_as(identification).await;
    let (connection, mut wire) = listening.connect().await;
    let serve = async {
        server(&mut wire).await.unwrap();
        wire
    };
    let both = async { tokio::join!(meet_server(&connection), serve) };
    timeout(HANGS, both).await.expect("it hangs").0
}

fn server_hello() -> Vec<u8> {
    [PREAMBLE, &frame(&Message::Hello(Hello::of_server()))].concat()
}

#[tokio::test]
async fn a_server_is_met_by_its_subsystem_alone() {
    let server = met("SSH-2.0-sshvpn_1", async |wire| {
        let (channel, _) = wire.start_next().await?;
        wire.send(&data(channel, server_hello())).await
    });
    assert_eq!(server.await.ok().unwrap().role(), Role::Server);
    let refused = met("SSH-2.0-sshvpn_1", no_subsystem).await.err().unwrap();
    let text = refused.to_string();
    assert!(text.contains("has no tunnel for this login"), "{text}");
    let stock = met("SSH-2.0-OpenSSH_9.2p1", no_subsystem)
        .await
        .err()
        .unwrap();
    let text = stock.to_string();
    assert!(
        text.contains("no 'sshvpn serve' there, but OpenSSH_9.2p1"),
        "{text}"
    );
    let agent = met("SSH-2.0-OpenSSH_9.2p1", async |wire| {
        let (channel, _) = wire.start_next().await?;
        wire.send(&data(channel, first_words(Hello::ours())))
            .await?;
        let closed = frame(&Message::Closed { left: Vec::new() });
        wire.send(&data(channel, closed)).await
    });
    let text = agent.await.err().unwrap().to_string();
    assert!(text.contains("there, but sshvpn agent"), "{text}");
}

#[tokio::test]
async fn a_server_may_stand_behind_any_name() {
    let done = started(plain(), async |wire| {
        let (channel, _) = wire.start_next().await?;
        wire.send(&data(channel, server_hello())).await
    });
    assert!(matches!(done.await, Ok(Started::Server(_))));
}

/// A host's programs, in their own folder.
struct Programs(tempfile::TempDir);

impl Programs {
    fn of(uid: u32) -> Self {
        let programs = Programs(tempfile::tempdir().unwrap());
        programs.add("id", &format!("echo {uid}"));
        programs
    }

    fn add(&self, name: &str, script: &str) {
        write_program(&self.0.path().join(name), script);
    }

    fn with_sshvpn(self) -> Self {
        self.add("sshvpn", "echo \"as $(id -u): $*\"; exec /bin/cat");
        self
    }

    /// Runs the line in a login shell.
    fn start(&self, shell: &[&str]) -> String {
        use std::io::Write;
        let mut child = Command::new(shell[0])
            .args(&shell[1..])
            .arg("-c")
            .arg(format!("exec /bin/sh -c {}", quote(START)))
            .env("PATH", self.0.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // It may have ended already.
        let _ = child.stdin.take().unwrap().write_all(b"input\n");
        let output = child.wait_with_output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The line's first output.
const BEGUN: &str = "\nsshvpn-start: begun\n";

const SHELLS: [&[&str]; 3] = [
    &["/bin/dash"],
    &["/bin/bash", "--posix"],
    &["/bin/busybox", "sh"],
];

#[test]
fn any_login_shell_can_hand_the_line_on() {
    assert!(!START.contains(['\'', '!', '\n']));
    assert!(
        !Path::new("/usr/local/sbin/sshvpn").exists(),
        "the tests need a host without"
    );
    for shell in SHELLS {
        let none = Programs::of(0).start(shell);
        assert_eq!(none, format!("{BEGUN}sshvpn-start: none\n"));
        let root = Programs::of(0).with_sshvpn();
        root.add("sudo", "echo not needed");
        assert_eq!(root.start(shell), format!("{BEGUN}as 0: agent\ninput\n"));
        let alone = Programs::of(7).with_sshvpn();
        assert_eq!(
            alone.start(shell),
            format!("{BEGUN}sshvpn-start: no sudo\nas 7: agent\ninput\n")
        );
    }
}

#[test]
fn sudo_is_used_where_it_allows_all_or_this_one_command() {
    // Consumes its input, as a sudo that makes a terminal may.
    let run = "shift; echo \"sudo: $*\"; exec \"$@\"";
    let all = format!("case \"$*\" in \"-n true\") /bin/cat >/dev/null;; *) {run};; esac");
    let one = format!(
        "case \"$*\" in \"-n true\") exit 1;; \"-n -l \"*\"/sshvpn agent\") echo yes;; *) {run};; esac"
    );
    let none = "echo it; echo may not >&2; exit 1".to_owned();
    for (sudo, used) in [(all, true), (one, true), (none, false)] {
        let host = Programs::of(7).with_sshvpn();
        host.add("sudo", &sudo);
        let said = host.start(SHELLS[0]);
        let program = host.0.path().join("sshvpn");
        let before = match used {
            true => format!("sshvpn-start: sudo\nsudo: {} agent\n", program.display()),
            false => "sshvpn-start: no sudo it may not\n".to_owned(),
        };
        let expected = format!("{BEGUN}{before}as 7: agent\ninput\n");
        assert_eq!(said, expected, "{sudo}");
    }
}
