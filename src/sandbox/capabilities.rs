//! Reduces the capabilities (capabilities(7)) of this process and of the programs that it starts to
//! those that it needs.
//!
//! Capabilities belong to threads. `Reduction::apply` changes the calling thread by system calls
//! alone, so that it can run in a signal handler of every other thread: see `threads`.

use std::fmt;

use nix::errno::Errno;
use nix::libc;

use super::SandboxError;

/// A capability that sshvpn needs (linux/capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Change the owner of files.
    Chown = 0,
    /// Read and write files regardless of their mode.
    DacOverride = 1,
    /// Signal processes of other users.
    Kill = 5,
    /// Change the bounding set.
    SetPcap = 8,
    /// Bind ports below 1024.
    NetBindService = 10,
    /// Change the network.
    NetAdmin = 12,
    /// Open raw sockets, by which iptables-legacy talks to the kernel.
    NetRaw = 13,
}

/// A set of capabilities.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(u64);

impl Capabilities {
    /// The empty set.
    pub const NONE: Self = Self(0);
    /// The capability to change the network.
    pub const NET_ADMIN: Self = Self(1 << Capability::NetAdmin as u8);

    /// Adds a capability.
    pub const fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability as u8)
    }

    /// The members that the calling thread is permitted.
    pub(super) fn that_we_have(self) -> Result<Self, SandboxError> {
        let sets = capget().map_err(refused("capabilities"))?;
        Ok(Self(self.0 & permitted(&sets)))
    }

    /// The mask, as in /proc/PID/status.
    pub(super) fn mask(self) -> u64 {
        self.0
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(Capability, &str); 7] = [
            (Capability::Chown, "CAP_CHOWN"),
            (Capability::DacOverride, "CAP_DAC_OVERRIDE"),
            (Capability::Kill, "CAP_KILL"),
            (Capability::SetPcap, "CAP_SETPCAP"),
            (Capability::NetBindService, "CAP_NET_BIND_SERVICE"),
            (Capability::NetAdmin, "CAP_NET_ADMIN"),
            (Capability::NetRaw, "CAP_NET_RAW"),
        ];
        let held = |(capability, _): &&(Capability, _)| self.0 >> (*capability as u8) & 1 == 1;
        let names: Vec<&str> = NAMES.iter().filter(held).map(|(_, name)| *name).collect();
        match names.as_slice() {
            [] => f.write_str("none"),
            _ => f.write_str(&names.join(", ")),
        }
    }
}

/// Whether the calling thread has any permitted capability.
pub fn has_any() -> nix::Result<bool> {
    Ok(capget()?.iter().any(|sets| sets.permitted != 0))
}

/// The capabilities that a thread gives up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reduction {
    kept: Capabilities,
    for_programs: bool,
}

/// A step of a reduction, for an error message.
pub(super) type Step = &'static str;

impl Reduction {
    /// A reduction to `kept`, which must be permitted.
    pub(super) fn new(kept: Capabilities, for_programs: bool) -> Self {
        Self { kept, for_programs }
    }

    /// The capabilities that stay.
    pub(super) fn kept(self) -> Capabilities {
        self.kept
    }

    /// Reduces all sets of the calling thread, and stops programs from gaining privileges. The
    /// bounding set comes first, since changing it needs CAP_SETPCAP; without that, `no_new_privs`
    /// has the same effect. Async-signal-safe.
    pub(super) fn apply(self) -> Result<(), (Step, Errno)> {
        let sets = capget().map_err(|errno| ("capabilities", errno))?;
        reduce_bounding(self.kept);
        // SAFETY: it takes numbers alone.
        let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        Errno::result(done).map_err(|errno| ("privileges of programs", errno))?;
        let kept = self.kept.0 & permitted(&sets);
        let half = |index: usize| {
            let kept = (kept >> (32 * index)) as u32;
            let inheritable = match (self.for_programs, sets.get(index)) {
                (true, _) => kept,
                (false, found) => found.map_or(0, |found| found.inheritable & kept),
            };
            CapabilitySets {
                effective: kept,
                permitted: kept,
                inheritable,
            }
        };
        // This also reduces the ambient set to the inheritable one.
        capset(&[half(0), half(1)]).map_err(|errno| ("capabilities", errno))?;
        if self.for_programs {
            raise_ambient(Capabilities(kept)).map_err(|errno| ("ambient capabilities", errno))?;
        }
        Ok(())
    }
}

fn permitted(sets: &[CapabilitySets; 2]) -> u64 {
    let [low, high] = sets;
    u64::from(low.permitted) | u64::from(high.permitted) << 32
}

fn reduce_bounding(kept: Capabilities) {
    for number in 0..64 {
        if kept.mask() >> number & 1 == 1 {
            continue;
        }
        // SAFETY: it takes numbers alone.
        let dropped = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) };
        // EINVAL: that was the last one. EPERM: no CAP_SETPCAP.
        if dropped != 0 {
            return;
        }
    }
}

fn raise_ambient(kept: Capabilities) -> nix::Result<()> {
    for number in 0..64 {
        if kept.mask() >> number & 1 == 0 {
            continue;
        }
        // SAFETY: it takes numbers alone.
        let raised = unsafe {
            libc::prctl(
                libc::PR_CAP_AMBIENT,
                libc::PR_CAP_AMBIENT_RAISE,
                number,
                0,
                0,
            )
        };
        Errno::result(raised)?;
    }
    Ok(())
}

/// Empties the effective set of the calling thread.
pub fn clear_effective() -> nix::Result<()> {
    let mut sets = capget()?;
    for half in &mut sets {
        half.effective = 0;
    }
    capset(&sets)
}

/// Keeps only `kept` in the permitted and the effective set of the calling thread, after a change
/// of the user id, which empties the effective set.
pub(super) fn set_permitted(kept: Capabilities) -> nix::Result<()> {
    let half = |index: usize| {
        let kept = (kept.mask() >> (32 * index)) as u32;
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: 0,
        }
    };
    capset(&[half(0), half(1)])
}

/// `struct __user_cap_data_struct` (linux/capability.h).
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct CapabilitySets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

/// Version 3, the calling thread.
const HEADER: Header = Header {
    version: 0x2008_0522,
    pid: 0,
};

fn capget() -> nix::Result<[CapabilitySets; 2]> {
    let mut header = HEADER;
    let mut sets = [CapabilitySets::default(); 2];
    // SAFETY: both have the form that the kernel writes for version 3.
    let done = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, sets.as_mut_ptr()) };
    Errno::result(done).map(|_| sets)
}

fn capset(sets: &[CapabilitySets; 2]) -> nix::Result<()> {
    let mut header = HEADER;
    // SAFETY: both have the form that the kernel reads for version 3.
    let done = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, sets.as_ptr()) };
    Errno::result(done).map(drop)
}

/// The error of a call that gives up `what`.
pub(super) fn refused(what: &'static str) -> impl FnOnce(Errno) -> SandboxError {
    move |errno| SandboxError::Refused { what, errno }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_named_in_words() {
        assert_eq!(Capabilities::NONE.to_string(), "none");
        let two = Capabilities::NET_ADMIN.with(Capability::NetRaw);
        assert_eq!(two.to_string(), "CAP_NET_ADMIN, CAP_NET_RAW");
        assert_eq!(Capabilities::NET_ADMIN.mask(), 0x1000);
    }
}
