//! The distribution's sshd on a host, accounts, keys and known hosts.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::wait::PATIENCE;

const CONFIG: &str = "/etc/ssh/sshd_config";
const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key";

/// An sshd_config. The lab's defaults are port 22, public keys only, tunnels permitted;
/// [`Sshd::set`] overrides them.
pub struct Sshd {
    settings: BTreeMap<String, String>,
}

impl Default for Sshd {
    fn default() -> Self {
        let settings = [
            ("AuthorizedKeysFile", "/etc/ssh/authorized_keys/%u"),
            ("HostKey", HOST_KEY),
            ("KbdInteractiveAuthentication", "no"),
            ("LogLevel", "VERBOSE"),
            ("PasswordAuthentication", "no"),
            ("PermitRootLogin", "prohibit-password"),
            ("PermitTunnel", "yes"),
            ("Port", "22"),
            ("StrictModes", "no"),
            ("UseDNS", "no"),
            ("UsePAM", "no"),
        ];
        Self {
            settings: settings
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
        }
    }
}

impl Sshd {
    /// Overrides one setting.
    pub fn set(mut self, name: &str, value: &str) -> Self {
        self.settings.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Starts it on `host`, makes a host key if there is none, and waits until it listens.
    pub fn start(&self, host: &Host) -> Result<Child> {
        let mut text = String::new();
        for (name, value) in &self.settings {
            text.push_str(&format!("{name} {value}\n"));
        }
        host.write(CONFIG, &text)?;
        make_key(host, HOST_KEY, "ed25519")?;
        let sshd = host.spawn(&["/usr/sbin/sshd", "-D", "-e", "-f", CONFIG])?;
        // By default it listens on 0.0.0.0 first, then on ::.
        let one_place = ["AddressFamily", "ListenAddress"];
        let last = match one_place
            .iter()
            .any(|name| self.settings.contains_key(*name))
        {
            true => "Server listening on",
            false => "Server listening on :: port",
        };
        sshd.wait_for_line(last, PATIENCE)?;
        Ok(sshd)
    }
}

/// Makes a key pair at `path` of `host`, unless it exists.
pub fn make_key(host: &Host, path: &str, kind: &str) -> Result<()> {
    host.sh(&format!(
        "[ -e {path} ] || ssh-keygen -q -t {kind} -N '' -C lab -f {path}"
    ))?;
    Ok(())
}

/// Lets root of `client` log in to `server` as `user`; makes a key if there is none.
pub fn authorize(client: &Host, server: &Host, user: &str) -> Result<()> {
    let key = "/run/home/root/.ssh/id_ed25519";
    make_key(client, key, "ed25519")?;
    let public = client.read(&format!("{key}.pub"))?;
    server.append(&format!("/etc/ssh/authorized_keys/{user}"), &public)
}

/// Adds the name and `addresses` of `server` to /etc/hosts of `client`, and its host key to
/// known_hosts.
pub fn introduce(client: &Host, server: &Host, addresses: &[&str]) -> Result<()> {
    make_key(server, HOST_KEY, "ed25519")?;
    let key = server.read(&format!("{HOST_KEY}.pub"))?;
    let mut names = server.name().to_owned();
    for address in addresses {
        client.append("/etc/hosts", &format!("{address} {}\n", server.name()))?;
        names.push_str(&format!(",{address}"));
    }
    client.append("/run/home/root/.ssh/known_hosts", &format!("{names} {key}"))
}

/// The privilege of an account besides logging in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Nothing.
    None,
    /// `sudo` without a password.
    Sudo,
}

/// Adds the account `user` to `host` only; the ids are 2001, 2002 and so on.
pub fn add_account(host: &Host, user: &str, privilege: Privilege) -> Result<()> {
    let home = format!("/run/home/{user}");
    let passwd = host.read("/etc/passwd")?;
    let others = passwd.lines().filter(|line| line.contains(":/run/home/"));
    // Root's home counts too.
    let id = 2000 + others.count();
    host.append(
        "/etc/passwd",
        &format!("{user}:x:{id}:{id}::{home}:/bin/bash\n"),
    )?;
    host.append("/etc/group", &format!("{user}:x:{id}:\n"))?;
    // An asterisk matches no password, but does not lock the account.
    host.append("/etc/shadow", &format!("{user}:*:19000:0:99999:7:::\n"))?;
    host.sh(&format!(
        "install -d -m 700 -o {user} -g {user} {home} {home}/.ssh"
    ))?;
    if privilege == Privilege::Sudo {
        let file = format!("/etc/sudoers.d/{user}");
        host.write(&file, &format!("{user} ALL=(ALL) NOPASSWD: ALL\n"))?;
        host.sh(&format!("chmod 440 {file}"))?;
    }
    Ok(())
}

/// The command line that runs `command` as `user`, without root's capabilities, groups and
/// variables.
pub fn as_user(user: &str, command: &[String]) -> Vec<String> {
    let home = format!("HOME=/run/home/{user}");
    let name = format!("USER={user}");
    let mut line: Vec<String> = ["setpriv", "--reuid", user, "--regid", user, "--init-groups"]
        .map(str::to_owned)
        .into();
    line.extend(["env".to_owned(), home, name]);
    line.extend_from_slice(command);
    line
}
