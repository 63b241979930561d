//! Dropbear on a host: the server, its keys, and passwords for its accounts.

use anyhow::{Result, ensure};

use crate::lab::child::Child;
use crate::lab::host::Host;
use crate::wait::PATIENCE;

/// The port of Dropbear, beside an sshd at 22.
pub const PORT: &str = "22";

/// The file of its host key of type `kind`.
fn host_key(kind: &str) -> String {
    format!("/etc/dropbear/{kind}")
}

/// Makes its host key of type `kind`, unless it exists; returns the public key as in known_hosts.
pub fn make_host_key(host: &Host, kind: &str) -> Result<String> {
    let file = host_key(kind);
    let shown = host.sh(&format!(
        "mkdir -p /etc/dropbear; [ -e {file} ] || dropbearkey -t {kind} -f {file} >/dev/null; \
         dropbearkey -y -f {file} | grep -E '^(ssh|ecdsa)-'"
    ))?;
    let words: Vec<&str> = shown.split_whitespace().take(2).collect();
    ensure!(words.len() == 2, "no public key: {shown}");
    Ok(words.join(" "))
}

/// Starts it on `host` with host keys of these types and further options, and waits until it
/// listens.
pub fn start(host: &Host, kinds: &[&str], options: &[&str]) -> Result<Child> {
    let mut command = ["dropbear", "-F", "-E", "-m", "-p", PORT]
        .map(str::to_owned)
        .to_vec();
    for kind in kinds {
        make_host_key(host, kind)?;
        command.extend(["-r".to_owned(), host_key(kind)]);
    }
    command.extend(options.iter().map(|option| (*option).to_owned()));
    let dropbear = host.spawn(&command)?;
    dropbear.wait_for_line("Not backgrounding", PATIENCE)?;
    Ok(dropbear)
}

/// Lets the public key `public` log in to `host` as root.
pub fn authorize(host: &Host, public: &str) -> Result<()> {
    host.append("/run/home/root/.ssh/authorized_keys", public)?;
    host.sh("chmod 600 /run/home/root/.ssh/authorized_keys")?;
    Ok(())
}

/// Sets the password of `user` of `host`.
pub fn set_password(host: &Host, user: &str, password: &str) -> Result<()> {
    host.sh(&format!(
        "hash=$(openssl passwd -6 {password}); \
         sed -i \"s,^{user}:[^:]*:,{user}:$hash:,\" /etc/shadow; grep -q \"^{user}:.6\" /etc/shadow"
    ))?;
    Ok(())
}
