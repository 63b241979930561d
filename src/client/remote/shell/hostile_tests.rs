//! Commands on a remote host that lies, floods or stays silent: an error within the time limit,
//! bounded memory, and a tunnel that keeps running.

use std::fmt::Write;
use std::time::{Duration, Instant};

use super::facts::Privilege;
use super::steps::Step;
use super::*;
use crate::ssh::client::wire_server::{Wire, WireServer, about, data, number};

/// Far longer than any step here takes; a test that reaches it hangs.
const HANGS: Duration = Duration::from_secs(20);

fn step() -> Step {
    Step {
        what: "do it".to_owned(),
        undo: vec!["undo $HOLDER".to_owned()],
        command: "do".to_owned(),
    }
}

/// Runs `client` on a connection to a server that behaves as `server`.
async fn between<T, W>(
    client: impl AsyncFnOnce(&Connection) -> T,
    server: impl AsyncFnOnce(&mut Wire) -> std::io::Result<W>,
) -> T {
    let listening = WireServer::bind().await;
    let (connection, mut wire) = listening.connect().await;
    let serve = async {
        server(&mut wire).await.unwrap();
        wire
    };
    let both = async { tokio::join!(client(&connection), serve) };
    timeout(HANGS, both).await.expect("a call hangs").0
}

/// The error of a client whose server stays silent after `server`, on a paused clock.
async fn error_of_silence<T>(
    client: impl AsyncFnOnce(&Connection) -> Result<T, RemoteShellError>,
    server: impl AsyncFnOnce(&mut Wire) -> std::io::Result<()>,
) -> String {
    let listening = WireServer::bind().await;
    let (connection, mut wire) = listening.connect().await;
    let serve = async {
        server(&mut wire).await.unwrap();
        // From here on the paused clock advances when every task waits.
        tokio::time::pause();
        wire.drain().await;
    };
    let client = client(&connection);
    let error = tokio::select! {
        result = client => result.err().expect("it succeeded").to_string(),
        () = serve => panic!("the connection ended"),
    };
    tokio::time::resume();
    error
}

async fn started(wire: &mut Wire) -> std::io::Result<u32> {
    let (channel, _) = wire.start_next().await?;
    while !wire
        .wait_for(number::CHANNEL_DATA)
        .await?
        .ends_with(b"\nsshvpn-end\n")
    {}
    // A startup file may print anything first, also lines of the script's own.
    let noise = "Welcome\nready 5\nundone\nok\n".repeat(100);
    let begun = format!("{noise}no line end\nsshvpn-begin\nready 77\n");
    wire.send(&data(channel, begun)).await?;
    Ok(channel)
}

async fn hold(connection: &Connection) -> Result<Holder, RemoteShellError> {
    Holder::start(connection, Privilege::Root).await
}

#[tokio::test]
async fn a_step_is_noted_then_done() {
    let client = async |connection: &Connection| {
        let mut holder = hold(connection).await.unwrap();
        let first = holder.step(&step()).await.unwrap();
        let second = holder.step(&step()).await.unwrap_err().to_string();
        (first, second, holder.finish().await)
    };
    let (first, second, undone) = between(client, async |wire| {
        let channel = started(wire).await?;
        let asked = wire.wait_for(number::CHANNEL_DATA).await?;
        assert!(asked.ends_with(b"U undo 77\nD do\n"));
        // In small pieces, as a stream may come.
        wire.send(&data(channel, "o")).await?;
        wire.send(&data(channel, "k it is \n")).await?;
        wire.wait_for(number::CHANNEL_DATA).await?;
        wire.send(&data(channel, "no \x1b[2Jway\n")).await?;
        wire.wait_for(number::CHANNEL_EOF).await?;
        wire.send(&data(channel, "undone\n")).await
    })
    .await;
    assert_eq!(first, "it is");
    assert_eq!(second, "server: cannot do it: [2Jway");
    assert!(undone);
}

#[tokio::test]
async fn a_command_of_two_lines_is_not_sent() {
    let client = async |connection: &Connection| {
        let mut holder = hold(connection).await.unwrap();
        let command = "echo\nD reboot".to_owned();
        holder.step(&Step { command, ..step() }).await
    };
    let error = between(client, started).await.unwrap_err().to_string();
    assert!(error.contains("more than one line"), "{error}");
}

/// The remote host sends lines while the client waits for no answer.
#[tokio::test]
async fn a_chatty_holder_does_not_hold_up_the_tunnel() {
    const MESSAGES: usize = 1000;
    let client = async |connection: &Connection| {
        let mut holder = hold(connection).await.unwrap();
        let unit = crate::types::UnitRequest::Any;
        let opened = connection.open_tunnel(Mode::PointToPoint, unit).await;
        let (_sender, mut frames) = opened.unwrap();
        // Comes after all these lines.
        let frame = frames.receive().await.unwrap();
        let answer = holder.step(&step()).await.unwrap();
        assert!(holder.answers.kept() <= 64);
        (frame, answer)
    };
    let (frame, answer) = between(client, async |wire| {
        let holder = started(wire).await?;
        let tunnel = wire.confirm_next().await?;
        for _ in 0..MESSAGES {
            wire.put(&data(holder, "ok\n")).await?;
            let errors = about(number::CHANNEL_EXTENDED_DATA, holder).word(1);
            wire.put(&errors.string(vec![b'e'; 32768])).await?;
            wire.put(&data(holder, vec![b'o'; 32768])).await?;
        }
        wire.put(&data(holder, "\n")).await?;
        wire.send(&data(tunnel, "frame")).await?;
        wire.wait_for(number::CHANNEL_DATA).await?;
        wire.send(&data(holder, "ok at last\n")).await
    })
    .await;
    assert_eq!(frame, "frame");
    assert!(answer.is_empty() || answer == "at last", "{answer}");
}

#[tokio::test]
async fn a_holder_that_ends_in_a_step_is_an_error() {
    for end in [number::CHANNEL_EOF, number::CHANNEL_CLOSE] {
        let client = async |connection: &Connection| {
            let mut holder = hold(connection).await.unwrap();
            let failed = holder.step(&step()).await.unwrap_err().to_string();
            (failed, holder.finish().await)
        };
        let (error, undone) = between(client, async |wire| {
            let channel = started(wire).await?;
            wire.wait_for(number::CHANNEL_DATA).await?;
            wire.put(&data(channel, "ok but not a li")).await?;
            wire.put(&about(end, channel)).await?;
            wire.send(&about(number::CHANNEL_CLOSE, channel)).await
        })
        .await;
        assert!(error.contains("ended"), "{error}");
        assert!(!undone);
    }
}

#[tokio::test]
async fn strange_answers_are_errors_and_short() {
    let long = format!("{}\n", "?".repeat(200_000));
    for strange in ["\n", "okay\n", "\u{fffd}\n", "ready 5\n", &long] {
        let client = async |connection: &Connection| {
            let mut holder = hold(connection).await.unwrap();
            holder.step(&step()).await.unwrap_err().to_string()
        };
        let error = between(client, async |wire| {
            let channel = started(wire).await?;
            wire.wait_for(number::CHANNEL_DATA).await?;
            for part in strange.as_bytes().chunks(32768) {
                wire.send(&data(channel, part)).await?;
            }
            Ok(())
        })
        .await;
        assert!(
            error.contains("unexpected answer") && error.len() < 400,
            "{error}"
        );
    }
}

#[tokio::test]
async fn silence_ends_every_call() {
    let never_ready = async |wire: &mut Wire| {
        let (channel, _) = wire.start_next().await?;
        for _ in 0..1000 {
            wire.put(&data(
                channel,
                "recovered 5\nready or not\nready 99999999999\n",
            ))
            .await?;
        }
        wire.flush().await
    };
    let error = error_of_silence(hold, never_ready).await;
    assert!(error.contains("no answer in 60 seconds"), "{error}");

    let stepping = async |connection: &Connection| {
        let mut holder = hold(connection).await?;
        holder.step(&step()).await
    };
    let never_done = async |wire: &mut Wire| {
        started(wire).await?;
        wire.wait_for(number::CHANNEL_DATA).await.map(drop)
    };
    let error = error_of_silence(stepping, never_done).await;
    assert_eq!(error, "server: cannot do it: no answer in 30 seconds");

    let probing = async |connection: &Connection| probe(connection, &[]).await;
    let endless_line = async |wire: &mut Wire| {
        let (channel, _) = wire.start_next().await?;
        for _ in 0..100 {
            wire.put(&data(channel, vec![b'x'; 32768])).await?;
        }
        wire.flush().await
    };
    let error = error_of_silence(probing, endless_line).await;
    assert!(error.contains("no answer in 60 seconds"), "{error}");

    let asking = async |connection: &Connection| opened_unit(connection, Mode::Ethernet).await;
    let error = error_of_silence(asking, async |wire| wire.start_next().await.map(drop)).await;
    assert!(error.contains("no answer in 30 seconds"), "{error}");

    let finishing = async |connection: &Connection| {
        let holder = hold(connection).await?;
        assert!(!holder.finish().await, "nobody said so");
        Err::<(), _>(failed("server", "wait", "enough"))
    };
    error_of_silence(finishing, async |wire| {
        started(wire).await?;
        wire.wait_for(number::CHANNEL_EOF).await.map(drop)
    })
    .await;
}

/// The result of `command` if the remote process prints `output` and ends.
async fn printing<T>(
    client: impl AsyncFnOnce(&Connection) -> Result<T, RemoteShellError>,
    output: &[u8],
) -> Result<T, RemoteShellError> {
    between(client, async |wire| {
        let (channel, _) = wire.start_next().await?;
        for part in output.chunks(32768) {
            wire.put(&data(channel, part)).await?;
        }
        wire.send(&about(number::CHANNEL_CLOSE, channel)).await
    })
    .await
}

#[tokio::test]
async fn a_probe_that_prints_anything_is_an_error_and_short() {
    let binary: Vec<u8> = (0..=255_u8).cycle().take(1 << 20).collect();
    let line = vec![b'x'; 3 << 20];
    let cut = b"system Linux\nip yes\ntun yes\nen";
    for output in [&b""[..], &binary, &line, cut] {
        let probing = async |connection: &Connection| probe(connection, &[]).await;
        let error = printing(probing, output).await.unwrap_err().to_string();
        assert!(
            error.contains("runs no commands") && error.len() < 1000,
            "{error}"
        );
        assert!(!error.chars().any(char::is_control), "{error:?}");
    }
}

#[tokio::test]
async fn only_a_device_of_the_mode_is_a_unit() {
    let long = "tun5,".repeat(900);
    let strange = [
        "",
        "\n",
        "tun",
        "tun-1",
        "tun+1",
        "tun 1",
        "tun1x",
        "tun99999999999",
        "tun2147483647",
        "tap0",
        "eth0",
        "../../x",
        "tun0,",
        "\x1b]0;x\x07",
        &long,
    ];
    for text in strange {
        assert_eq!(unit_in(text, Mode::PointToPoint), None, "{text:?}");
    }
    for (text, mode, unit) in [
        ("tun0\n", Mode::PointToPoint, 0),
        ("tun1,tun12\r\n", Mode::PointToPoint, 12),
        (" tap3 ", Mode::Ethernet, 3),
    ] {
        assert_eq!(unit_in(text, mode).map(Unit::get), Some(unit), "{text:?}");
    }
    let asking = async |connection: &Connection| opened_unit(connection, Mode::Ethernet).await;
    let wild = "\x1b]0;owned\x07".repeat(5000);
    let error = printing(asking, wild.as_bytes())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("SSH_TUNNEL") || error.len() > 300, "{error}");
    assert!(
        error.len() < 1000 && !error.chars().any(char::is_control),
        "{error:?}"
    );
}

/// As many entries of each kind as the probe may print.
#[test]
fn a_remote_end_full_of_devices_costs_no_time() {
    let mut text = String::from("system Linux\nuid 0\nip yes\ntun yes\n");
    let mut number = 0;
    while text.len() < PROBE_LIMIT {
        writeln!(text, "device tun{number} 0x1001 0 1500").unwrap();
        number += 1;
    }
    text.push_str("end\n");
    let begin = Instant::now();
    let facts = facts::parse("b", &text, "").unwrap();
    assert_eq!(facts.free_unit(Mode::PointToPoint).get(), number);
    let taken = begin.elapsed();
    assert!(taken < Duration::from_secs(5), "{taken:?}");
}
