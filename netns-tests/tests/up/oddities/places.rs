//! File systems where nothing can be written, kept or run.

use anyhow::{Result, ensure};
use netns_tests::program::vpn;
use nix::sys::signal::Signal;

use super::{ALL, NOPASSWD, Oddity, USUAL, Way, said};

#[test]
fn a_run_that_is_read_only() -> Result<()> {
    Oddity {
        made: "mount -o bind,remount,ro /run",
        beyond: true,
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn everything_read_only() -> Result<()> {
    Oddity {
        made: "mount --bind /tmp /tmp
            for dir in / /run /etc /var/log /var/lib /tmp; do mount -o bind,remount,ro $dir; done",
        beyond: true,
        ..USUAL
    }
    .works(ALL)
}

const FULL: Oddity = Oddity {
    made: "mkdir -m 700 /run/sshvpn; mount -t tmpfs -o size=4k,mode=700 none /run/sshvpn
        dd if=/dev/zero of=/run/sshvpn/fill bs=4096 count=1 2>/dev/null",
    beyond: true,
    ..USUAL
};

#[test]
fn a_full_run() -> Result<()> {
    FULL.works(&[Way::Tun])
}

#[test]
fn a_full_run_and_an_agent() -> Result<()> {
    FULL.fails(&[Way::Agent], &["No space left on device", "/run/sshvpn"])
}

const NO_JOURNAL: &str =
    "mkdir -m 700 /run/sshvpn; echo '{\"version\": 4, half' >/run/sshvpn/sshvpn0.json
    cp /run/sshvpn/sshvpn0.json /run/sshvpn/tun0.json; chmod 600 /run/sshvpn/*";
const KEPT: &str = "it is kept as /run/sshvpn/sshvpn0.json.bad";

/// A file that is no journal, as a full disk of an old sshvpn may leave it, is in no tunnel's way.
#[test]
fn a_broken_journal_here() -> Result<()> {
    let oddity = Oddity {
        made_here: NO_JOURNAL,
        ..USUAL
    };
    let lab = oddity.lab(Way::Tun)?;
    let laptop = &lab.direct.laptop;
    for _ in 0..2 {
        let up = vpn::up(laptop, &oddity.arguments(Way::Tun))?;
        let ended = up.end_with(Signal::SIGINT)?;
        ensure!(ended.code() == 0, "{ended:?}");
        // The first one alone finds it.
        let kept = laptop.read("/run/sshvpn/sshvpn0.json.bad")?;
        ensure!(kept.contains("half"), "{kept}");
    }
    let names = laptop.sh("ls /run/sshvpn")?;
    ensure!(names == "sshvpn0.json.bad\ntun0.json.bad\n", "{names}");
    laptop.sh("cp /run/sshvpn/sshvpn0.json.bad /run/sshvpn/sshvpn0.json")?;
    let up = laptop.run(&vpn::command(&["--via", "tun", "nowhere.invalid"])?)?;
    said(&up, &[&format!("{KEPT}-2"), "undo by hand"])
}

#[test]
fn a_broken_journal_there() -> Result<()> {
    let oddity = Oddity {
        made: NO_JOURNAL,
        ..USUAL
    };
    for way in ALL {
        let lab = oddity.lab(*way)?;
        let up = vpn::up(&lab.direct.laptop, &oddity.arguments(*way))?;
        let ended = up.end_with(Signal::SIGINT)?;
        ensure!(ended.code() == 0, "{ended:?}");
        let names = lab.direct.bastion.sh("ls -R /run/sshvpn")?;
        let aside = names.contains("tun0.json.bad");
        ensure!(aside == (*way != Way::Tun), "{way:?}: {names}");
    }
    Ok(())
}

#[test]
fn programs_run_nowhere_that_is_writable() -> Result<()> {
    Oddity {
        login: "alice",
        sudoers: NOPASSWD,
        made: "for dir in /tmp /var/tmp /dev/shm; do mount -t tmpfs -o noexec,mode=1777 none $dir; done
            mount -o bind,remount,noexec /run",
        ..USUAL
    }
    .fails(&[Way::Push], &["noexec"])
}

#[test]
fn programs_run_in_no_home_and_no_tmp() -> Result<()> {
    Oddity {
        made: "mount -t tmpfs -o noexec,mode=1777 none /tmp; mount -t tmpfs -o noexec none /run/home/root
            mount -t tmpfs -o mode=1777 none /dev/shm",
        ..USUAL
    }
    .works(&[Way::Push])
}

/// As after a newer C library's build.
#[test]
fn a_program_that_does_not_run_there() -> Result<()> {
    Oddity {
        made: "mkdir /run/lib; cp -a /lib/x86_64-linux-gnu/. /run/lib/ 2>/dev/null || true
            printf old >/run/lib/libm.so.6.old
            rm -f /run/lib/libgcc_s.so.1
            mount --bind /run/lib /lib/x86_64-linux-gnu",
        ..USUAL
    }
    .fails(&[Way::Push], &["does not run there", "libgcc_s.so.1"])
}

#[test]
fn another_machine() -> Result<()> {
    Oddity {
        files: &[(
            "/run/bin/uname",
            "#!/bin/sh\n[ \"$1\" != -m ] || { echo riscv64; exit; }\nexec /usr/bin/uname \"$@\"\n",
        )],
        sshd: &[("SetEnv", "PATH=/run/bin:/usr/sbin:/usr/bin:/sbin:/bin")],
        ..USUAL
    }
    .fails(&[Way::Push], &["it runs Linux riscv64", "Linux x86_64"])
}
