//! The requests of the distribution's ssh that are granted after the login, and those that are
//! refused.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, join};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::login::Login;
use super::requests::{RefusalCode, Request};
use super::test_lab::{Client, Ended, HANGS, Lab, until};
use crate::host::test_namespace;
use crate::types::{Mode, Unit, UnitRequest};

async fn lab() -> Lab {
    let lab = Lab::new().await;
    lab.known_key("key");
    lab
}

async fn next(login: &mut Login<String>) -> Request {
    let next = timeout(HANGS, login.requests.next()).await;
    next.expect("no request").expect("the connection has ended")
}

/// A port without a listener.
async fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

/// Connects to a port of ssh once ssh listens.
async fn connect(port: u16) -> TcpStream {
    let connected = async {
        loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                Ok(stream) => return stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(HANGS, connected)
        .await
        .expect("ssh does not listen")
}

/// Sends data through `stream` to `other` and back, up to EOF in both directions.
async fn round_trip<A, B>(mut stream: A, mut other: B)
where
    A: AsyncReadExt + AsyncWriteExt + Unpin,
    B: AsyncReadExt + AsyncWriteExt + Unpin,
{
    let there = vec![1; 3_000_000];
    let back = vec![2; 3_000_000];
    let one = async {
        stream.write_all(&there).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut came = Vec::new();
        stream.read_to_end(&mut came).await.unwrap();
        came
    };
    let two = async {
        let mut came = Vec::new();
        other.read_to_end(&mut came).await.unwrap();
        other.write_all(&back).await.unwrap();
        other.shutdown().await.unwrap();
        came
    };
    let (came_back, came_there) = timeout(HANGS, async { tokio::join!(one, two) })
        .await
        .expect("data hangs");
    assert!(came_back == back && came_there == there);
}

/// ssh's end when none of its requests is granted.
async fn refused(lab: &Lab, client: Client) -> Ended {
    let login = lab.login().await;
    let ended = client.ended().await;
    let reason = timeout(HANGS, login.connection.ended()).await;
    reason.expect("the connection does not end");
    ended
}

#[tokio::test]
async fn there_is_no_shell_and_no_command() {
    let lab = lab().await;
    let shell = refused(&lab, lab.ssh(&["key"], &[])).await;
    assert_eq!(shell.code, Some(255));
    let said = shell.errors;
    assert!(said.contains("shell request failed on channel 0"), "{said}");

    let command = refused(&lab, lab.ssh_command(&["key"], &["true"])).await;
    assert_eq!(command.code, Some(255));
    let said = command.errors;
    assert!(said.contains("exec request failed on channel 0"), "{said}");

    let terminal = refused(&lab, lab.ssh(&["key"], &["-tt"])).await;
    let said = terminal.errors;
    assert!(said.contains("PTY allocation request failed"), "{said}");

    let arguments = ["-A", "-o", "SetEnv=LANG=C"];
    let forwarded = refused(&lab, lab.ssh(&["key"], &arguments)).await;
    assert_eq!(forwarded.code, Some(255));
}

#[tokio::test]
async fn what_nobody_gets_is_told_of_for_the_log() {
    let lab = lab().await;
    for (arguments, expected) in [
        (&["-o", "SetEnv=TZ=UTC"][..], "env TZ"),
        (&["-tt"], "pty-req"),
        (&["-T"], "shell"),
        (&["-o", "RemoteCommand=rm -rf", "-T"], "exec rm -rf"),
    ] {
        let client = lab.ssh(&["key"], arguments);
        let mut login = lab.login().await;
        let Request::Unserved { what, why } = next(&mut login).await else {
            panic!("another request");
        };
        assert_eq!((what.as_str(), why.as_str()), (expected, "not served here"));
        client.ended().await;
    }
}

#[tokio::test]
async fn sftp_is_a_subsystem_that_can_be_refused() {
    let lab = lab().await;
    let sftp = lab.sftp(&["key"]);
    let mut login = lab.login().await;
    let Request::Subsystem { name, reply } = next(&mut login).await else {
        panic!("another request");
    };
    assert_eq!(name, "sftp");
    reply.refuse().await;
    let ended = sftp.ended().await;
    let said = ended.errors;
    assert!(
        said.contains("subsystem request failed on channel"),
        "{said}"
    );
    assert_eq!(ended.code, Some(255));
}

#[tokio::test]
async fn a_subsystem_carries_bytes_both_ways() {
    let lab = lab().await;
    let mut ssh = lab.ssh_with_pipes(&["key"], &["-s"], "sshvpn");
    let mut login = lab.login().await;
    let Request::Subsystem { name, reply } = next(&mut login).await else {
        panic!("another request");
    };
    assert_eq!(name, "sshvpn");
    let (output, mut input) = reply.accept().await;
    let sent = vec![7; 5_000_000];
    let (mut to, mut from) = ssh.pipes();
    let write = async {
        to.write_all(&sent).await.unwrap();
        drop(to);
    };
    let echo = async {
        while let Some(piece) = input.receive().await {
            output.send(piece).await.unwrap();
        }
        output.close(3).await;
    };
    let read = async {
        let mut came = Vec::new();
        from.read_to_end(&mut came).await.unwrap();
        came
    };
    let ((), (), came) = timeout(HANGS, async { tokio::join!(write, echo, read) })
        .await
        .expect("the subsystem hangs");
    assert!(came == sent);
    assert_eq!(ssh.ended().await.code, Some(3));
}

#[tokio::test]
async fn connections_are_forwarded_from_here_or_refused() {
    let lab = lab().await;
    let port = free_port().await;
    let forward = format!("{port}:target.example:4711");
    let mut ssh = lab.ssh(&["key"], &["-N", "-L", &forward]);
    let mut login = lab.login().await;
    let client = connect(port).await;
    let Request::Open {
        host,
        port: asked,
        originator,
        reply,
    } = next(&mut login).await
    else {
        panic!("another request");
    };
    assert_eq!((host.as_str(), asked), ("target.example", 4711));
    assert_eq!(originator.address, "127.0.0.1");
    let (input, output) = reply.accept().await;
    round_trip(client, join(input, output)).await;

    let mut client = connect(port).await;
    let Request::Open { reply, .. } = next(&mut login).await else {
        panic!("another request");
    };
    reply.refuse(RefusalCode::Prohibited, "not to there").await;
    let said = ssh.says("not to there").await;
    assert!(said.contains("administratively prohibited"), "{said}");
    assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);

    let _client = connect(port).await;
    let Request::Open { reply, .. } = next(&mut login).await else {
        panic!("another request");
    };
    reply.refuse(RefusalCode::ConnectFailed, "No route").await;
    let said = ssh.says("No route").await;
    assert!(said.contains("connect failed"), "{said}");
}

#[tokio::test]
async fn a_socks_client_is_served() {
    let lab = lab().await;
    let port = free_port().await;
    let _ssh = lab.ssh(&["key"], &["-N", "-D", &port.to_string()]);
    let mut login = lab.login().await;
    let mut client = connect(port).await;
    // SOCKS 4a: connect to port 80 of a name.
    let hello = b"\x04\x01\x00\x50\x00\x00\x00\x01\x00host.example\x00";
    client.write_all(hello).await.unwrap();
    let Request::Open {
        host, reply, port, ..
    } = next(&mut login).await
    else {
        panic!("another request");
    };
    assert_eq!((host.as_str(), port), ("host.example", 80));
    let (input, output) = reply.accept().await;
    let mut answer = [0; 8];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer[1], 90);
    round_trip(client, join(input, output)).await;
}

#[tokio::test]
async fn listeners_are_asked_for_and_their_connections_given_back() {
    let lab = lab().await;
    let target = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let forward = format!("0:127.0.0.1:{}", target.local_addr().unwrap().port());
    let mut ssh = lab.ssh(&["key"], &["-N", "-R", &forward]);
    let mut login = lab.login().await;
    let Request::Listen {
        address,
        port,
        reply,
    } = next(&mut login).await
    else {
        panic!("another request");
    };
    assert_eq!((address.as_str(), port), ("localhost", 0));
    assert!(reply.accept(4242));
    ssh.says("Allocated port 4242 for remote forward").await;
    let originator = SocketAddr::from(([192, 0, 2, 1], 5555));
    let opened = login
        .connection
        .open_forwarded("localhost", 4242, originator);
    let (opened, accepted) = tokio::join!(opened, target.accept());
    let (input, output) = opened.unwrap();
    round_trip(accepted.unwrap().0, join(input, output)).await;

    // The client refuses a connection for a listener that it did not request.
    let opened = login.connection.open_forwarded("localhost", 1, originator);
    let refused = timeout(HANGS, opened).await.expect("no answer");
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_listener_that_is_refused_fails_in_ssh() {
    let lab = lab().await;
    let arguments = ["-N", "-R", "8080:x:1", "-o", "ExitOnForwardFailure=yes"];
    let ssh = lab.ssh(&["key"], &arguments);
    let mut login = lab.login().await;
    let Request::Listen { reply, .. } = next(&mut login).await else {
        panic!("another request");
    };
    reply.refuse();
    let ended = ssh.ended().await;
    let said = ended.errors;
    assert!(said.contains("remote port forwarding failed"), "{said}");
    assert_eq!(ended.code, Some(255));
}

#[test]
fn the_tunnel_of_ssh_is_refused_with_a_reason_or_carries_frames() {
    test_namespace::run(async {
        test_namespace::ip("link set lo up");
        let lab = lab().await;
        let mut ssh = lab.ssh(&["key"], &["-N", "-v", "-w", "3:5"]);
        let mut login = lab.login().await;
        let Request::Tunnel { mode, unit, reply } = next(&mut login).await else {
            panic!("another request");
        };
        assert_eq!(mode, Mode::PointToPoint);
        assert_eq!(unit, UnitRequest::Unit(Unit::new(5).unwrap()));
        reply
            .refuse(RefusalCode::Prohibited, "no tunnel for you")
            .await;
        ssh.says("Remote: no tunnel for you").await;
        drop((ssh, login));

        let arguments = ["-N", "-o", "Tunnel=ethernet", "-w", "4:any"];
        let _ssh = lab.ssh(&["key"], &arguments);
        let mut login = lab.login().await;
        let Request::Tunnel { mode, unit, reply } = next(&mut login).await else {
            panic!("another request");
        };
        assert_eq!((mode, unit), (Mode::Ethernet, UnitRequest::Any));
        let (sender, mut receiver) = reply.accept().await;
        test_namespace::ip("link set tap4 up");
        // The kernel's own frames (router solicitations) come first.
        let frame = timeout(HANGS, receiver.receive()).await;
        assert!(frame.expect("no frame").unwrap().len() >= 14);
        let bytes = || test_namespace::ip("-s link show tap4");
        let before = bytes();
        sender.send(Bytes::from(vec![0xff; 500])).await.unwrap();
        until(|| bytes() != before).await;
    });
}

#[tokio::test]
async fn a_goodbye_reaches_ssh_with_its_reason() {
    let lab = lab().await;
    let ssh = lab.ssh(&["key"], &["-N"]);
    let login = lab.login().await;
    let started = std::time::Instant::now();
    login.connection.disconnect("the server is shut down").await;
    assert!(started.elapsed() < HANGS);
    let reason = login.connection.ended().await;
    assert_eq!(reason, "disconnected: the server is shut down");
    let ended = ssh.ended().await;
    let said = ended.errors;
    assert!(said.contains("the server is shut down"), "{said}");
}

#[tokio::test]
async fn the_end_of_ssh_is_noticed() {
    let lab = lab().await;
    let ssh = lab.ssh(&["key"], &["-N"]);
    let mut login = lab.login().await;
    drop(ssh);
    let reason = timeout(HANGS, login.connection.ended()).await;
    let reason = reason.expect("not noticed");
    // If ssh is killed before it has read everything, its kernel resets the connection.
    let [closed, reset] = ["the client closed", "the connection was lost"];
    assert!(
        reason.starts_with(closed) || reason.starts_with(reset),
        "{reason}"
    );
    assert!(login.requests.next().await.is_none());
}

#[tokio::test]
async fn a_connection_that_is_dropped_is_closed() {
    let lab = lab().await;
    let ssh = lab.ssh(&["key"], &["-N"]);
    let login = lab.login().await;
    drop(login.connection);
    assert_eq!(ssh.ended().await.code, Some(255));
}
