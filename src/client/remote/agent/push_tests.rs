//! `push.sh` in several shells, and the client's dialogue with it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::time::timeout;

use super::error::RemoteAgentError;
use super::push::{PUSH, Program, hand_over};
use super::start::parts;
use crate::ssh::channel::process::ProcessRequest;
use crate::ssh::client::wire_server::{Wire, WireServer, data, number};
use crate::ssh::test_settings::write_program;

/// Far longer than any step here takes; a test that reaches it hangs.
const HANGS: Duration = Duration::from_secs(30);

const SHELLS: [&[&str]; 3] = [
    &["/bin/dash"],
    &["/bin/bash", "--posix"],
    &["/bin/busybox", "sh"],
];

/// The directory for each test's files, besides /tmp.
const PLACE: &str = "/mnt";

/// Pushed in place of sshvpn: prints its arguments and its directory.
const PROGRAM: &str = "#!/bin/sh
[ \"$1\" = --version ] && exit
echo \"agent: $*\"
ls -ld \"${0%/*}\"
cat
";

/// A host with its own home, runtime directory and PATH.
struct Host {
    shell: &'static [&'static str],
    home: TempDir,
    runtime: TempDir,
    path: String,
}

impl Host {
    fn with(shell: &'static [&'static str]) -> Self {
        Host {
            shell,
            home: tempfile::tempdir_in(PLACE).unwrap(),
            runtime: tempfile::tempdir_in(PLACE).unwrap(),
            path: std::env::var("PATH").unwrap(),
        }
    }

    /// With only these programs: of the system, or scripts of the test.
    fn with_programs(mut self, system: &[&str], own: &[(&str, &str)]) -> Self {
        let folder = self.home.path().join("bin");
        fs::create_dir(&folder).unwrap();
        for name in system {
            let program = ["/usr/bin", "/bin"].map(|place| Path::new(place).join(name));
            let found = program.iter().find(|program| program.exists());
            symlink(found.expect(name), folder.join(name)).unwrap();
        }
        for (name, script) in own {
            write_program(&folder.join(name), script);
        }
        self.path = folder.display().to_string();
        self
    }

    fn push(&self, length: usize, sum: &str) -> Pushing {
        self.push_as(length, sum, "")
    }

    /// `form` is `gzip` if the client can compress the program.
    fn push_as(&self, length: usize, sum: &str, form: &str) -> Pushing {
        let mut child = Command::new(self.shell[0])
            .args(&self.shell[1..])
            .args(["-c", PUSH, "sshvpn-push", &length.to_string(), sum, form])
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.runtime.path())
            .env("PATH", &self.path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // The test may end before the process.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Pushing {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
        }
    }

    /// The copies that exist now.
    fn copies(&self) -> Vec<PathBuf> {
        [self.runtime.path(), Path::new("/tmp"), self.home.path()]
            .into_iter()
            .flat_map(|place| fs::read_dir(place).unwrap())
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_string_lossy().contains("/sshvpn-push."))
            .collect()
    }
}

/// A running `push.sh`, killed with the test.
struct Pushing {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Drop for Pushing {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pushing {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The next line of push.sh, without its prefix.
    fn word(&mut self) -> String {
        let line = self.line();
        let word = line.strip_prefix("sshvpn-push: ");
        word.unwrap_or_else(|| panic!("'{line}'")).to_owned()
    }

    fn say(&mut self, bytes: &[u8]) {
        self.input.as_mut().unwrap().write_all(bytes).unwrap();
    }

    /// Reads up to `send`.
    fn wants(&mut self) {
        self.wants_as("send");
    }

    fn wants_as(&mut self, word: &str) {
        assert!(self.word().starts_with("system Linux "));
        assert_eq!(self.word(), word);
    }

    /// Reads its refusal and waits for its end; returns the reason.
    fn refuses(mut self) -> String {
        let word = self.word();
        assert_eq!(self.line(), "");
        assert_eq!(self.child.wait().unwrap().code(), Some(1));
        word.strip_prefix("no ").expect(&word).to_owned()
    }
}

fn sum(program: &str) -> String {
    let digest = digest(&SHA256, program.as_bytes());
    digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Runs `test` once for each shell, on a thread with its own /tmp.
fn in_every_shell(test: fn(Host)) {
    for shell in SHELLS {
        apart(move || test(Host::with(shell)));
    }
}

fn apart(test: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        // A panic drops it.
        let _done: mpsc::Sender<()> = done;
        unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root");
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        for place in ["/tmp", PLACE] {
            memory(place, MsFlags::empty(), "");
        }
        test();
    });
    if finished.recv_timeout(HANGS) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it hangs");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A file system in memory at `place`.
fn memory(place: impl AsRef<Path>, flags: MsFlags, options: &str) {
    let place = place.as_ref();
    mount(Some("none"), place, Some("tmpfs"), flags, Some(options)).unwrap();
}

#[test]
fn a_program_that_is_whole_runs_in_a_private_place_and_is_removed() {
    in_every_shell(|host| {
        let mut pushing = host.push(PROGRAM.len(), &sum(PROGRAM));
        pushing.wants();
        let (start, rest) = PROGRAM.split_at(10);
        pushing.say(start.as_bytes());
        pushing.say(rest.as_bytes());
        assert_eq!(pushing.word(), "run");
        assert_eq!(pushing.line(), "agent: agent --remove-self");
        let place = pushing.line();
        assert!(place.starts_with("drwx------ "), "{place}");
        assert!(place.contains(&host.runtime.path().display().to_string()));
        // The rest goes to the agent.
        pushing.say(b"hello\n");
        assert_eq!(pushing.line(), "hello");
        assert_eq!(host.copies().len(), 1);
        drop(pushing.input.take());
        assert!(pushing.child.wait().unwrap().success());
        assert_eq!(host.copies(), [] as [PathBuf; 0]);
    });
}

#[test]
fn one_that_is_not_what_was_sent_is_never_run() {
    in_every_shell(|host| {
        let mut pushing = host.push(PROGRAM.len(), &sum("another"));
        pushing.wants();
        pushing.say(PROGRAM.as_bytes());
        let reason = pushing.refuses();
        assert!(reason.contains("is not what was sent"), "{reason}");
        assert_eq!(host.copies(), [] as [PathBuf; 0]);
        // The connection ends in mid-transfer.
        let mut pushing = host.push(PROGRAM.len(), &sum(PROGRAM));
        pushing.wants();
        pushing.say(&PROGRAM.as_bytes()[..20]);
        drop(pushing.input.take());
        let reason = pushing.refuses();
        assert!(reason.contains("is not what was sent"), "{reason}");
        assert_eq!(host.copies(), [] as [PathBuf; 0]);
    });
}

#[test]
fn one_that_does_not_run_there_is_said_to() {
    in_every_shell(|host| {
        let broken = "#!/bin/sh\necho 'no GLIBC_9\nfound' >&2; exit 1\n";
        let mut pushing = host.push(broken.len(), &sum(broken));
        pushing.wants();
        pushing.say(broken.as_bytes());
        assert_eq!(pushing.refuses(), "it does not run there: no GLIBC_9 found");
        assert_eq!(host.copies(), [] as [PathBuf; 0]);
    });
}

#[test]
fn a_signal_removes_it_too() {
    in_every_shell(|host| {
        let mut pushing = host.push(PROGRAM.len(), &sum(PROGRAM));
        pushing.wants();
        assert_eq!(host.copies().len(), 1);
        let pid = Pid::from_raw(pushing.child.id().try_into().unwrap());
        kill(pid, Signal::SIGTERM).unwrap();
        // Some shells run the trap only once the command that they wait for has ended.
        drop(pushing.input.take());
        assert_eq!(pushing.child.wait().unwrap().code(), Some(1));
        assert_eq!(host.copies(), [] as [PathBuf; 0]);
    });
}

#[test]
fn nobody_who_listens_removes_it_too() {
    in_every_shell(|host| {
        let mut pushing = host.push(PROGRAM.len(), &sum(PROGRAM));
        pushing.wants();
        let (another, _) = std::io::pipe().unwrap();
        pushing.output = BufReader::new(ChildStdout::from(OwnedFd::from(another)));
        drop(pushing.input.take());
        pushing.child.wait().unwrap();
        assert_eq!(host.copies(), [] as [PathBuf; 0]);
    });
}

/// Removes the directory of a killed `push.sh`, into which its programs may still be writing.
fn remove(copy: &Path) {
    let limit = Instant::now() + Duration::from_secs(20);
    while copy.exists() {
        let removed = fs::remove_dir_all(copy);
        assert!(Instant::now() < limit, "{removed:?}");
        std::thread::yield_now();
    }
}

#[test]
fn the_first_place_with_room_where_files_run_is_taken() {
    in_every_shell(|host| {
        let place = |host: &Host| {
            let mut pushing = host.push(PROGRAM.len(), &sum(PROGRAM));
            pushing.wants();
            let copies = host.copies();
            assert_eq!(copies.len(), 1);
            copies[0].parent().unwrap().to_owned()
        };
        assert_eq!(place(&host), host.runtime.path());
        for entry in fs::read_dir(host.runtime.path()).unwrap() {
            remove(&entry.unwrap().path());
        }
        memory(host.runtime.path(), MsFlags::MS_NOEXEC, "");
        assert_eq!(place(&host), Path::new("/tmp"));
        memory("/tmp", MsFlags::empty(), "size=4k");
        let mut pushing = host.push(1 << 20, &sum(PROGRAM));
        pushing.wants();
        assert_eq!(host.copies()[0].parent(), Some(host.home.path()));
        drop(pushing);
        for copy in host.copies() {
            remove(&copy);
        }
        memory(host.home.path(), MsFlags::MS_NOEXEC, "");
        for last in ["/dev/shm", "/var/tmp", "/run"] {
            memory(last, MsFlags::MS_NOEXEC, "");
        }
        let mut pushing = host.push(1 << 20, &sum(PROGRAM));
        pushing.word();
        assert!(pushing.refuses().contains("has room for a program"));
        assert_eq!(host.copies(), [] as [PathBuf; 0]);
    });
}

/// Programs that push.sh always needs.
const TOOLS: [&str; 11] = [
    "uname", "id", "mktemp", "chmod", "head", "rm", "tr", "sh", "ls", "cat", "mkdir",
];

#[test]
fn any_tool_verifies_it_and_none_is_a_refusal() {
    for verifier in ["sha256sum", "openssl", "busybox"] {
        apart(move || {
            let tools = [&TOOLS[..], &[verifier]].concat();
            let host = Host::with(SHELLS[0]).with_programs(&tools, &[]);
            let mut pushing = host.push(PROGRAM.len(), &sum(PROGRAM));
            pushing.wants();
            pushing.say(PROGRAM.as_bytes());
            assert_eq!(pushing.word(), "run", "{verifier}");
        });
    }
    apart(|| {
        let host = Host::with(SHELLS[0]).with_programs(&TOOLS, &[]);
        let mut pushing = host.push(1, &sum("x"));
        pushing.word();
        assert!(pushing.refuses().contains("cannot be verified"));
    });
}

/// The program, compressed.
fn packed(program: &str) -> Vec<u8> {
    use flate2::{Compression, write::GzEncoder};
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(program.as_bytes()).unwrap();
    packed.finish().unwrap()
}

#[test]
fn it_is_unpacked_where_that_is_possible() {
    let packed = packed(PROGRAM);
    for (unpacker, form) in [
        (&["gzip"][..], "send gzip"),
        (&["busybox"], "send gzip"),
        (&[], "send"),
    ] {
        let packed = packed.clone();
        apart(move || {
            let tools = [&TOOLS[..], &["sha256sum"], unpacker].concat();
            let host = Host::with(SHELLS[0]).with_programs(&tools, &[]);
            let mut pushing = host.push_as(PROGRAM.len(), &sum(PROGRAM), "gzip");
            pushing.wants_as(form);
            match form {
                "send" => pushing.say(PROGRAM.as_bytes()),
                _ => {
                    pushing.say(format!("{}\n", packed.len()).as_bytes());
                    pushing.say(&packed);
                }
            }
            assert_eq!(pushing.word(), "run", "{unpacker:?}");
            assert_eq!(pushing.line(), "agent: agent --remove-self");
        });
    }
}

#[test]
fn one_that_cannot_be_unpacked_is_never_run() {
    in_every_shell(|host| {
        let mut wrong = packed(PROGRAM);
        let middle = wrong.len() / 2;
        wrong[middle] ^= 1;
        let mut pushing = host.push_as(PROGRAM.len(), &sum(PROGRAM), "gzip");
        pushing.wants_as("send gzip");
        pushing.say(format!("{}\n", wrong.len()).as_bytes());
        pushing.say(&wrong);
        let reason = pushing.refuses();
        assert!(reason.contains("cannot be"), "{reason}");
        assert_eq!(host.copies(), [] as [PathBuf; 0]);
    });
}

#[test]
fn a_login_that_is_not_root_needs_sudo() {
    apart(|| {
        let tools: Vec<&str> = TOOLS.into_iter().filter(|tool| *tool != "id").collect();
        let tools = [&tools[..], &["sha256sum"]].concat();
        let id = ("id", "echo 7");
        let host = Host::with(SHELLS[0]).with_programs(&tools, &[id]);
        let mut pushing = host.push(1, &sum("x"));
        pushing.word();
        assert_eq!(pushing.word().trim_end(), "no-sudo");
        let sudo = (
            "sudo",
            "[ \"$1\" = -n ] || exit 1; shift; [ \"$1\" = true ] || echo sudo; exec \"$@\"",
        );
        let tools = [&tools[..], &["true"]].concat();
        let host = Host::with(SHELLS[0]).with_programs(&tools, &[id, sudo]);
        let mut pushing = host.push(PROGRAM.len(), &sum(PROGRAM));
        pushing.wants();
        pushing.say(PROGRAM.as_bytes());
        assert_eq!(pushing.word(), "run");
        assert_eq!(pushing.line(), "sudo");
        assert_eq!(pushing.line(), "agent: agent --remove-self");
    });
}

#[test]
fn the_program_is_read_whole() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), PROGRAM).unwrap();
    fs::set_permissions(file.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let mut program = Program::read(file.path().to_str().unwrap()).unwrap();
    assert_eq!(program.length, PROGRAM.len() as u64);
    assert_eq!(program.sum, sum(PROGRAM));
    assert_eq!(program.pack().unwrap(), packed(PROGRAM));
}

/// The result of handing `program` over to a remote host that behaves as `server`.
async fn handed_over(
    program: &[u8],
    server: impl AsyncFnOnce(&mut Wire, u32) -> std::io::Result<()>,
) -> Result<(), RemoteAgentError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), program).unwrap();
    let program = Program::read(file.path().to_str().unwrap()).unwrap();
    let listening = WireServer::bind().await;
    let (connection, mut wire) = listening.connect().await;
    let serve = async {
        let (channel, _) = wire.start_next().await.unwrap();
        server(&mut wire, channel).await.unwrap();
        wire
    };
    let client = async {
        let process = connection.start(&ProcessRequest::default()).await.unwrap();
        let mut candidate = parts(&connection, process);
        hand_over("b", &mut candidate, program, &|_| {}, false).await
    };
    let both = async { tokio::join!(client, serve) };
    timeout(HANGS, both).await.expect("it hangs").0
}

fn system() -> String {
    format!("sshvpn-push: system Linux {}\n", std::env::consts::ARCH)
}

#[tokio::test]
async fn the_program_is_sent_when_it_is_asked_for() {
    let done = handed_over(&[b'p'; 100_000], async |wire, channel| {
        wire.send(&data(channel, "motd\nno reason\n")).await?;
        wire.send(&data(channel, system())).await?;
        wire.send(&data(channel, "sshvpn-push: send\n")).await?;
        let mut received = 0;
        while received < 100_000 {
            let packet = wire.wait_for(number::CHANNEL_DATA).await?;
            // Message number, channel and length come first.
            received += packet.len() - 9;
        }
        assert_eq!(received, 100_000);
        wire.send(&data(channel, "sshvpn-push: run\n")).await
    });
    done.await.unwrap();
}

#[tokio::test]
async fn it_is_sent_compressed_where_that_is_asked_for() {
    let program = "sshvpn ".repeat(100_000);
    let packed = packed(&program);
    let expected = [format!("{}\n", packed.len()).as_bytes(), &packed].concat();
    let done = handed_over(program.as_bytes(), async |wire, channel| {
        wire.send(&data(channel, system())).await?;
        wire.send(&data(channel, "sshvpn-push: send gzip\n"))
            .await?;
        let mut received = Vec::new();
        while received.len() < expected.len() {
            let packet = wire.wait_for(number::CHANNEL_DATA).await?;
            received.extend_from_slice(packet.get(9..).unwrap());
        }
        assert!(received == expected);
        wire.send(&data(channel, "sshvpn-push: run\n")).await
    });
    done.await.unwrap();
}

#[tokio::test]
async fn another_system_is_sent_nothing() {
    for system in ["Linux pdp11", "FreeBSD amd64", ""] {
        let error = handed_over(b"p", async |wire, channel| {
            let said = format!("sshvpn-push: system {system}\nsshvpn-push: send\n");
            wire.send(&data(channel, said)).await
        });
        let text = error.await.unwrap_err().to_string();
        let ours = format!("for Linux {}", std::env::consts::ARCH);
        assert!(text.contains(system) && text.contains(&ours), "{text}");
    }
}

/// The remote host stops reading in mid-transfer and gives a reason.
#[tokio::test]
async fn a_refusal_is_heard_while_the_program_is_sent() {
    let error = handed_over(&[0; 4 << 20], async |wire, channel| {
        wire.send(&data(channel, system())).await?;
        wire.send(&data(channel, "sshvpn-push: send\n")).await?;
        wire.wait_for(number::CHANNEL_DATA).await?;
        let said = "sshvpn-push: no room\x1b[2J left\n";
        wire.send(&data(channel, said)).await
    });
    let text = error.await.unwrap_err().to_string();
    assert_eq!(text, "b: cannot push sshvpn: room[2J left");
}

#[tokio::test]
async fn a_remote_end_that_runs_before_it_has_all_is_not_believed() {
    let error = handed_over(&[0; 4 << 20], async |wire, channel| {
        wire.send(&data(channel, system())).await?;
        let said = "sshvpn-push: send\nsshvpn-push: run\n";
        wire.send(&data(channel, said)).await
    });
    let text = error.await.unwrap_err().to_string();
    assert!(text.contains("unexpected answer 'run'"), "{text}");
}
