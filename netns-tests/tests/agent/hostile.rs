//! Hostile peers of a client and of an agent: whatever they send, the other side ends in bounded
//! time with a reason, and both hosts are as before.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   sshvpn up  ════════════ SSH ═══════════ sshd ─► a script that plays the agent
//!                                       a file ─► sshvpn agent
//! ```

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::carrier::{INSTALLED, install};
use netns_tests::program::vpn::{self, fails_clearly};
use netns_tests::{Before, Host, PATIENCE};

const PREAMBLE: &[u8] = b"sshvpn-agent/1\r\n";
const HELLO: &str = r#"{"type":"hello","version":1,"oldest":1,"software":"lab","features":[]}"#;
const FUTURE: &str = r#"{"type":"hello","version":9,"oldest":9,"software":"lab 9","features":[]}"#;
const SET_UP: &str = r#"{"type":"set-up","mode":"point-to-point","mtu":1500,"device":null,
    "addresses":[{"client":"10.99.0.1","agent":"10.99.0.2","prefix":30}],
    "forward":{"networks":["203.0.113.0/24"],"nat":true}}"#;

/// The client's limit for an agent's answer, and some margin.
const ANSWER_LIMIT: Duration = Duration::from_secs(30 + 15);

/// The bytes that a peer sends, in parts.
type Said<'a> = &'a [&'a [u8]];

/// A control message as a frame of the stream.
fn frame(json: &str) -> Vec<u8> {
    let length = u32::try_from(4 + json.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes()[..], &[0; 4], json.as_bytes()].concat()
}

/// Writes the parts to /run/lab/said of `host`.
fn says(host: &Host, parts: &[&[u8]]) -> Result<()> {
    fs::write(host.path("/run/lab/said"), parts.concat()).context("/run/lab/said")
}

/// Checks the output of an sshvpn: no panic, and of limited length.
fn is_short(stderr: &str) -> Result<()> {
    ensure!(!stderr.contains("panicked"), "{stderr}");
    ensure!(
        stderr.len() < 4000,
        "{} bytes of text: {stderr}",
        stderr.len()
    );
    Ok(())
}

/// Runs `up` with this shell line as the agent, which finds `said` in a file. It has to fail with
/// `parts` in its message.
fn remote_end(
    lab: &Direct,
    said: Said<'_>,
    script: &str,
    limit: Duration,
    parts: &[&str],
) -> Result<()> {
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    says(&lab.bastion, said)?;
    let command = vpn::command(&["--agent-command", script, "bastion"])?;
    let output = lab.laptop.spawn(&command)?.wait(limit)?;
    is_short(&output.stderr)?;
    fails_clearly(&output, Some(255), &[&["bastion"], parts].concat())
        .context(script.to_owned())?;
    before.is_back()
}

#[test]
fn a_remote_end_that_is_no_agent() -> Result<()> {
    let lab = topology::direct()?;
    let none = "started no agent";
    for (script, parts) in [
        ("true", &[none, "code 0"][..]),
        ("head -c 5000 /dev/urandom", &[none]),
        ("cat /dev/urandom", &[none, "much more"]),
        ("yes 'sshvpn agent'", &[none, "much more"]),
        ("yes error | head -c 10000000 >&2", &[none, "error"]),
        (
            "printf 'sshvpn-agent/9\\r\\n'",
            &["no common protocol version", "the one here is older"],
        ),
    ] {
        remote_end(&lab, &[], script, PATIENCE, parts)?;
    }
    Ok(())
}

#[test]
fn a_remote_end_that_talks_nonsense() -> Result<()> {
    let lab = topology::direct()?;
    let (hello, future) = (frame(HELLO), frame(FUTURE));
    let half = hello.get(..20).context("a hello is longer")?;
    let (bad, early) = (frame("{\"type\":"), frame(r#"{"type":"closed","left":[]}"#));
    let send = "cat /run/lab/said";
    let stay = "cat /run/lab/said; cat >/dev/null";
    let protocol = "does not keep to the protocol";
    let cases: [(Said<'_>, &str, &[&str]); 9] = [
        (&[PREAMBLE], "cat /run/lab/said /dev/zero", &[protocol]),
        (&[PREAMBLE], "cat /run/lab/said /dev/urandom", &[protocol]),
        (&[PREAMBLE, half], send, &["the agent there is gone"]),
        (
            &[PREAMBLE, &future],
            stay,
            &["lab 9", "the one here is older: update it"],
        ),
        (&[PREAMBLE, &bad], stay, &[protocol]),
        (&[PREAMBLE, &early], stay, &[protocol, "'closed'"]),
        (&[PREAMBLE, &hello], send, &["the agent there is gone"]),
        (&[PREAMBLE, &hello, &hello], stay, &[protocol, "'hello'"]),
        (&[PREAMBLE, &hello, &bad], stay, &[protocol]),
    ];
    for (said, script, parts) in cases {
        remote_end(&lab, said, script, PATIENCE, parts)?;
    }
    Ok(())
}

/// Sends nothing, or never the answer.
#[test]
fn a_remote_end_that_never_comes_to_the_point() -> Result<()> {
    let lab = topology::direct()?;
    let (hello, pong) = (
        frame(HELLO),
        frame(r#"{"type":"pong","token":1}"#).repeat(1000),
    );
    says(&lab.bastion, &[PREAMBLE, &hello])?;
    fs::write(lab.bastion.path("/run/lab/pong"), pong)?;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    let silent = "cat >/dev/null";
    let polite = "cat /run/lab/said; while cat /run/lab/pong; do :; done";
    let start = |script| {
        let command = vpn::command(&["--agent-command", script, "bastion"])?;
        lab.laptop.spawn(&command)
    };
    let waiting = [start(silent)?, start(polite)?];
    for child in waiting {
        let output = child.wait(ANSWER_LIMIT)?;
        is_short(&output.stderr)?;
        fails_clearly(&output, Some(255), &["bastion", "no answer in 30 seconds"])?;
    }
    before.is_back()
}

/// Runs `sshvpn agent` with the output of `script` as input, where `said` is in a file; returns its
/// exit code and its output.
fn local_end(bastion: &Host, said: Said<'_>, script: &str) -> Result<(i32, String)> {
    let before = Before::of(&[bastion])?;
    says(bastion, said)?;
    let line = format!("{{ {script}; }} | {INSTALLED} agent | cat; exit ${{PIPESTATUS[1]}}");
    let output = bastion.run(&["bash", "-c", &line])?;
    is_short(&output.stderr).context(script.to_owned())?;
    ensure!([0, 1].contains(&output.code()), "{script}: {output:?}");
    before.is_back().context(script.to_owned())?;
    Ok((output.code(), output.stdout))
}

#[test]
fn a_local_end_that_talks_nonsense() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    let (hello, set_up) = (frame(HELLO), frame(SET_UP));
    let half = hello.get(..20).context("a hello is longer")?;
    let send = "cat /run/lab/said";
    let endless = "cat /run/lab/said /dev/zero";
    let noise = "cat /run/lab/said /dev/urandom";
    // The end of input without a request is an orderly end.
    let cases: [(Said<'_>, &str, i32, &str); 9] = [
        (&[], send, 0, ""),
        (&[half], send, 0, ""),
        (&[], endless, 1, "protocol"),
        (&[], noise, 1, "protocol"),
        (&[&frame(FUTURE)], send, 1, "\"version\""),
        (&[&set_up], send, 1, "before hello"),
        (&[&hello, &hello], send, 1, "before set-up"),
        (&[&hello, &frame("[]")], send, 1, "protocol"),
        (&[&hello], noise, 1, "protocol"),
    ];
    for (said, script, code, part) in cases {
        let (found, answer) = local_end(&lab.bastion, said, script)?;
        ensure!(
            found == code && answer.contains(part),
            "{script}: code {found}: {answer}"
        );
    }
    Ok(())
}

/// The client has its tunnel, and then disappears or violates the protocol: all is undone.
#[test]
fn a_local_end_that_goes_wrong_once_it_is_up() -> Result<()> {
    let lab = topology::direct()?;
    let bastion = &lab.bastion;
    install(bastion)?;
    bastion.sh("ip route add 203.0.113.0/24 via 192.0.2.1")?;
    let (hello, set_up) = (frame(HELLO), frame(SET_UP));
    let bad = [&[0, 0, 0, 9, 0, 0, 0, 2][..], b"\x45garb"].concat();
    for (after, tail, code) in [
        (&[][..], "", 0),
        (&hello, "", 1),
        (&frame("{}"), "", 1),
        (&bad, "", 0),
        (&[], "/dev/urandom", 1),
        (&[0xff; 8], "", 1),
    ] {
        let script = format!("cat /run/lab/said {tail}");
        let (found, answer) = local_end(bastion, &[&hello, &set_up, after], &script)?;
        ensure!(answer.contains("\"ready\""), "it did not come up: {answer}");
        ensure!(found == code, "{after:?} {tail}: code {found}: {answer}");
    }
    Ok(())
}

/// Set-up requests that no host should fulfil.
#[test]
fn a_local_end_that_asks_for_what_cannot_be() -> Result<()> {
    let lab = topology::direct()?;
    install(&lab.bastion)?;
    let hello = frame(HELLO);
    for (good, wicked) in [
        ("\"10.99.0.2\"", "\"127.0.0.1\""),
        ("\"10.99.0.2\"", "\"10.99.0.1\""),
        ("\"10.99.0.1\"", "\"224.0.0.1\""),
        ("\"10.99.0.1\"", "\"fd00::1\""),
        ("null", "\"../../etc\""),
        ("null", "\"wan\""),
        ("null", "\"all\""),
        ("1500", "70000"),
        ("1500", "5"),
        ("point-to-point", "broadcast"),
        ("203.0.113.0/24", "203.0.113.0/99"),
    ] {
        let set_up = SET_UP.replace(good, wicked);
        ensure!(set_up != SET_UP, "{good} is not in it");
        let (code, answer) = local_end(
            &lab.bastion,
            &[&hello, &frame(&set_up)],
            "cat /run/lab/said",
        )?;
        ensure!(
            code == 1 && answer.contains("\"close\""),
            "{wicked}: code {code}: {answer}"
        );
        ensure!(!answer.contains("\"ready\""), "{wicked}: {answer}");
    }
    Ok(())
}
