//! Capabilities (capabilities(7)) of this process: which stay, and giving up all
//! others, for itself and for programs that it starts.
//!
//! Capabilities belong to threads. `Reduction::apply` changes the calling one by
//! system calls alone, so that it can run in a signal handler of every other thread:
//! see `threads`.

use std::fmt;

use nix::errno::Errno;
use nix::libc;

use super::SandboxError;

/// A capability that something here needs (linux/capability.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// To change the owner of files.
    Chown = 0,
    /// To read and write files whatever their mode says.
    DacOverride = 1,
    /// To end processes of other users.
    Kill = 5,
    /// To change the bounding set.
    SetPcap = 8,
    /// To open ports below 1024.
    NetBindService = 10,
    /// To change the network.
    NetAdmin = 12,
    /// Raw sockets, which iptables of the older kind speaks to the kernel by.
    NetRaw = 13,
}

/// A set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities(u64);

impl Capabilities {
    /// None.
    pub const NONE: Self = Self(0);
    /// What changing the network takes.
    pub const NET_ADMIN: Self = Self(1 << Capability::NetAdmin as u8);

    /// With one more.
    pub const fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability as u8)
    }

    /// Those of them that the calling thread is permitted.
    pub(super) fn that_we_have(self) -> Result<Self, SandboxError> {
        let sets = capget().map_err(refused("capabilities"))?;
        Ok(Self(self.0 & permitted(&sets)))
    }

    /// The mask, as /proc/PID/status has it.
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

/// Whether the calling thread is permitted any.
pub fn has_any() -> nix::Result<bool> {
    Ok(capget()?.iter().any(|sets| sets.permitted != 0))
}

/// What a thread gives up, and how far it got: the step that failed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reduction {
    kept: Capabilities,
    for_programs: bool,
}

/// A step of a reduction.
pub(super) type Step = &'static str;

impl Reduction {
    /// `kept` has to be permitted.
    pub(super) fn new(kept: Capabilities, for_programs: bool) -> Self {
        Self { kept, for_programs }
    }

    /// What stays.
    pub(super) fn kept(self) -> Capabilities {
        self.kept
    }

    /// All sets of the calling thread, and no gain by programs. The bounding set goes
    /// first, since that takes CAP_SETPCAP; without it, `no_new_privs` has the same
    /// effect. Async-signal-safe.
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
        // With it, what is ambient shrinks to what is inheritable.
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
        // EINVAL: the last one has been dropped. EPERM: no CAP_SETPCAP.
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

/// Keeps `kept` alone in the permitted and the effective set of the calling thread:
/// for after a change of the user id, which empties the effective one.
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

/// For a call that takes `what` away.
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
