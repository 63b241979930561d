//! The ids, groups and capabilities of the invoker, for a thread or for a program that is about to
//! start.

use std::io;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{Gid, Uid};

use super::Invoker;

/// System calls whose numbers differ on architectures that had 16-bit ids.
#[cfg(any(target_arch = "x86", target_arch = "arm", target_arch = "sparc"))]
mod call {
    pub(super) use nix::libc::{
        SYS_setgroups32 as SET_GROUPS, SYS_setresgid32 as SET_GID, SYS_setresuid32 as SET_UID,
    };
}
#[cfg(not(any(target_arch = "x86", target_arch = "arm", target_arch = "sparc")))]
mod call {
    pub(super) use nix::libc::{
        SYS_setgroups as SET_GROUPS, SYS_setresgid as SET_GID, SYS_setresuid as SET_UID,
    };
}

/// The ids and groups of a thread.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<libc::gid_t>,
}

impl Invoker {
    pub(crate) fn identity(&self) -> Identity {
        Identity {
            uid: self.uid,
            gid: self.gid,
            groups: self.groups.iter().map(|gid| gid.as_raw()).collect(),
        }
    }
}

impl Identity {
    /// Gives the calling thread the invoker's user ids, group ids and groups for the rest of its
    /// life, and no capabilities. libc's functions would change every thread of the process
    /// (nptl(7)). Allocates nothing.
    pub(crate) fn assume(&self) -> io::Result<()> {
        let (uid, gid) = (self.uid.as_raw(), self.gid.as_raw());
        // SAFETY: the kernel reads as many groups behind the pointer as there are.
        succeeded(unsafe {
            libc::syscall(call::SET_GROUPS, self.groups.len(), self.groups.as_ptr())
        })?;
        // SAFETY: the call takes three numbers.
        succeeded(unsafe { libc::syscall(call::SET_GID, gid, gid, gid) })?;
        // SAFETY: the call takes three numbers.
        succeeded(unsafe { libc::syscall(call::SET_UID, uid, uid, uid) })?;
        give_up_capabilities()
    }
}

/// The header of capset(2); the data is two words for each of the three sets.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}
/// `_LINUX_CAPABILITY_VERSION_3` (linux/capability.h).
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Drops all capabilities of the calling thread. The change of the user id dropped them already,
/// unless the securebits keep them (capabilities(7)).
fn give_up_capabilities() -> io::Result<()> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let none = [0u32; 6];
    // SAFETY: version 3 reads a header and six words, which live through the call.
    succeeded(unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) })?;
    give_up_ambient()
}

/// Drops the ambient capabilities, which every program would inherit.
pub(crate) fn give_up_ambient() -> io::Result<()> {
    // SAFETY: the call takes numbers.
    let result = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    match Errno::result(result) {
        // Kernels before 4.3 and gVisor have no ambient capabilities.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn succeeded(result: libc::c_long) -> io::Result<()> {
    Errno::result(result)?;
    Ok(())
}
