//! The remote command beside a tunnel by `-w`: its streams and its end.
//!
//! ```text
//!   laptop wan 192.0.2.1 ──────────── 192.0.2.2 wan bastion
//!   client ═══════════════════ SSH ═══════════════════ sshd
//! ```

use anyhow::{Result, ensure};
use netns_tests::lab::topology;
use netns_tests::{Client, PATIENCE, until, with_each_client};

with_each_client!(
    puts_out_more_than_it_takes,
    hears_that_nobody_reads,
    writes_from_the_background,
    is_left_by_the_escape_character,
);

/// The command line of `client` with `-w any:any`, as words for a shell.
fn client_words(client: Client, more: &[&str]) -> Result<String> {
    let command = client.command(&[&["-w", "any:any"], more, &["bastion"]].concat())?;
    Ok(command.join(" "))
}

/// More input than fits a window; the command stops reading until its output is read.
fn puts_out_more_than_it_takes(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let client = client_words(client, &[])?;
    let line = format!(
        "head -c 8000000 /dev/zero | {client} od -An -v -tx1 -w1 | head -c 32000000 | wc -c"
    );
    let running = lab.laptop.spawn(&["bash", "-c", &line])?;
    running.wait_for_line("32000000", PATIENCE)?;
    Ok(())
}

/// `head` reads one line and ends; the command gets a broken pipe.
fn hears_that_nobody_reads(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let line = format!("{} yes for ever | head -n 1", client_words(client, &[])?);
    let running = lab.laptop.spawn(&["bash", "-c", &line])?;
    running.wait_for_line("for ever", PATIENCE)?;
    until("the end of the command", PATIENCE, || {
        let processes = lab.bastion.processes().ok()?;
        let runs =
            |process: &netns_tests::lab::host::Process| process.command.starts_with("yes for");
        (!processes.iter().any(runs)).then_some(())
    })
}

/// Output after `-f` has gone into the background is still written.
fn writes_from_the_background(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let gate = "/run/gate";
    lab.bastion.sh(&format!("mkfifo {gate}"))?;
    let client = client_words(client, &["-f"])?;
    let line = format!("{client} 'cat {gate}; echo done there'; echo exit $?");
    let running = lab.laptop.spawn(&["bash", "-c", &line])?;
    running.wait_for_line("exit 0", PATIENCE)?;
    lab.bastion.sh(&format!("echo >{gate}"))?;
    running.wait_for_line("done there", PATIENCE)?;
    Ok(())
}

/// `~.` ends the connection, the tunnel with it.
fn is_left_by_the_escape_character(client: Client) -> Result<()> {
    let lab = topology::direct()?;
    let client = client_words(client, &["-t"])?;
    let line = format!(
        "mkfifo /run/typed; exec 3<>/run/typed; \
         script -qec '{client} \"echo ready; cat\"' /dev/null <&3"
    );
    let running = lab.laptop.spawn(&["bash", "-c", &line])?;
    running.wait_for_line("ready", PATIENCE)?;
    lab.laptop.sh(r"printf '\r~.' >/run/typed")?;
    let output = running.wait(PATIENCE)?;
    ensure!(output.code() == 255, "{output:?}");
    Ok(())
}
