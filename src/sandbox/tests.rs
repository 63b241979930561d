//! Tests the access of a process that is confined as a server is. Each test runs itself again in a
//! process of its own, since the sandbox is permanent.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::thread;

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::unistd::{Uid, User, geteuid};

use super::capabilities::Capability;
use super::user::Account;
use super::*;
use crate::config::serve::settings::ServeSettings;
use crate::host::journal::runtime_dir::RuntimeDir;
use crate::host::plan::surroundings::firewall_programs;
use crate::server::life::confinement;

/// Set in the process that is confined.
const CHILD: &str = "SSHVPN_TEST_CONFINED";

/// Runs `attempt`, the body of the test `name`, in a process of its own.
fn in_a_process_of_its_own(name: &str, attempt: impl FnOnce()) {
    if !geteuid().is_root() {
        eprintln!("skipped: only root has anything to give up");
        return;
    }
    if std::env::var_os(CHILD).is_some_and(|value| value == name) {
        attempt();
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("sandbox::tests::{name}"), "--exact", "--nocapture"])
        .env(CHILD, name)
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}{errors}");
    assert!(told.contains("1 passed"), "{told}{errors}");
    eprint!("{errors}");
}

/// A server's settings and its directory of journals.
struct Place {
    directory: tempfile::TempDir,
    settings: ServeSettings,
    journals: RuntimeDir,
    /// Whether the machine lets this user open the tun device, as most do.
    tun: bool,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let journals = RuntimeDir::at(&directory.path().join("run")).unwrap();
        let mut settings = ServeSettings::default();
        settings.network.leases = directory.path().join("lib/leases.json");
        Place {
            directory,
            settings,
            journals,
            tun: crate::host::privilege::require_tun().is_ok(),
        }
    }

    fn confine(&self) -> InForce {
        let config = Path::new("/etc/sshvpn/serve.toml");
        confine(&confinement::of(config, &self.settings, &self.journals)).unwrap()
    }
}

fn open_to_write(path: &str) -> io::Result<File> {
    OpenOptions::new().write(true).open(path)
}

fn refused(result: io::Result<impl Sized>) -> bool {
    let error = result.err().and_then(|error| error.raw_os_error());
    matches!(error, Some(libc::EACCES | libc::EPERM | libc::ENOSYS))
}

/// The error of a system call that takes only numbers.
fn call(number: libc::c_long, arguments: [libc::c_long; 3]) -> Errno {
    let [first, second, third] = arguments;
    // SAFETY: none of the calls here takes these numbers for memory of ours.
    let done = unsafe { libc::syscall(number, first, second, third, 0, 0) };
    assert_eq!(done, -1, "call {number} worked");
    Errno::last()
}

fn run(program: &Path) -> io::Result<ExitStatus> {
    Command::new(program).arg("--version").status()
}

/// Of the files that affect the kernel or other processes, only the network's settings are
/// writable.
fn assert_files(in_force: &InForce) {
    assert!(open_to_write("/proc/sys/net/ipv4/ip_forward").is_ok());
    assert!(File::open("/proc/sys/kernel/core_pattern").is_ok());
    if !in_force.limits_files() {
        eprintln!("SKIPPED: this kernel has no Landlock: files are not limited");
        return;
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/proc/1/mem",
        "/proc/1/oom_score_adj",
        "/etc/passwd",
        "/etc/resolv.conf",
    ] {
        let there = Path::new(path).exists();
        assert!(!there || refused(open_to_write(path)), "{path}");
    }
    assert!(refused(fs::write("/etc/cron.d/sshvpn-test", "")));
    assert!(refused(fs::write("/tmp/sshvpn-test", "")));
    assert!(refused(fs::create_dir("/run/sshvpn-test")));
    assert!(refused(fs::read_dir("/root")));
    assert!(refused(run(Path::new("/bin/sh"))));
}

fn assert_calls(in_force: &InForce) {
    assert!(in_force.seccomp, "no seccomp");
    for (number, arguments) in [
        (libc::SYS_ptrace, [libc::PTRACE_SEIZE as i64, 1, 0]),
        (libc::SYS_process_vm_readv, [1, 0, 0]),
        (libc::SYS_mount, [0, 0, 0]),
        (libc::SYS_umount2, [0, 0, 0]),
        (libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0]),
        (libc::SYS_setns, [0, 0, 0]),
        (libc::SYS_chroot, [0, 0, 0]),
        (libc::SYS_bpf, [0, 0, 0]),
        (libc::SYS_keyctl, [0, 0, 0]),
        (libc::SYS_add_key, [0, 0, 0]),
        (libc::SYS_perf_event_open, [0, 0, 0]),
        (libc::SYS_userfaultfd, [0, 0, 0]),
        (libc::SYS_io_uring_setup, [1, 0, 0]),
        (libc::SYS_init_module, [0, 0, 0]),
        (libc::SYS_kexec_load, [0, 0, 0]),
        (libc::SYS_reboot, [0, 0, 0]),
        (libc::SYS_setuid, [0, 0, 0]),
        (libc::SYS_clone3, [0, 0, 0]),
        (libc::SYS_clone, [libc::CLONE_NEWUSER.into(), 0, 0]),
        (libc::SYS_ioctl, [0, libc::TIOCSTI as i64, 0]),
    ] {
        assert_eq!(call(number, arguments), Errno::ENOSYS, "call {number}");
    }
    let packets = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::empty(),
        None,
    );
    assert_eq!(packets.unwrap_err(), Errno::ENOSYS);
}

/// The regular work of a server.
fn assert_work(place: &Place) {
    for path in [
        place.directory.path().join("lib/leases.json.new"),
        place.journals.path().join("serve.json.new"),
    ] {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path);
        file.unwrap().sync_all().unwrap();
        fs::rename(&path, path.with_extension("json")).unwrap();
        fs::remove_file(path.with_extension("json")).unwrap();
    }
    assert_eq!(crate::host::privilege::require_tun().is_ok(), place.tun);
    assert!(crate::host::privilege::require_net_admin().is_ok());
    assert!(TcpListener::bind("127.0.0.1:0").is_ok());
    assert!(fs::read_to_string("/etc/passwd").is_ok());
    assert!(fs::read_to_string("/proc/self/status").is_ok());
    for program in firewall_programs() {
        assert!(run(&program).unwrap().success(), "{}", program.display());
    }
    assert!(thread::spawn(|| ()).join().is_ok());
}

#[test]
fn root_is_confined() {
    in_a_process_of_its_own("root_is_confined", || {
        let place = Place::new();
        let in_force = place.confine();
        eprintln!("{in_force}");
        assert_work(&place);
        assert_files(&in_force);
        assert_calls(&in_force);
    });
}

/// The user id alone removes most access, by the kernel's permissions.
#[test]
fn a_user_of_its_own_is_kept_from_root() {
    in_a_process_of_its_own("a_user_of_its_own_is_kept_from_root", || {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let account = Account::find("nobody").unwrap();
        let kept = Capabilities::NET_ADMIN.with(Capability::SetPcap);
        account.assume(kept).unwrap();
        assert_eq!((geteuid(), Uid::current()), (nobody.uid, nobody.uid));
        for path in [
            "/proc/sys/kernel/core_pattern",
            "/proc/sysrq-trigger",
            "/proc/1/mem",
            "/etc/passwd",
        ] {
            let there = Path::new(path).exists();
            assert!(!there || refused(open_to_write(path)), "{path}");
        }
        assert!(refused(File::open("/etc/shadow")));
        assert!(open_to_write("/proc/sys/net/ipv4/ip_forward").is_ok());
        // Then confine it as any server.
        let place = Place::new();
        let in_force = place.confine();
        assert_work(&place);
        assert_files(&in_force);
        assert_calls(&in_force);
        // The process cannot become root again.
        // SAFETY: it takes only numbers.
        assert_eq!(unsafe { libc::setuid(0) }, -1);
    });
}

/// Threads that exist before, as in a client's runtime, and a program that they start.
#[test]
fn every_thread_is_confined() {
    in_a_process_of_its_own("every_thread_is_confined", || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()
            .unwrap();
        // Threads that are idle, busy and blocked in a system call.
        runtime.block_on(async {
            let idle = (0..4).map(|_| tokio::task::spawn_blocking(|| ()));
            for task in idle.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let blocked = thread::spawn(move || {
            let read = nix::unistd::read(&reader, &mut [0]);
            (read, status(), programs_status())
        });
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let busy = thread::spawn(move || {
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                std::hint::spin_loop();
            }
            status()
        });
        let sandbox = Sandbox {
            capabilities: Capabilities::NET_ADMIN,
            for_programs: true,
            files: Files::limited_in_writing().write("/dev/null"),
        };
        let in_force = confine(&sandbox).unwrap();
        drop((stop, writer));
        let (read, blocked, program) = blocked.join().unwrap();
        assert_eq!(read, Ok(0), "its system call goes on");
        let idle = runtime.block_on(runtime.spawn_blocking(status)).unwrap();
        let worker = runtime.block_on(runtime.spawn(async { status() })).unwrap();
        for status in [
            status(),
            blocked,
            program,
            busy.join().unwrap(),
            idle,
            worker,
        ] {
            assert_eq!(lines(&status), REDUCED, "{status}");
        }
        let files = || open_to_write("/proc/sys/kernel/core_pattern");
        let of_others = [
            files(),
            runtime
                .block_on(runtime.spawn(async move { files() }))
                .unwrap(),
            runtime.block_on(runtime.spawn_blocking(files)).unwrap(),
        ];
        let refusals = of_others.into_iter().filter(|opened| opened.is_err());
        match in_force.limits_files() {
            true => assert_eq!(refusals.count(), 3),
            false => eprintln!("SKIPPED: this kernel has no Landlock: files are not limited"),
        }
        assert!(confine(&sandbox).is_err(), "once is enough");
    });
}

/// A client that needs no access after its setup.
#[test]
fn nothing_is_kept_where_nothing_is_needed() {
    in_a_process_of_its_own("nothing_is_kept_where_nothing_is_needed", || {
        let sandbox = Sandbox {
            capabilities: Capabilities::NONE,
            for_programs: false,
            files: Files::limited_in_writing(),
        };
        let in_force = confine(&sandbox).unwrap();
        assert!(in_force.to_string().contains("capabilities: none"));
        let status = status();
        for line in lines(&status) {
            assert!(
                !line.starts_with("Cap") || line.ends_with("0000000000000000"),
                "{line}"
            );
        }
        if in_force.limits_files() {
            assert!(refused(open_to_write("/proc/sys/net/ipv4/ip_forward")));
        }
    });
}

fn status() -> String {
    fs::read_to_string("/proc/thread-self/status").unwrap()
}

fn programs_status() -> String {
    let output = Command::new("cat").arg("/proc/self/status").output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

/// The lines of the status that show privileges.
fn lines(status: &str) -> Vec<String> {
    let wanted = |line: &&str| {
        ["Cap", "NoNewPrivs:", "Seccomp:"]
            .iter()
            .any(|name| line.starts_with(name))
    };
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    status.lines().filter(wanted).map(words).collect()
}

const REDUCED: [&str; 7] = [
    "CapInh: 0000000000001000",
    "CapPrm: 0000000000001000",
    "CapEff: 0000000000001000",
    "CapBnd: 0000000000001000",
    "CapAmb: 0000000000001000",
    "NoNewPrivs: 1",
    "Seccomp: 2",
];
