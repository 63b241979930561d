//! Tests that added entries are removed again and the file is restored, except for other programs'
//! later edits.

use super::*;
use std::os::unix::fs::MetadataExt;

use tempfile::TempDir;

const BEFORE: &str = "# by hand\nsearch home.lan\nnameserver 192.0.2.53\noptions edns0";

struct Etc(TempDir);

impl Etc {
    fn new() -> Self {
        Etc(tempfile::tempdir().unwrap())
    }

    fn with_file() -> Self {
        let etc = Self::new();
        fs::write(etc.path(), BEFORE).unwrap();
        etc
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("resolv.conf")
    }

    fn text(&self) -> String {
        fs::read_to_string(self.path()).unwrap()
    }

    /// The complete visible state of the folder.
    fn look(&self) -> Vec<String> {
        let mut seen: Vec<String> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                let found = fs::symlink_metadata(&path).unwrap();
                let (mode, user, group) = (found.mode(), found.uid(), found.gid());
                let content = fs::read(&path).ok();
                let target = fs::read_link(&path).ok();
                format!("{path:?} {mode:o} {user} {group} {content:?} {target:?}")
            })
            .collect();
        seen.sort();
        seen
    }

    fn put(&self, interface: &str, server: &str) {
        let wanted = name_servers(server);
        put_in(&self.path(), interface, &owner("now"), &wanted).unwrap();
    }

    fn take(&self, interface: &str) -> Outcome {
        take_out(&self.path(), interface, &owner("now")).unwrap()
    }
}

fn owner(boot: &str) -> Owner {
    Owner {
        boot_id: boot.to_owned(),
        ..Owner::current().unwrap()
    }
}

fn name_servers(server: &str) -> NameServers {
    NameServers {
        servers: vec![server.parse().unwrap()],
        domains: vec!["corp.example".parse().unwrap()],
    }
}

#[test]
fn a_file_comes_back_with_bytes_mode_and_owner() {
    let etc = Etc::with_file();
    fs::set_permissions(etc.path(), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::chown(etc.path(), Some(7), Some(8)).unwrap();
    let before = etc.look();
    etc.put("sshvpn0", "10.0.0.1");
    let text = etc.text();
    let first = text.find("nameserver 10.0.0.1\n").unwrap();
    assert!(
        first < text.find("nameserver 192.0.2.53\n").unwrap(),
        "{text}"
    );
    assert!(text.contains("search corp.example home.lan\n"), "{text}");
    let access = fs::metadata(etc.path()).unwrap();
    assert_eq!(
        (access.mode() & 0o7777, access.uid(), access.gid()),
        (0o640, 7, 8)
    );
    assert_eq!(etc.look().len(), 1, "nothing is left beside it");
    assert_eq!(etc.take("sshvpn0"), Outcome::Undone);
    assert_eq!(etc.look(), before);
    assert_eq!(etc.take("sshvpn0"), Outcome::Gone);
    assert_eq!(etc.look(), before);
}

#[test]
fn a_link_comes_back_as_a_link() {
    for (target, content) in [("../elsewhere", Some(BEFORE)), ("dangling", None)] {
        let etc = Etc::new();
        let folder = etc.0.path().join("etc");
        fs::create_dir(&folder).unwrap();
        let path = folder.join("resolv.conf");
        symlink(target, &path).unwrap();
        if let Some(content) = content {
            fs::write(etc.0.path().join("elsewhere"), content).unwrap();
        }
        let look = || {
            (
                fs::read_link(&path).ok(),
                fs::read_dir(&folder).unwrap().count(),
            )
        };
        let before = look();
        put_in(&path, "a", &owner("now"), &name_servers("10.0.0.1")).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("nameserver 10.0.0.1\n"), "{text}");
        assert!(text.contains(content.unwrap_or_default()), "{text}");
        assert_eq!(
            take_out(&path, "a", &owner("now")).unwrap(),
            Outcome::Undone
        );
        assert_eq!(look(), before);
        let there = fs::read_to_string(etc.0.path().join("elsewhere")).ok();
        assert_eq!(there.as_deref(), content, "the link's target is unchanged");
    }
}

#[test]
fn a_file_that_was_not_there_goes_again() {
    let etc = Etc::new();
    etc.put("sshvpn0", "10.0.0.1");
    assert_eq!(fs::metadata(etc.path()).unwrap().mode() & 0o7777, 0o644);
    assert_eq!(etc.take("sshvpn0"), Outcome::Undone);
    assert!(etc.look().is_empty());
}

#[test]
fn two_tunnels_go_in_any_order() {
    for order in [["sshvpn0", "sshvpn1"], ["sshvpn1", "sshvpn0"]] {
        let etc = Etc::with_file();
        let before = etc.look();
        etc.put("sshvpn0", "10.0.0.1");
        etc.put("sshvpn1", "10.0.1.1");
        assert_eq!(etc.take(order[0]), Outcome::Shared);
        let (gone, stays) = match order[0] {
            "sshvpn0" => ("10.0.0.1", "10.0.1.1"),
            _ => ("10.0.1.1", "10.0.0.1"),
        };
        assert!(etc.text().contains(&format!("nameserver {stays}\n")));
        assert!(!etc.text().contains(gone));
        assert_eq!(etc.take(order[1]), Outcome::Undone);
        assert_eq!(etc.look(), before);
    }
}

#[test]
fn what_somebody_else_did_meanwhile_stays() {
    // Another program replaced the file.
    let etc = Etc::with_file();
    etc.put("sshvpn0", "10.0.0.1");
    fs::write(etc.path(), "nameserver 198.51.100.1\n").unwrap();
    assert_eq!(etc.take("sshvpn0"), Outcome::Gone);
    assert_eq!(etc.text(), "nameserver 198.51.100.1\n");
    // An administrator added a line.
    let etc = Etc::with_file();
    etc.put("sshvpn0", "10.0.0.1");
    fs::write(etc.path(), etc.text() + "options rotate\n").unwrap();
    assert_eq!(etc.take("sshvpn0"), Outcome::Undone);
    assert_eq!(etc.text(), format!("{BEFORE}options rotate\n"));
    // The same with a link: the edited file stays in place of the link.
    let etc = Etc::new();
    symlink("elsewhere", etc.path()).unwrap();
    etc.put("sshvpn0", "10.0.0.1");
    fs::write(etc.path(), etc.text() + "options rotate\n").unwrap();
    let Outcome::Left(what) = etc.take("sshvpn0") else {
        panic!("it is undone")
    };
    assert!(what.contains("elsewhere"), "{what}");
    assert_eq!(etc.text(), "options rotate\n");
    // Another program made it a link again.
    let etc = Etc::with_file();
    etc.put("sshvpn0", "10.0.0.1");
    fs::rename(etc.path(), etc.0.path().join("moved")).unwrap();
    symlink("moved", etc.path()).unwrap();
    assert_eq!(etc.take("sshvpn0"), Outcome::Gone);
    assert_eq!(fs::read_link(etc.path()).unwrap(), Path::new("moved"));
}

#[test]
fn what_stayed_over_a_reboot_goes() {
    let etc = Etc::with_file();
    let before = etc.look();
    let path = etc.path();
    put_in(
        &path,
        "sshvpn0",
        &owner("earlier"),
        &name_servers("10.0.0.1"),
    )
    .unwrap();
    etc.put("sshvpn1", "10.0.1.1");
    let take = || take_out_earlier_boots(&path, &owner("now")).unwrap();
    assert_eq!(take(), Outcome::Shared);
    assert_eq!(take(), Outcome::Gone, "the other one is up");
    assert!(etc.text().contains("nameserver 10.0.1.1\n"));
    assert_eq!(etc.take("sshvpn1"), Outcome::Undone);
    assert_eq!(etc.look(), before);
    assert_eq!(take(), Outcome::Gone);
}

#[test]
fn a_file_that_is_a_mount_is_written_where_it_is() {
    use nix::mount::{MsFlags, mount};
    use nix::sched::{CloneFlags, unshare};
    let etc = Etc::with_file();
    let before = etc.look();
    // In a mount namespace of this thread only.
    let mounted = || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let nothing: Option<&str> = None;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(nothing, "/", nothing, private, nothing).unwrap();
        let (path, bind) = (etc.path(), MsFlags::MS_BIND);
        mount(Some(&path), &path, nothing, bind, nothing).unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        etc.put("sshvpn0", "10.0.0.1");
        assert!(etc.text().contains("nameserver 10.0.0.1\n"));
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
        assert_eq!(etc.take("sshvpn0"), Outcome::Undone);
        assert_eq!(etc.look(), before);
    };
    std::thread::scope(|scope| scope.spawn(mounted).join().unwrap());
    assert_eq!(etc.look(), before);
}

#[test]
fn what_is_no_such_file_is_refused_and_stays() {
    let etc = Etc::new();
    let path = etc.path();
    let refused = || {
        let error = put_in(&path, "a", &owner("now"), &name_servers("10.0.0.1")).unwrap_err();
        assert!(error.to_string().contains("resolv.conf"), "{error}");
    };
    fs::create_dir(&path).unwrap();
    refused();
    fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused();
    fs::remove_file(&path).unwrap();
    fs::write(&path, vec![b'#'; 65 * 1024]).unwrap();
    refused();
    assert_eq!(fs::metadata(&path).unwrap().len(), 65 * 1024);
    assert_eq!(etc.look().len(), 1);
}
