//! `sshvpn serve`: the metrics, requested as by a browser on the gateway.

use anyhow::{Result, ensure};
use netns_tests::serve::Serve;
use netns_tests::serve::lab::ServeLab;

/// DNS rebinding: a web page whose name resolves to this host requests under that name.
#[test]
fn a_page_of_another_name_reads_no_metrics() -> Result<()> {
    let lab = ServeLab::with_tunnels()?;
    let config = "[metrics]\nlisten = \"127.0.0.1:9650\"\nnames = [\"gateway.example\"]\n";
    let server = Serve::default().config(config).start(&lab.bastion)?;
    let ask = |host: &str| {
        lab.bastion.sh(&format!(
            "exec 3<>/dev/tcp/127.0.0.1/9650
             printf 'GET /metrics HTTP/1.1\\r\\nHost: {host}\\r\\n\\r\\n' >&3; cat <&3"
        ))
    };
    let own = lab.bastion.sh("uname -n")?;
    for host in [
        "127.0.0.1:9650",
        "localhost:9650",
        own.trim(),
        "gateway.example",
    ] {
        let answer = ask(host)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{host}: {answer}");
        ensure!(answer.contains("sshvpn_serve_logins_total"), "{host}");
    }
    for host in [
        "attacker.example",
        "attacker.example:9650",
        "127.0.0.1.attacker.example",
    ] {
        let answer = ask(host)?;
        ensure!(answer.starts_with("HTTP/1.1 421"), "{host}: {answer}");
        ensure!(!answer.contains("sshvpn_serve_"), "{host}: {answer}");
    }
    // A reload changes the names.
    lab.bastion.write(
        netns_tests::serve::CONFIG,
        &config.replace("gateway", "vpn"),
    )?;
    server.reload()?;
    ensure!(ask("vpn.example")?.starts_with("HTTP/1.1 200"));
    ensure!(ask("gateway.example")?.starts_with("HTTP/1.1 421"));
    Ok(())
}
