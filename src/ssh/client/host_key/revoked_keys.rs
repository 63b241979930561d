//! `RevokedHostKeys` of ssh_config(5): files of keys that are never accepted.

use std::io;
use std::path::PathBuf;

use russh::keys::ssh_key::public::KeyData;
use russh::keys::{Certificate, PublicKey};

use super::known_hosts::{MAX_FILE, read};
use crate::config::invoker::Invoker;
use crate::config::keys::key_blob::KeyBlob;
use crate::config::keys::revocation_list::{CertificateName, RevocationList};

/// The first of `files` that revokes a host key: the key itself, or, if it came with a
/// certificate, the certificate or its authority's key. A file that cannot be read
/// completely is an error, so that no key passes unchecked.
pub(in crate::ssh) fn file_with(
    files: &[PathBuf],
    key: &KeyData,
    certificate: Option<&Certificate>,
    invoker: &Invoker,
) -> Result<Option<PathBuf>, Failure> {
    for file in files {
        let failed = |error: io::Error| (file.clone(), error);
        let content = read(file, invoker).map_err(failed)?;
        if content.len() as u64 >= MAX_FILE {
            return Err(failed(io::Error::other("the file is too large")));
        }
        let list = RevocationList::parse(&content)
            .map_err(io::Error::other)
            .map_err(failed)?;
        if revokes(&list, key, certificate).map_err(failed)? {
            return Ok(Some(file.clone()));
        }
    }
    Ok(None)
}

fn revokes(
    list: &RevocationList,
    key: &KeyData,
    certificate: Option<&Certificate>,
) -> io::Result<bool> {
    if list.revokes_key(&blob(key)?) {
        return Ok(true);
    }
    let Some(certificate) = certificate else {
        return Ok(false);
    };
    let authority = blob(certificate.signature_key())?;
    Ok(list.revokes_key(&authority)
        || list.revokes_certificate(CertificateName {
            authority: &authority,
            serial: certificate.serial(),
            key_id: certificate.key_id(),
        }))
}

fn blob(key: &KeyData) -> io::Result<KeyBlob> {
    let bytes = PublicKey::new(key.clone(), "").to_bytes();
    bytes.map(KeyBlob).map_err(io::Error::other)
}

/// The file, and why it cannot be used.
pub(in crate::ssh) type Failure = (PathBuf, io::Error);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::ssh::client::host_key::key_line;
    use crate::ssh::client::test_server::run;
    use crate::ssh::test_settings;

    fn keygen(directory: &Path, arguments: &[&str]) {
        run(Command::new("ssh-keygen")
            .current_dir(directory)
            .arg("-q")
            .args(arguments));
    }

    /// sshvpn's verdict on the key `name` or its certificate.
    fn ours(file: &Path, name: &str) -> Result<bool, Failure> {
        let directory = file.parent().unwrap();
        let text = |suffix: &str| fs::read_to_string(directory.join(format!("{name}{suffix}")));
        let key = PublicKey::from_openssh(&text(".pub").unwrap()).unwrap();
        let certificate = text("-cert.pub").ok();
        let certificate = certificate.map(|text| Certificate::from_openssh(&text).unwrap());
        let files = [file.to_owned()];
        let invoker = test_settings::invoker();
        let found = file_with(&files, key.key_data(), certificate.as_ref(), &invoker)?;
        assert!(found.is_none() || found.as_deref() == Some(file));
        Ok(found.is_some())
    }

    /// ssh-keygen's verdict on the same.
    fn theirs(file: &Path, name: &str) -> bool {
        let directory = file.parent().unwrap();
        let certificate = directory.join(format!("{name}-cert.pub"));
        let plain = directory.join(format!("{name}.pub"));
        let shown = [certificate, plain].into_iter().find(|path| path.exists());
        let query = Command::new("ssh-keygen")
            .args(["-Q", "-f"])
            .arg(file)
            .arg(shown.unwrap())
            .stdout(Stdio::null())
            .status();
        !query.unwrap().success()
    }

    #[test]
    fn a_krl_says_what_it_says_to_ssh_keygen() {
        let lab = tempfile::tempdir().unwrap();
        let at = |name: &str| lab.path().join(name);
        for name in ["authority", "other", "plain", "listed", "certified"] {
            keygen(lab.path(), &["-t", "ed25519", "-N", "", "-f", name]);
        }
        keygen(
            lab.path(),
            &["-t", "rsa", "-b", "1024", "-N", "", "-f", "short"],
        );
        let certificate = [
            "-s",
            "authority",
            "-h",
            "-I",
            "host-7",
            "-z",
            "42",
            "-n",
            "server",
        ];
        keygen(lab.path(), &[&certificate[..], &["certified.pub"]].concat());
        let public = |name: &str| fs::read_to_string(at(&format!("{name}.pub"))).unwrap();
        for specification in [
            format!("key: {}", public("listed")),
            format!("sha1: {}sha256: {}", public("short"), public("plain")),
            format!("key: {}", public("certified")),
            format!("sha256: {}", public("authority")),
            "serial: 42\n".to_owned(),
            "serial: 40-41\n".to_owned(),
            "id: host-7\n".to_owned(),
            "id: host-8\n".to_owned(),
        ] {
            for authority in ["authority.pub", "other.pub"] {
                fs::write(at("specification"), &specification).unwrap();
                keygen(
                    lab.path(),
                    &["-k", "-f", "krl", "-s", authority, "specification"],
                );
                for name in ["plain", "listed", "short", "certified"] {
                    assert_eq!(
                        ours(&at("krl"), name).unwrap(),
                        theirs(&at("krl"), name),
                        "{specification} by {authority}, {name}"
                    );
                }
            }
        }
    }

    #[test]
    fn keys_in_text_are_found_and_what_is_no_list_is_an_error() {
        let lab = tempfile::tempdir().unwrap();
        let list = lab.path().join("revoked");
        for name in ["one", "other"] {
            keygen(lab.path(), &["-t", "ed25519", "-N", "", "-f", name]);
        }
        let one = fs::read_to_string(lab.path().join("one.pub")).unwrap();
        // The list may contain a key that is too weak to be used.
        let weak = test_settings::RSA_KEY;
        assert!(key_line::parse(weak).is_some());
        fs::write(&list, format!("# stolen\n {one}\n{weak} old\n")).unwrap();
        assert!(ours(&list, "one").unwrap());
        assert!(!ours(&list, "other").unwrap());
        for broken in [&b"SSHKRL\n\0"[..], b"no key\n", b"ssh-ed25519 AAAA\n"] {
            fs::write(&list, broken).unwrap();
            assert!(ours(&list, "one").is_err());
        }
        assert!(ours(&lab.path().join("none"), "one").is_err());
    }
}
