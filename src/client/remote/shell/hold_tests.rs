//! `hold.sh` and `probe.sh` in several shells: each change is undone, once, in reverse, however
//! the process ends. Each test has its own network and /run.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::holder::HOLD;
use super::{PROBE, facts};
use crate::host::address_claim::{AddressClaim, Side};

/// Far longer than any step here takes; a test that reaches it hangs.
const HANGS: Duration = Duration::from_secs(30);

const SHELLS: [&[&str]; 3] = [&["dash"], &["bash", "--posix"], &["busybox", "sh"]];

/// The holder's directory.
pub(super) const DIRECTORY: &str = "/run/sshvpn";

/// Runs `test` once for each shell, on a thread with its own namespaces.
pub(super) fn in_every_shell(test: impl Fn(Shell) + Clone + Send + 'static) {
    for shell in SHELLS {
        let (done, finished) = mpsc::channel();
        let test = test.clone();
        let thread = std::thread::spawn(move || {
            // A panic drops it.
            let _done: mpsc::Sender<()> = done;
            unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS)
                .expect("these tests need root");
            run("mount --make-rprivate /");
            run("mount -t tmpfs none /run");
            run("mount -t sysfs none /sys");
            test(Shell(shell));
        });
        if finished.recv_timeout(HANGS) == Err(mpsc::RecvTimeoutError::Timeout) {
            panic!("{shell:?} hangs");
        }
        if let Err(panic) = thread.join() {
            eprintln!("in {shell:?}:");
            std::panic::resume_unwind(panic);
        }
    }
}

pub(super) fn run(command: &str) {
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.unwrap().success(), "{command}");
}

#[derive(Clone, Copy)]
pub(super) struct Shell(&'static [&'static str]);

impl Shell {
    fn command(self, program: &str, name: &str) -> Command {
        let mut command = Command::new(self.0[0]);
        command.args(&self.0[1..]).args(["-c", program, name]);
        command
    }

    pub(super) fn hold(self) -> Held {
        let mut child = self
            .command(HOLD, "sshvpn-hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("scripts/setup --tests installs every shell");
        let mut held = Held {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            recovered: Vec::new(),
        };
        loop {
            let line = held.line().expect("it ended before it was ready");
            match line.split_once(' ') {
                Some(("ready", pid)) => {
                    assert_eq!(pid, held.child.id().to_string());
                    return held;
                }
                Some(("recovered", pid)) => held.recovered.push(pid.parse().unwrap()),
                _ => panic!("{line}"),
            }
        }
    }
}

/// A running `hold.sh`, killed with the test.
pub(super) struct Held {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// Process ids of the predecessors whose changes it undid.
    recovered: Vec<u32>,
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Held {
    fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.output.read_until(b'\n', &mut line).unwrap();
        let line = String::from_utf8(line).unwrap();
        line.strip_suffix('\n').map(str::to_owned)
    }

    fn say(&mut self, text: &str) {
        self.input
            .as_mut()
            .unwrap()
            .write_all(text.as_bytes())
            .unwrap();
    }

    /// Does a step in the client's format; returns the answer.
    fn step(&mut self, undo: &str, command: &str) -> String {
        let undo = undo.replace("$HOLDER", &self.child.id().to_string());
        self.say(&format!("U {undo}\nD {command}\n"));
        self.line().expect("it ended in a step")
    }

    pub(super) fn hold(&mut self, file: &str, value: u32) {
        let undo = format!("release '{file}' $HOLDER");
        assert_eq!(self.step(&undo, &format!("hold '{file}' {value}")), "ok ");
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    pub(super) fn ends(mut self) {
        drop(self.input.take());
        assert_eq!(self.line().as_deref(), Some("undone"));
        assert!(self.child.wait().unwrap().success());
    }

    /// Kills it by SIGKILL.
    fn killed(mut self) -> u32 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child.id()
    }
}

pub(super) fn sysctl(file: &str) -> String {
    fs::read_to_string(format!("/proc/sys/{file}"))
        .unwrap()
        .trim()
        .to_owned()
}

fn read(file: &str) -> String {
    fs::read_to_string(file).unwrap_or_default()
}

#[track_caller]
pub(super) fn nothing_left() {
    let left: Vec<_> = fs::read_dir(DIRECTORY).into_iter().flatten().collect();
    assert!(!Path::new(DIRECTORY).exists(), "{left:?}");
}

/// Three steps that are undone one after the other.
fn three_steps(held: &mut Held) {
    for number in 1..=3 {
        let undo = format!("echo {number} >>/run/undone");
        assert_eq!(
            held.step(&undo, &format!("echo done {number}")),
            format!("ok done {number}")
        );
    }
}

#[test]
fn the_last_step_is_undone_first() {
    in_every_shell(|shell| {
        let mut held = shell.hold();
        three_steps(&mut held);
        held.ends();
        assert_eq!(read("/run/undone"), "3\n2\n1\n");
        nothing_left();
    });
}

#[test]
fn half_a_line_is_not_done() {
    in_every_shell(|shell| {
        let mut held = shell.hold();
        three_steps(&mut held);
        held.say("U touch /run/never\nD touch /run/half");
        held.ends();
        assert!(!Path::new("/run/half").exists());
        assert_eq!(read("/run/undone"), "3\n2\n1\n");
    });
}

#[test]
fn a_failed_step_says_why_and_the_next_one_is_done() {
    in_every_shell(|shell| {
        let mut held = shell.hold();
        assert_eq!(held.step("", "false"), "no ");
        assert_eq!(held.step("", "echo why >&2; exit 7"), "no why");
        assert!(held.step("", "no-such-command").starts_with("no "));
        assert!(held.step("", "if then (").starts_with("no "));
        assert_eq!(held.step("if then (", "echo good"), "ok good");
        // The rest of the input is not read by a step.
        assert_eq!(held.step("", "cat; echo read"), "ok read");
        three_steps(&mut held);
        held.ends();
        assert_eq!(read("/run/undone"), "3\n2\n1\n");
    });
}

#[test]
fn text_of_any_kind_and_length_is_itself() {
    in_every_shell(|shell| {
        let mut held = shell.hold();
        let wild = r#"a'\''b "c" `d` $HOME \n \\ \t \c * ; & | é"#;
        let shown = wild.replace(r"'\''", "'");
        assert_eq!(
            held.step("", &format!("printf %s '{wild}'")),
            format!("ok {shown}")
        );
        assert_eq!(held.step("", r"printf 'one\ntwo\n\n'"), "ok one two");
        let long = "x".repeat(100_000);
        assert_eq!(held.step("", &format!("echo {long}")), format!("ok {long}"));
        // From memory, and from the file that a killed process leaves.
        let undo = format!("printf %s '{wild}' >/run/wild");
        held.step(&undo, "true");
        held.step(&format!("echo {long} >/run/long"), "true");
        held.killed();
        shell.hold().ends();
        assert_eq!(read("/run/wild"), shown);
        assert_eq!(read("/run/long").trim(), long);
        fs::remove_file("/run/wild").unwrap();
        let mut held = shell.hold();
        held.step(&undo, "true");
        held.ends();
        assert_eq!(read("/run/wild"), shown);
        nothing_left();
    });
}

#[test]
fn signals() {
    in_every_shell(|shell| {
        let mut held = shell.hold();
        three_steps(&mut held);
        for ignored in [
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGPIPE,
        ] {
            held.signal(ignored);
        }
        assert_eq!(held.step("", "echo here"), "ok here");
        held.signal(Signal::SIGTERM);
        assert_eq!(held.line().as_deref(), Some("undone"));
        assert!(held.child.wait().unwrap().success());
        assert_eq!(read("/run/undone"), "3\n2\n1\n");
        nothing_left();
    });
}

#[test]
fn nobody_reads_what_it_says() {
    in_every_shell(|shell| {
        let mut held = shell.hold();
        three_steps(&mut held);
        // The reader of its output is closed.
        let (reader, _writer) = nix::unistd::pipe().unwrap();
        held.output = BufReader::new(ChildStdout::from(reader));
        drop(held.input.take());
        assert!(held.child.wait().unwrap().success());
        assert_eq!(read("/run/undone"), "3\n2\n1\n");
        nothing_left();
    });
}

#[test]
fn the_next_one_undoes_what_a_killed_one_left() {
    in_every_shell(|shell| {
        let mut first = shell.hold();
        three_steps(&mut first);
        let alive = shell.hold();
        let first = first.killed();
        let second = shell.hold();
        assert_eq!(second.recovered, [first]);
        assert_eq!(read("/run/undone"), "3\n2\n1\n");
        second.ends();
        alive.ends();
        nothing_left();
    });
}

#[test]
fn a_sysctl_goes_back_with_the_last_who_wants_it() {
    const FILE: &str = "net/ipv4/conf/lo/forwarding";
    in_every_shell(|shell| {
        let before = sysctl(FILE);
        fs::write(format!("/proc/sys/{FILE}"), "0").unwrap();
        let (mut a, mut b, mut c) = (shell.hold(), shell.hold(), shell.hold());
        for held in [&mut a, &mut b, &mut c] {
            held.hold(FILE, 1);
        }
        a.ends();
        assert_eq!(sysctl(FILE), "1");
        let b = b.killed();
        assert_eq!(sysctl(FILE), "1");
        let d = shell.hold();
        assert_eq!(d.recovered, [b]);
        assert_eq!(sysctl(FILE), "1", "another still wants it");
        c.ends();
        assert_eq!(sysctl(FILE), "0");
        d.ends();
        // The last holder does not know that the first was killed.
        let (mut a, mut b) = (shell.hold(), shell.hold());
        a.hold(FILE, 1);
        b.hold(FILE, 1);
        a.killed();
        b.ends();
        assert_eq!(sysctl(FILE), "0");
        shell.hold().ends();
        // Another program has changed it since.
        let mut a = shell.hold();
        a.hold("net/ipv4/conf/lo/rp_filter", 2);
        fs::write("/proc/sys/net/ipv4/conf/lo/rp_filter", "1").unwrap();
        a.ends();
        assert_eq!(sysctl("net/ipv4/conf/lo/rp_filter"), "1");
        // The value is set already: nothing to hold.
        let mut a = shell.hold();
        a.hold("net/ipv4/conf/lo/rp_filter", 1);
        fs::write("/proc/sys/net/ipv4/conf/lo/rp_filter", "0").unwrap();
        a.ends();
        assert_eq!(sysctl("net/ipv4/conf/lo/rp_filter"), "0");
        assert_eq!(a_missing_sysctl(shell), "no");
        fs::write(format!("/proc/sys/{FILE}"), before).unwrap();
        nothing_left();
    });
}

/// Several settings at once: absent and already set ones are skipped, ones that cannot be set
/// are named, and the rest are set.
#[test]
fn settings_of_a_device() {
    in_every_shell(|shell| {
        run("ip tuntap add dev tun3 mode tun");
        let file = |leaf: &str| format!("net/ipv6/conf/tun3/{leaf}");
        let (ra, redirects) = (file("accept_ra"), file("accept_redirects"));
        // A read-only setting stands in for a read-only /proc/sys.
        let stubborn = "net/ipv4/conf/tun3/mc_forwarding";
        let list = format!("'{ra}' 0 'net/no/such' 1 '{stubborn}' 1 '{redirects}' 0");
        let mut held = shell.hold();
        let answer = held.step("true", &format!("each put {list}"));
        assert_eq!(answer.trim_end(), format!("ok {stubborn}"));
        assert_eq!((&*sysctl(&ra), &*sysctl(&redirects)), ("0", "0"));
        held.ends();
        for setting in [&ra, &redirects] {
            fs::write(format!("/proc/sys/{setting}"), "1").unwrap();
        }
        let mut held = shell.hold();
        let undo = format!("release '{ra}' $HOLDER; release '{redirects}' $HOLDER");
        let list = format!("'{ra}' 0 'net/no/such' 1 '{redirects}' 0");
        assert_eq!(held.step(&undo, &format!("each hold {list}")), "ok ");
        assert_eq!((&*sysctl(&ra), &*sysctl(&redirects)), ("0", "0"));
        held.ends();
        assert_eq!((&*sysctl(&ra), &*sysctl(&redirects)), ("1", "1"));
        nothing_left();
    });
}

fn a_missing_sysctl(shell: Shell) -> String {
    let mut held = shell.hold();
    let answer = held.step("release net/no/such $HOLDER", "hold net/no/such 1");
    held.ends();
    answer.split(' ').next().unwrap().to_owned()
}

#[test]
fn interfaces_that_stood_out_from_all_do_so_again() {
    in_every_shell(|shell| {
        const ALL: &str = "net/ipv6/conf/all/forwarding";
        run("ip tuntap add dev own mode tun");
        run("ip tuntap add dev other mode tun");
        fs::write("/proc/sys/net/ipv6/conf/own/forwarding", "1").unwrap();
        let mut held = shell.hold();
        held.hold(ALL, 1);
        assert_eq!(sysctl("net/ipv6/conf/other/forwarding"), "1");
        held.killed();
        shell.hold().ends();
        assert_eq!(sysctl(ALL), "0");
        assert_eq!(sysctl("net/ipv6/conf/own/forwarding"), "1");
        assert_eq!(sysctl("net/ipv6/conf/other/forwarding"), "0");
        nothing_left();
    });
}

#[test]
fn ten_at_once() {
    const FILE: &str = "net/ipv4/conf/lo/forwarding";
    in_every_shell(|shell| {
        fs::write(format!("/proc/sys/{FILE}"), "0").unwrap();
        let mut left = shell.hold();
        left.hold(FILE, 1);
        three_steps(&mut left);
        let left = left.killed();
        // All are started before the output of any is read.
        let mut starting: Vec<Child> = Vec::new();
        for _ in 0..10 {
            let mut command = shell.command(HOLD, "sshvpn-hold");
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            starting.push(command.spawn().unwrap());
        }
        let held = starting.into_iter().map(|mut child| Held {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()),
            child,
            recovered: Vec::new(),
        });
        let mut held: Vec<Held> = held.collect();
        let mut recovered = Vec::new();
        for held in &mut held {
            while let Some(line) = held.line() {
                match line.strip_prefix("recovered ") {
                    Some(pid) => recovered.push(pid.to_owned()),
                    None => break,
                }
            }
            held.say(&format!(
                "U release '{FILE}' {}\nD hold '{FILE}' 1\n",
                held.child.id()
            ));
        }
        for held in &mut held {
            assert_eq!(held.line().as_deref(), Some("ok "));
            let journal = format!("{DIRECTORY}/far-{}.undo", held.child.id());
            assert!(Path::new(&journal).exists(), "{journal}");
        }
        assert_eq!(recovered, [left.to_string()]);
        assert_eq!(read("/run/undone"), "3\n2\n1\n", "undone once");
        assert_eq!(sysctl(FILE), "1");
        for held in &mut held {
            drop(held.input.take());
        }
        for held in held {
            held.ends();
        }
        assert_eq!(sysctl(FILE), "0");
        nothing_left();
    });
}

#[test]
fn the_probe_tells_the_same_in_every_shell() {
    in_every_shell(|shell| {
        run("ip link set lo up");
        run("ip tuntap add dev tun77 mode tun user nobody");
        run("ip address add 192.0.2.1/24 dev lo");
        let output = shell
            .command(PROBE, "sshvpn-probe")
            .arg("192.0.2.1")
            .output();
        let text = String::from_utf8(output.unwrap().stdout).unwrap();
        let facts = facts::parse("b", &text, "").unwrap_or_else(|_| panic!("{text}"));
        assert!(
            facts.devices.iter().any(|device| device.unit.get() == 77),
            "{text}"
        );
        assert!(
            facts
                .addresses
                .iter()
                .any(|a| a.address.to_string() == "192.0.2.1"),
            "{text}"
        );
        assert_eq!(facts.ways.len(), 1, "{text}");
    });
}

/// By shells, and by a program of ours.
#[test]
fn an_address_has_one_claim_at_a_time() {
    const ADDRESSES: [&str; 2] = ["10.9.0.2", "fd09::2"];
    let claim = |held: &mut Held, address: &str| {
        let undo = format!("unclaim {address} $HOLDER");
        held.step(&undo, &format!("claim {address}"))
    };
    in_every_shell(move |shell| {
        for address in ADDRESSES {
            let (mut first, mut second) = (shell.hold(), shell.hold());
            assert_eq!(claim(&mut first, address), "ok ");
            assert_eq!(claim(&mut second, address), format!("ok {address}"));
            // Of several addresses none is claimed if one is taken.
            let both = format!("claim {address} 10.9.0.77");
            assert_eq!(second.step("", &both), format!("ok {address}"));
            assert_eq!(claim(&mut first, "10.9.0.77"), "ok ");
            let ours = AddressClaim::take(address.parse().unwrap(), Side::Remote);
            assert!(ours.unwrap().is_none());
            // A process that another test starts meanwhile inherits that socket for a moment.
            while read("/proc/thread-self/net/unix").contains("@sshvpn/") {
                std::thread::yield_now();
            }
            first.ends();
            assert_eq!(claim(&mut second, address), "ok ");
            // One that was killed claims nothing.
            second.killed();
            let mut third = shell.hold();
            assert_eq!(claim(&mut third, address), "ok ");
            third.ends();
            let ours = AddressClaim::take(address.parse().unwrap(), Side::Remote);
            assert!(ours.as_ref().unwrap().is_some());
            let mut fourth = shell.hold();
            assert_eq!(claim(&mut fourth, address), format!("ok {address}"));
            fourth.ends();
            nothing_left();
        }
    });
}
