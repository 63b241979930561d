//! File systems where nothing can be written, kept or run.

use anyhow::Result;

use super::{ALL, NOPASSWD, Oddity, USUAL, Way};

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
        made: "for dir in / /run /etc /var/log /var/lib /tmp; do mount --bind $dir $dir; mount -o bind,remount,ro $dir; done",
        beyond: true,
        ..USUAL
    }
    .works(ALL)
}

#[test]
fn a_full_run() -> Result<()> {
    Oddity {
        made: "mkdir /run/sshvpn; mount -t tmpfs -o size=4k,mode=700 none /run/sshvpn; dd if=/dev/zero of=/run/sshvpn/fill bs=4096 count=1 2>/dev/null",
        beyond: true,
        ..USUAL
    }
    .fails(&[Way::Tun, Way::Agent], &["No space left on device", "/run/sshvpn"])
}

#[test]
fn programs_run_nowhere_that_is_writable() -> Result<()> {
    Oddity {
        login: "alice",
        sudoers: NOPASSWD,
        made: "for dir in /tmp /run /var/tmp /dev/shm; do mount -t tmpfs -o noexec,mode=1777 none $dir; done
            install -d -o alice /run/home/alice",
        ..USUAL
    }
    .fails(&[Way::Push], &["noexec"])
}

#[test]
fn programs_run_in_no_home_and_no_tmp() -> Result<()> {
    Oddity {
        made: "mount -t tmpfs -o noexec,mode=1777 none /tmp; mount -t tmpfs -o noexec none /run/home/root",
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
