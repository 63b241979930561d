//! One host of the lab: mount, network, pid, IPC and UTS namespaces under its own init, with
//! private /etc, /run, /var/lib, /var/log and /dev/net.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::geteuid;

use crate::lab::child::{self, Child, Output};
use crate::wait::PATIENCE;

/// The host's init: makes the private directories, prints that it is ready, and runs until its
/// standard input is closed, at the latest when the test process dies. Bash reaps orphans.
const INIT: &str = include_str!("init.sh");

/// The PATH of the host's programs.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A host. Dropping it ends all its processes and removes everything that they made.
pub struct Host {
    name: String,
    init: process::Child,
    mount: File,
    network: File,
    pid: File,
    ipc: File,
    uts: File,
}

/// A process of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its pid in the host's namespace.
    pub pid: u32,
    /// Its command line.
    pub command: String,
}

impl Host {
    /// Makes a host called `name`, with only a loopback device.
    pub fn new(name: &str) -> Result<Self> {
        ensure!(
            geteuid().is_root(),
            "the lab makes namespaces: run the scenarios as root"
        );
        ensure!(
            Path::new("/dev/net/tun").exists(),
            "this machine has no /dev/net/tun"
        );
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let unique = format!("sv{}-{number}-{name}", process::id());
        let mut init = in_thread(|| {
            unshare(namespaces() | CloneFlags::CLONE_NEWPID).context("making namespaces")?;
            Command::new("bash")
                .args(["-c", INIT, "init", name, &unique])
                .env_clear()
                .env("PATH", PATH)
                .current_dir("/")
                .process_group(0)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("starting bash as the host's init")
        })?;
        let mut line = String::new();
        let stdout = init.stdout.take().context("stdout was piped")?;
        BufReader::new(stdout).read_line(&mut line)?;
        if line != "ready\n" {
            let status = init.wait()?;
            bail!("the init of {name} did not get ready: {status}");
        }
        let open = |kind: &str| File::open(format!("/proc/{}/ns/{kind}", init.id()));
        Ok(Self {
            name: name.to_owned(),
            mount: open("mnt")?,
            network: open("net")?,
            pid: open("pid")?,
            ipc: open("ipc")?,
            uts: open("uts")?,
            init,
        })
    }

    /// The name given to [`Host::new`].
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pid of its init in the test process's namespace.
    pub fn init_pid(&self) -> u32 {
        self.init.id()
    }

    /// Starts `command`, a program and its arguments.
    pub fn spawn<S: AsRef<str>>(&self, command: &[S]) -> Result<Child> {
        self.spawn_reading(command, Stdio::null())
    }

    /// Starts `command` with `input` as its standard input.
    pub fn spawn_with_input<S: AsRef<str>>(&self, command: &[S], input: OwnedFd) -> Result<Child> {
        self.spawn_reading(command, input.into())
    }

    fn spawn_reading<S: AsRef<str>>(&self, command: &[S], input: Stdio) -> Result<Child> {
        let words: Vec<&str> = command.iter().map(AsRef::as_ref).collect();
        let (program, arguments) = words.split_first().context("an empty command")?;
        let line = words.join(" ");
        let title = format!("{}: {}", self.name, line.lines().next().unwrap_or_default());
        let process = in_thread(|| {
            self.enter()?;
            let mut command = Command::new(program);
            command
                .args(arguments)
                .env_clear()
                .envs(self.environment())
                .current_dir("/")
                .stdin(input);
            child::start(&title, &mut command)
        })?;
        Child::watch(title, process)
    }

    /// Runs `command` and waits for its end.
    pub fn run<S: AsRef<str>>(&self, command: &[S]) -> Result<Output> {
        self.spawn(command)?.wait(PATIENCE)
    }

    /// Runs a shell line, which has to succeed; returns its output.
    pub fn sh(&self, line: &str) -> Result<String> {
        self.run(&["bash", "-euc", line])?.ok()
    }

    /// Runs `make` on a thread in only the network namespace of this host. A socket made there
    /// stays there, and any thread can use it.
    pub fn in_network<T: Send>(&self, make: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        in_thread(|| {
            setns(&self.network, CloneFlags::CLONE_NEWNET).context("entering the network")?;
            make()
        })
    }

    /// The path by which the test process reaches `path` of this host. Not for /proc/sys/net, where
    /// each process sees its own network's settings.
    pub fn path(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init.id()))
    }

    /// The text of the file `path`.
    pub fn read(&self, path: &str) -> Result<String> {
        let bytes = fs::read(self.path(path)).with_context(|| format!("{}: {path}", self.name))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Writes the file `path`, and makes its directories.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let path = self.path(path);
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory)?;
        }
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }

    /// Appends `text` to the file `path`.
    pub fn append(&self, path: &str, text: &str) -> Result<()> {
        let before = self.read(path).unwrap_or_default();
        self.write(path, &(before + text))
    }

    /// The processes, except for the init.
    pub fn processes(&self) -> Result<Vec<Process>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.path("/proc"))? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            // A process that has just ended cannot be read; a zombie has no command line.
            let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
            let command = line.replace('\0', " ").trim().to_owned();
            if pid != 1 && !command.is_empty() {
                found.push(Process { pid, command });
            }
        }
        Ok(found)
    }

    /// Sends SIGKILL to the processes whose command line begins with `start`; fails if there is
    /// none.
    pub fn kill(&self, start: &str) -> Result<()> {
        let matches = |process: &Process| process.command.starts_with(start);
        let found: Vec<_> = self.processes()?.into_iter().filter(matches).collect();
        ensure!(
            !found.is_empty(),
            "{}: no command line begins with '{start}'",
            self.name
        );
        let mut command = vec!["kill".to_owned(), "-KILL".to_owned()];
        command.extend(found.iter().map(|process| process.pid.to_string()));
        self.run(&command)?.ok()?;
        Ok(())
    }

    fn environment(&self) -> [(&'static str, &'static str); 6] {
        [
            ("PATH", PATH),
            ("HOME", "/run/home/root"),
            ("USER", "root"),
            ("LOGNAME", "root"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
        ]
    }

    /// Moves the calling thread, and its future children, into this host.
    fn enter(&self) -> Result<()> {
        // Threads share a working directory, which setns to a mount namespace
        // does not permit.
        unshare(CloneFlags::CLONE_FS)?;
        setns(&self.pid, CloneFlags::CLONE_NEWPID)?;
        setns(&self.network, CloneFlags::CLONE_NEWNET)?;
        setns(&self.ipc, CloneFlags::CLONE_NEWIPC)?;
        setns(&self.uts, CloneFlags::CLONE_NEWUTS)?;
        setns(&self.mount, CloneFlags::CLONE_NEWNS)?;
        Ok(())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The kernel kills the rest of the pid namespace with its init.
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

fn namespaces() -> CloneFlags {
    CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
}

/// Runs `work` on a new thread, so that the namespaces that it enters end with the thread.
fn in_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
