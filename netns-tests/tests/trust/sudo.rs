//! A sudo rule for only `sshvpn up` gives its user a tunnel and no other power of root: each path
//! and socket that the user names is opened as that user.
//!
//! ```text
//!   laptop wan 192.0.2.1 ─────────────── 192.0.2.2 wan bastion
//!   alice: sudo sshvpn up ═════ SSH ═════ sshd, root
//!   agents of root and bob hold the key
//! ```

use anyhow::{Context, Result, ensure};
use netns_tests::lab::sshd::{Privilege, add_account, as_user};
use netns_tests::lab::topology::{self, Direct};
use netns_tests::program::vpn;
use netns_tests::{Before, Child, Client, Host, Output, PATIENCE, until};

/// A directory that alice cannot read.
const SECRET: &str = "/run/lab/secret";

/// The lab with the accounts alice, who has no key and may only run `sshvpn up` as root, and bob.
fn lab() -> Result<Direct> {
    let lab = topology::direct()?;
    let laptop = &lab.laptop;
    for user in ["alice", "bob"] {
        add_account(laptop, user, Privilege::None)?;
        laptop.sh(&format!(
            "cp /run/home/root/.ssh/known_hosts /run/home/{user}/.ssh/; \
             chown -R {user}: /run/home/{user}"
        ))?;
    }
    let program = Client::Sshvpn.program()?;
    laptop.sh(&format!(
        "printf '%s\\n' 'alice ALL=(root) NOPASSWD: {program} up *' \
         'Defaults env_keep += \"SSH_AUTH_SOCK\"' >/etc/sudoers.d/alice; \
         chmod 440 /etc/sudoers.d/alice; install -d -m 755 /run/lab"
    ))?;
    Ok(lab)
}

/// Starts an ssh-agent of `user` at `socket` that holds root's key for the bastion.
fn agent(host: &Host, user: &str, socket: &str) -> Result<Child> {
    host.sh(&format!(
        "install -m 600 -o {user} /run/home/root/.ssh/id_ed25519 /run/lab/{user}.key; \
         install -d -o {user} -m 755 $(dirname {socket})"
    ))?;
    let words = ["ssh-agent", "-D", "-a", socket].map(str::to_owned);
    let agent = host.spawn(&as_user(user, &words))?;
    until("the agent's socket", PATIENCE, || {
        host.sh(&format!("test -S {socket}")).ok()
    })?;
    let add = format!("SSH_AUTH_SOCK={socket} ssh-add -q /run/lab/{user}.key");
    host.run(&as_user(user, &["sh".into(), "-c".into(), add]))?
        .ok()?;
    // The key is valid: its owner can log in with it.
    let login = format!("ssh -o IdentityAgent={socket} -o IdentityFile=/nowhere root@bastion true");
    host.run(&as_user(user, &["sh".into(), "-c".into(), login]))?
        .ok()?;
    Ok(agent)
}

/// Runs this shell line as alice, in which `$UP` is the permitted command.
fn alice(host: &Host, line: &str) -> Result<Output> {
    let program = Client::Sshvpn.program()?;
    let line = format!("UP='sudo -n {program} up -o BatchMode=yes'; {line}");
    host.run(&as_user("alice", &["sh".into(), "-c".into(), line]))
}

fn refused(host: &Host, line: &str, part: &str) -> Result<()> {
    let output = alice(host, line)?;
    vpn::fails_clearly(&output, Some(255), &["Permission denied", part])
        .with_context(|| line.to_owned())
}

#[test]
fn the_agents_of_root_and_of_a_colleague_are_closed() -> Result<()> {
    let lab = lab()?;
    let laptop = &lab.laptop;
    let before = Before::of(&[&lab.laptop, &lab.bastion])?;
    for user in ["root", "bob"] {
        let socket = format!("/run/lab/{user}-agent/socket");
        let _agent = agent(laptop, user, &socket)?;
        for open in ["", "chmod 666"] {
            if !open.is_empty() {
                laptop.sh(&format!("{open} {socket}"))?;
            }
            refused(
                laptop,
                &format!("$UP -o IdentityAgent={socket} root@bastion"),
                &socket,
            )?;
            refused(
                laptop,
                &format!("SSH_AUTH_SOCK={socket} $UP root@bastion"),
                &socket,
            )?;
        }
    }
    before.is_back()
}

/// A symbolic link of alice's to root's agent is refused, and so is another user's socket in the
/// environment of the process of alice's that started sudo.
#[test]
fn no_detour_leads_to_an_agent_of_root() -> Result<()> {
    let lab = lab()?;
    let laptop = &lab.laptop;
    let socket = "/run/lab/root-agent/socket";
    let _agent = agent(laptop, "root", socket)?;
    refused(
        laptop,
        &format!("ln -s {socket} ~/link; $UP -o IdentityAgent=$HOME/link root@bastion"),
        "/run/home/alice/link",
    )?;
    let program = Client::Sshvpn.program()?;
    keep_no_variable(laptop, &program)?;
    let by_ancestor = |socket: &str| {
        // Not `exec`: the shell that has the variable is sudo's parent.
        format!("export SSH_AUTH_SOCK={socket}; timeout -s TERM 60 $UP root@bastion; exit $?")
    };
    let output = alice(laptop, &by_ancestor(socket))?;
    vpn::fails_clearly(&output, Some(255), &["Permission denied"])?;
    // An agent of alice's is found in the same way.
    let own = "/run/lab/alice-agent/socket";
    let _own = agent(laptop, "alice", own)?;
    let words = ["sh".to_owned(), "-c".to_owned(), {
        format!(
            "UP='sudo -n {program} up -o BatchMode=yes'; {}",
            by_ancestor(own)
        )
    }];
    let up = laptop.spawn(&as_user("alice", &words))?;
    up.wait_for_line("up:", PATIENCE)?;
    end_up(laptop, &program)?;
    ensure!(up.wait(PATIENCE)?.code() == 0);
    Ok(())
}

/// Has sudo remove SSH_AUTH_SOCK, as by default.
fn keep_no_variable(host: &Host, program: &str) -> Result<()> {
    host.sh(&format!(
        "printf '%s\\n' 'alice ALL=(root) NOPASSWD: {program} up *' >/etc/sudoers.d/alice"
    ))?;
    Ok(())
}

/// An agent that alice starts in her shell, as by `eval $(ssh-agent)`: sudo alone is started with
/// its variable, and removes it.
#[test]
fn an_agent_of_the_shell_is_found() -> Result<()> {
    let lab = lab()?;
    let laptop = &lab.laptop;
    let program = Client::Sshvpn.program()?;
    keep_no_variable(laptop, &program)?;
    let socket = "/run/lab/alice-agent/socket";
    let _agent = agent(laptop, "alice", socket)?;
    let words = ["sh".to_owned(), "-c".to_owned(), {
        format!(
            "SSH_AUTH_SOCK={socket}; export SSH_AUTH_SOCK; sudo -n {program} up -o BatchMode=yes root@bastion; exit $?"
        )
    }];
    let up = laptop.spawn(&as_user("alice", &words))?;
    up.wait_for_line("up:", PATIENCE)?;
    end_up(laptop, &program)?;
    ensure!(up.wait(PATIENCE)?.code() == 0);
    // Without one, a line says how to name it.
    refused(
        laptop,
        "$UP root@bastion",
        "-o IdentityAgent=$SSH_AUTH_SOCK",
    )
}

/// Ends the running `up`, below sudo.
fn end_up(host: &Host, program: &str) -> Result<()> {
    let pid = host
        .processes()?
        .into_iter()
        .find(|process| process.command.starts_with(&format!("{program} up")))
        .context("sshvpn runs")?
        .pid;
    host.sh(&format!("kill -TERM {pid}"))?;
    Ok(())
}

/// A caller whose environment is kept (doas, `keepenv`) cannot become another user by the variables
/// of a second program: those that name root do not count, and those of another user are refused.
#[test]
fn the_callers_that_the_environment_names_have_to_agree() -> Result<()> {
    let lab = lab()?;
    let laptop = &lab.laptop;
    let socket = "/run/lab/root-agent/socket";
    let _agent = agent(laptop, "root", socket)?;
    let program = Client::Sshvpn.program()?;
    // As doas starts it for alice, with variables that alice has set.
    let run = |variables: &str| {
        let line = format!(
            "env DOAS_USER=alice SSH_AUTH_SOCK={socket} {variables} timeout 60 {program} up \
             -o BatchMode=yes root@bastion"
        );
        laptop.run(&["sh".into(), "-c".into(), line])
    };
    for uid in ["0", "00", "+0"] {
        let output = run(&format!("SUDO_USER=root SUDO_UID={uid} SUDO_GID=0"))?;
        vpn::fails_clearly(&output, Some(255), &["Permission denied", socket])?;
    }
    let output = run("SUDO_USER=bob SUDO_UID=$(id -u bob) SUDO_GID=$(id -g bob)")?;
    vpn::fails_clearly(&output, Some(1), &["DOAS_USER=alice", "bob"])
}

/// alice's own agent works, also if only a group of hers can reach it.
#[test]
fn ones_own_agent_is_used_with_all_of_ones_groups() -> Result<()> {
    let lab = lab()?;
    let laptop = &lab.laptop;
    laptop.append("/etc/group", "keys:x:3001:alice\n")?;
    laptop.sh("install -d -m 2750 -o root -g keys /run/lab/group")?;
    laptop.sh("install -d -m 700 -o alice /run/lab/group/alice")?;
    let socket = "/run/lab/group/alice/socket";
    let _agent = agent(laptop, "alice", socket)?;
    laptop.sh("chmod 700 /run/lab/group/alice")?;
    let program = Client::Sshvpn.program()?;
    let line = format!("exec sudo -n {program} up -o IdentityAgent={socket} root@bastion");
    let up = laptop.spawn(&as_user("alice", &["sh".into(), "-c".into(), line]))?;
    up.wait_for_line("up:", PATIENCE)?;
    end_up(laptop, &program)?;
    ensure!(up.wait(PATIENCE)?.code() == 0);
    Ok(())
}

/// The sockets of forwards and of -M, and the file of -E, are made, connected to and removed with
/// the invoker's rights.
#[test]
fn forwards_have_the_rights_of_the_invoker() -> Result<()> {
    let lab = lab()?;
    let laptop = &lab.laptop;
    let socket = "/run/lab/alice-agent/socket";
    let _agent = agent(laptop, "alice", socket)?;
    let _service = laptop.spawn(&[
        "socat",
        "UNIX-LISTEN:/run/lab/of-root",
        "SYSTEM:echo secret",
    ])?;
    laptop.sh(&format!(
        "install -d -m 700 {SECRET}; chmod 600 /run/lab/of-root"
    ))?;
    let program = Client::Sshvpn.program()?;
    let run = |options: &str, command: &str| {
        let line = format!(
            "SUDO_USER=alice SUDO_UID=2001 SUDO_GID=2001 {program} -o IdentityAgent={socket} \
             {options} root@bastion '{command}'"
        );
        laptop.run(&["sh", "-c", &line])
    };
    for (option, path) in [
        ("-L SECRET/l:localhost:22", "l"),
        ("-M -S SECRET/control", "control"),
        ("-E SECRET/log", "log"),
    ] {
        let output = run(&option.replace("SECRET", SECRET), "true")?;
        ensure!(output.stderr.contains("Permission denied"), "{output:?}");
        laptop.sh(&format!("test ! -e {SECRET}/{path}"))?;
    }
    let ask = "socat -t5 - UNIX-CONNECT:/run/asked </dev/null; echo asked";
    let output = run("-R /run/asked:/run/lab/of-root", ask)?;
    ensure!(
        output.stdout == "asked\n" && output.stderr.contains("Permission denied"),
        "{output:?}"
    );
    // In the invoker's own directory they work, and go with the process.
    let output = run("-L ~alice/l:localhost:22 -M -S ~alice/control", "true")?;
    ensure!(output.code() == 0 && output.stderr.is_empty(), "{output:?}");
    laptop.sh("test ! -e ~alice/l && test ! -e ~alice/control")?;
    Ok(())
}

/// Every option and variable that names a path or a program, each with one in a folder of root's:
/// no process that `up` or `-w` starts reaches any of them.
#[test]
fn no_path_that_the_invoker_names_is_opened_as_root() -> Result<()> {
    let lab = lab()?;
    let laptop = &lab.laptop;
    laptop.sh(&format!(
        "install -d -m 700 {SECRET}; cp /run/home/root/.ssh/id_ed25519 {SECRET}/key; \
         cp /run/home/root/.ssh/known_hosts {SECRET}/known_hosts; \
         cp /bin/true {SECRET}/program; echo 'User root' >{SECRET}/config; \
         printf 'Host *\\nInclude {SECRET}/*\\n' >/run/lab/includes; \
         printf 'Match exec \"cat {SECRET}/key\"\\nUser nobody\\n' >/run/lab/match; \
         mkdir /run/lab/tools; for tool in env sh cat id; do \
         ln -s $(command -v $tool) /run/lab/tools/; done"
    ))?;
    let options = [
        "-i {}/key",
        "-F {}/config",
        "-F /run/lab/includes",
        "-F /run/lab/match",
        "-o IdentityFile={}/key",
        "-o CertificateFile={}/key",
        "-o IdentityAgent={}/agent",
        "-o UserKnownHostsFile={}/known_hosts",
        "-o UserKnownHostsFile={}/new -o StrictHostKeyChecking=accept-new",
        "-o GlobalKnownHostsFile={}/known_hosts",
        "-o RevokedHostKeys={}/key",
        "-o KnownHostsCommand={}/program",
        "-o PermitLocalCommand=yes -o LocalCommand={}/program",
        "-o PKCS11Provider={}/program",
        "-o SecurityKeyProvider={}/program",
        "-o XAuthLocation={}/program",
        "-o ControlMaster=auto -o ControlPath={}/control",
        "-o ProxyCommand={}/program",
        "-o ProxyCommand='cat {}/key'",
        "-E {}/log",
        "-S {}/control",
    ];
    let variables = [
        "SSH_AUTH_SOCK={}/agent",
        "SSH_ASKPASS={}/program SSH_ASKPASS_REQUIRE=force",
        "SHELL={}/program",
        "HOME={}",
        "TMPDIR={}",
        "XDG_CONFIG_HOME={}",
        "XDG_RUNTIME_DIR={}",
        "PATH={}:/usr/bin:/bin",
        "TZ=:{}/key",
        "RUST_LOG=trace",
    ];
    let cases = options
        .iter()
        .map(|option| (option.to_string(), String::new()))
        .chain(variables.iter().map(|it| (String::new(), it.to_string())));
    let program = Client::Sshvpn.program()?;
    for (option, variable) in cases {
        let (option, variable) = (option.replace("{}", SECRET), variable.replace("{}", SECRET));
        // With the settings parsed by ssh, and by sshvpn.
        for (path, subcommand) in [("", "up"), ("", "-N -w any"), ("PATH=/run/lab/tools", "up")] {
            // As sudo starts it; strace cannot trace sudo itself.
            let line = format!(
                "rm -rf /run/lab/trace; mkdir /run/lab/trace; \
                 SUDO_USER=alice SUDO_UID=2001 SUDO_GID=2001 timeout 20 \
                 strace -ff -qq -o /run/lab/trace/call -e trace=%file,connect \
                 env {path} {variable} {program} {subcommand} -o BatchMode=yes \
                 -o PreferredAuthentications=publickey {option} nobody@bastion </dev/null || true"
            );
            laptop.sh(&line)?;
            let trace = laptop.sh("cat /run/lab/trace/*")?;
            ensure!(trace.contains("execve"), "no trace: {line}");
            let reached = trace.lines().find(|call| reaches(call));
            ensure!(reached.is_none(), "{line}\n{reached:?}");
        }
    }
    let left = laptop.sh(&format!("ls {SECRET}"))?;
    ensure!(
        left == "config\nkey\nknown_hosts\nprogram\n",
        "files were made there: {left}"
    );
    Ok(())
}

/// Whether a traced call reached the secret folder: it names a path there as its own argument, not
/// within the arguments of a program, and did not fail.
fn reaches(call: &str) -> bool {
    let inside = format!("{SECRET}/");
    let Some((call, result)) = call.rsplit_once(" = ") else {
        return false;
    };
    let named = match call.starts_with("execve") {
        true => call.split('[').next().unwrap_or_default(),
        false => call,
    };
    named.contains(&inside) && !result.starts_with(['-', '?'])
}
