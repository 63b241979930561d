//! Compares revocation lists with ssh-keygen, and tests that damaged lists are errors.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::*;

/// A directory with keys, certificates and lists that ssh-keygen made.
struct Lab(tempfile::TempDir);

impl Lab {
    fn new(keys: &[&str]) -> Self {
        let lab = Self(tempfile::tempdir().unwrap());
        for name in keys {
            lab.keygen(&["-q", "-t", "ed25519", "-N", "", "-f", &lab.text(name)]);
        }
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn keygen(&self, arguments: &[&str]) {
        let done = Command::new("ssh-keygen")
            .args(arguments)
            .stdout(Stdio::null())
            .status();
        assert!(done.unwrap().success(), "{arguments:?}");
    }

    fn key(&self, name: &str) -> KeyBlob {
        let text = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        let (kind, rest) = text.split_once(' ').unwrap();
        KeyBlob::parse(kind, rest.split(' ').next().unwrap()).unwrap()
    }

    /// Signs the key `user` with the serial number `serial`; returns the certificate's file.
    fn certify(&self, authority: &str, id: &str, serial: u64) -> PathBuf {
        let serial = serial.to_string();
        let (authority, user) = (self.text(authority), self.text("user.pub"));
        self.keygen(&[
            "-q", "-s", &authority, "-I", id, "-z", &serial, "-n", "x", &user,
        ]);
        self.path("user-cert.pub")
    }

    /// A KRL from a `specification` about certificates of `authority` (ssh-keygen(1)).
    fn krl(&self, authority: &str, specification: &str) -> RevocationList {
        fs::write(self.path("specification"), specification).unwrap();
        let authority = self.text(&format!("{authority}.pub"));
        let krl = self.text("krl");
        self.keygen(&[
            "-q",
            "-k",
            "-f",
            &krl,
            "-s",
            &authority,
            &self.text("specification"),
        ]);
        RevocationList::parse(&fs::read(krl).unwrap()).unwrap()
    }

    /// Whether ssh-keygen reports a key or certificate as revoked.
    fn revoked(&self, file: &Path) -> bool {
        let query = Command::new("ssh-keygen")
            .args(["-Q", "-f", &self.text("krl")])
            .arg(file)
            .stdout(Stdio::null())
            .status();
        !query.unwrap().success()
    }
}

#[test]
fn keys_are_revoked_as_they_are_and_by_fingerprint() {
    let lab = Lab::new(&["authority", "one", "two", "three", "four"]);
    let public = |name: &str| fs::read_to_string(lab.path(&format!("{name}.pub"))).unwrap();
    let list = lab.krl(
        "authority",
        &format!(
            "key: {}sha1: {}sha256: {}",
            public("one"),
            public("two"),
            public("three")
        ),
    );
    for (name, expected) in [
        ("one", true),
        ("two", true),
        ("three", true),
        ("four", false),
    ] {
        assert_eq!(list.revokes_key(&lab.key(name)), expected, "{name}");
        assert_eq!(lab.revoked(&lab.path(&format!("{name}.pub"))), expected);
    }
    assert!(!list.keys.is_empty() && !list.sha1.is_empty() && !list.sha256.is_empty());
}

#[test]
fn certificates_are_revoked_by_number_range_bitmap_and_id() {
    let lab = Lab::new(&["authority", "other", "user"]);
    let list = lab.krl(
        "authority",
        "serial: 3\nserial: 1000-2000\nserial: 9001\nserial: 9003\nserial: 9004\n\
         serial: 9006\nserial: 9008\nserial: 9009\nserial: 9012\nserial: 18446744073709551615\n\
         id: mallory\n",
    );
    let section = list.certificates.first().unwrap();
    assert!(!section.bitmaps.is_empty() && !section.serials.is_empty());
    for (serial, id) in [
        (0, "alice"),
        (0, "mallory"),
        (2, "alice"),
        (3, "alice"),
        (3, "mallory"),
        (999, "a"),
        (1000, "a"),
        (2000, "a"),
        (2001, "a"),
        (9000, "a"),
        (9001, "a"),
        (9002, "a"),
        (9004, "a"),
        (9012, "a"),
        (9013, "a"),
        (u64::MAX, "a"),
        (u64::MAX - 1, "a"),
    ] {
        for authority in ["authority", "other"] {
            let certificate = lab.certify(authority, id, serial);
            let ours = list.revokes_certificate(CertificateName {
                authority: &lab.key(authority),
                serial,
                key_id: id,
            });
            assert_eq!(ours, lab.revoked(&certificate), "{authority} {serial} {id}");
        }
    }
}

#[test]
fn a_list_without_an_authority_is_about_all() {
    let lab = Lab::new(&["user"]);
    fs::write(lab.path("specification"), "id: mallory\n").unwrap();
    let krl = lab.text("krl");
    lab.keygen(&[
        "-q",
        "-k",
        "-f",
        &krl,
        "-s",
        "none",
        &lab.text("specification"),
    ]);
    let list = RevocationList::parse(&fs::read(krl).unwrap()).unwrap();
    let authority = lab.key("user");
    let revokes = |key_id| {
        list.revokes_certificate(CertificateName {
            authority: &authority,
            serial: 1,
            key_id,
        })
    };
    assert!(revokes("mallory"));
    assert!(!revokes("alice"));
}

#[test]
fn a_list_may_be_text() {
    let lab = Lab::new(&["one", "two"]);
    let public = fs::read_to_string(lab.path("one.pub")).unwrap();
    let list = RevocationList::parse(format!("# stolen\n\n  {public}").as_bytes()).unwrap();
    assert!(list.revokes_key(&lab.key("one")));
    assert!(!list.revokes_key(&lab.key("two")));
    let error = RevocationList::parse(b"# \nSHA256:abc\n").unwrap_err();
    assert!(error.to_string().starts_with("line 2"), "{error}");
    assert_eq!(RevocationList::parse(b""), Ok(RevocationList::default()));
}

/// A KRL with these sections.
fn krl(sections: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(1u32.to_be_bytes());
    bytes.extend([0; 24 + 8]);
    for (kind, content) in sections {
        bytes.push(*kind);
        bytes.extend(string(content));
    }
    bytes
}

fn string(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&length.to_be_bytes(), content].concat()
}

#[test]
fn what_is_not_understood_is_an_error() {
    let extension = |critical| [string(b"new@x"), vec![critical], string(b"")].concat();
    let certificates = |kind, content: &[u8]| {
        let section = [string(b""), string(b""), vec![kind], string(content)].concat();
        krl(&[(CERTIFICATES, section)])
    };
    let parse = |bytes: &[u8]| RevocationList::parse(bytes);
    assert!(parse(&krl(&[])).is_ok());
    assert!(parse(&krl(&[(EXTENSION, extension(0))])).is_ok());
    assert!(parse(&krl(&[(EXTENSION, extension(1))])).is_err());
    assert!(parse(&certificates(CERTIFICATE_EXTENSION, &extension(0))).is_ok());
    assert!(parse(&certificates(CERTIFICATE_EXTENSION, &extension(1))).is_err());
    let wrap = [u64::MAX.to_be_bytes().to_vec(), string(&[2])].concat();
    let fits = [u64::MAX.to_be_bytes().to_vec(), string(&[1])].concat();
    assert!(parse(&certificates(SERIAL_BITMAP, &wrap)).is_err());
    assert!(parse(&certificates(SERIAL_BITMAP, &fits)).is_ok());
    let backwards = [2u64.to_be_bytes(), 1u64.to_be_bytes()].concat();
    for wrong in [
        MAGIC.to_vec(),
        krl(&[(4, vec![])]),
        krl(&[(77, vec![])]),
        krl(&[(FINGERPRINT_SHA1, string(&[0; 19]))]),
        krl(&[(FINGERPRINT_SHA256, string(&[0; 33]))]),
        krl(&[(EXPLICIT_KEY, vec![0, 0, 0, 9])]),
        certificates(SERIAL_LIST, &[0; 9]),
        certificates(SERIAL_RANGE, &[0; 17]),
        certificates(SERIAL_RANGE, &backwards),
        certificates(0x30, &[]),
        [krl(&[]), vec![1]].concat(),
    ] {
        assert!(parse(&wrong).is_err(), "{wrong:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_panic(content: Vec<u8>, serial: u64) {
        let file = [MAGIC.to_vec(), content.clone()].concat();
        let _ = RevocationList::parse(&content);
        let _ = RevocationList::parse(&file);
        for kind in [CERTIFICATES, EXPLICIT_KEY, EXTENSION] {
            if let Ok(list) = RevocationList::parse(&krl(&[(kind, content.clone())])) {
                let authority = KeyBlob(Vec::new());
                let name = CertificateName { authority: &authority, serial, key_id: "" };
                let _ = list.revokes_certificate(name);
            }
        }
    }

    #[test]
    fn a_bitmap_is_the_numbers_of_its_bits(offset: u32, bits in 1u64..) {
        let offset = u64::from(offset);
        let bytes = bits.to_be_bytes();
        let start = bytes.iter().position(|&byte| byte != 0).unwrap();
        let bitmap = Bitmap { offset, bits: bytes[start..].to_vec() };
        for n in 0..64 {
            prop_assert_eq!(bitmap.has(offset + n), bits >> n & 1 == 1);
        }
        prop_assert!(!bitmap.has(offset + 64) && !bitmap.has(u64::MAX));
        prop_assert_eq!(bitmap.last(), Some(offset + u64::from(bits.ilog2())));
    }
}
