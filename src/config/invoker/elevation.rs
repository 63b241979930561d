//! Detects whether this process has rights that its caller lacks: by sudo(8) and the like, or by
//! capabilities of the program file.
//!
//! Files and programs that the caller names, in options or the environment, must not be used with
//! these rights.

use std::io;
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{getegid, geteuid, getgid, getuid};

/// The variables in which programs that run another one as root name their caller: sudo(8), doas(1)
/// and pkexec(1).
pub(crate) const CALLERS: [&str; 3] = ["SUDO_UID", "DOAS_USER", "PKEXEC_UID"];

/// Whether this process has rights that its caller lacks.
pub fn is_elevated() -> bool {
    by_file_capabilities() || through_another_user()
}

/// Whether this process is root on behalf of another user, by one of [`CALLERS`].
fn through_another_user() -> bool {
    let caller = |name: &&str| {
        let value = std::env::var_os(name).filter(|value| !value.is_empty());
        value.is_some_and(|value| !is_root(name, &value.to_string_lossy()))
    };
    geteuid().is_root() && CALLERS.iter().any(caller)
}

/// Whether `value` of one of [`CALLERS`] means root: its name, or its number in any spelling.
pub(crate) fn is_root(variable: &str, value: &str) -> bool {
    match variable {
        "DOAS_USER" => value == "root",
        _ => value.parse() == Ok(0u32),
    }
}

/// Whether this process runs only programs whose files root owns: always, except as root on root's
/// own behalf. A process that is not root may have capabilities that its caller lacks, even if its
/// file has none (ambient ones from a wrapper).
pub fn relies_on_root_alone() -> bool {
    is_elevated() || !geteuid().is_root()
}

/// Whether this process has capabilities of its program file (setcap(8)) that its caller lacks.
/// Capabilities from a service manager (ambient ones) are the caller's own.
pub fn by_file_capabilities() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    // AT_SECURE alone is not sufficient: security modules set it for services, too.
    *FOUND.get_or_init(|| is_secure_execution() && !getuid().is_root() && file_has_capabilities())
}

/// Whether the program file has the set-user-ID or set-group-ID bit, which this program does not
/// support.
pub fn by_set_user_id() -> bool {
    geteuid() != getuid() || getegid() != getgid()
}

/// AT_SECURE of getauxval(3).
fn is_secure_execution() -> bool {
    // SAFETY: the call takes a number and returns one.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Whether the file of this program has capabilities; true if that is unknown.
fn file_has_capabilities() -> bool {
    // SAFETY: both strings end with NUL; with a size of 0 nothing is written.
    let length = unsafe {
        libc::getxattr(
            c"/proc/self/exe".as_ptr(),
            c"security.capability".as_ptr(),
            std::ptr::null_mut(),
            0,
        )
    };
    match io::Error::last_os_error()
        .raw_os_error()
        .map(Errno::from_raw)
    {
        _ if length >= 0 => true,
        Some(Errno::ENODATA | Errno::EOPNOTSUPP) => false,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_is_run_with_its_callers_own_rights() {
        assert!(!by_file_capabilities() && !by_set_user_id() && !file_has_capabilities());
    }

    #[test]
    fn root_is_a_number_in_any_spelling() {
        for zero in ["0", "00", "+0"] {
            assert!(is_root("SUDO_UID", zero) && is_root("PKEXEC_UID", zero));
        }
        for other in ["1", "x", "-0", "root"] {
            assert!(!is_root("SUDO_UID", other), "{other}");
        }
        assert!(is_root("DOAS_USER", "root") && !is_root("DOAS_USER", "0"));
    }
}
