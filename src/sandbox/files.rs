//! Limits access to files by Landlock (landlock(7)). A rule covers a file, or a directory with
//! everything below it, as it is when the rule is made; a file that replaces it later is not
//! covered. Open descriptors keep their access.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, make_bitflags,
};
use nix::libc;

use super::SandboxError;
use super::executable;

/// The newest version of Landlock whose rights are used.
const NEWEST: ABI = ABI::V7;

/// Read files and list directories.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// Write existing files and use ioctl(2) on devices.
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | Truncate | IoctlDev});
/// Make, rename and remove files and sockets.
const CHANGE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeReg | MakeSock | RemoveFile});

/// The files that stay accessible; all other access of a limited kind is refused.
#[derive(Debug)]
pub struct Files {
    limits_reading: bool,
    rules: Vec<(PathBuf, BitFlags<AccessFs>)>,
    scopes: BitFlags<Scope>,
}

impl Files {
    /// Limits writing, making and removing files. Reading files and running programs stay
    /// unlimited.
    pub fn limited_in_writing() -> Self {
        Self {
            limits_reading: false,
            rules: Vec::new(),
            scopes: BitFlags::EMPTY,
        }
    }

    /// Limits reading files and running programs too.
    pub fn limited() -> Self {
        Self {
            limits_reading: true,
            ..Self::limited_in_writing()
        }
    }

    /// Allows reading files below `path`.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.rules.push((path.into(), READ));
        self
    }

    /// Allows reading and writing `path`, or the files below it, but not making files.
    #[must_use]
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.rules.push((path.into(), READ | WRITE));
        self
    }

    /// Allows reading, writing, making, renaming and removing files below `path`.
    #[must_use]
    pub fn change(mut self, path: impl Into<PathBuf>) -> Self {
        self.rules.push((path.into(), READ | WRITE | CHANGE));
        self
    }

    /// Like [`change`](Self::change), and allows making symbolic links.
    #[must_use]
    pub fn change_with_links(mut self, path: impl Into<PathBuf>) -> Self {
        let changed = READ | WRITE | CHANGE | AccessFs::MakeSym;
        self.rules.push((path.into(), changed));
        self
    }

    /// Allows making and writing files below `path`.
    #[must_use]
    pub fn append(mut self, path: impl Into<PathBuf>) -> Self {
        let made = READ | WRITE | AccessFs::MakeReg;
        self.rules.push((path.into(), made));
        self
    }

    /// Allows removing empty directories below `path`.
    #[must_use]
    pub fn remove_directories(mut self, path: impl Into<PathBuf>) -> Self {
        self.rules.push((path.into(), AccessFs::RemoveDir.into()));
        self
    }

    /// Allows running the program at `path`, with its interpreters.
    #[must_use]
    pub fn run(mut self, path: &Path) -> Self {
        for file in executable::with_interpreters(path) {
            self.rules
                .push((file, AccessFs::Execute | AccessFs::ReadFile));
        }
        self
    }

    /// Refuses signals to processes that were not started after this.
    #[must_use]
    pub fn without_signals(mut self) -> Self {
        self.scopes |= Scope::Signal;
        self
    }

    /// Refuses connections to those processes' sockets in the abstract namespace (unix(7)).
    #[must_use]
    pub fn without_abstract_sockets(mut self) -> Self {
        self.scopes |= Scope::AbstractUnixSocket;
        self
    }
}

/// The rules as a ruleset of the kernel; none if it has no Landlock.
#[derive(Debug)]
pub(super) struct FileRules {
    ruleset: Option<OwnedFd>,
}

impl FileRules {
    /// Builds the rules that this kernel supports. Missing paths are skipped.
    pub(super) fn build(files: &Files) -> Result<Self, SandboxError> {
        let mut handled = AccessFs::from_write(NEWEST);
        if files.limits_reading {
            handled |= AccessFs::from_read(NEWEST);
        }
        let mut ruleset = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(handled)?;
        if !files.scopes.is_empty() {
            ruleset = ruleset.scope(files.scopes)?;
        }
        let mut created = ruleset.create()?;
        for (path, access) in &files.rules {
            let Ok(opened) = PathFd::new(path) else {
                continue;
            };
            let mut access = *access & handled;
            if !path.is_dir() {
                access &= AccessFs::from_file(NEWEST);
            }
            if !access.is_empty() {
                created = created.add_rule(PathBeneath::new(&opened, access))?;
                if path.starts_with("/proc/sys") {
                    // A rule belongs to an inode, and procfs makes another inode after it has
                    // reclaimed this one. The open descriptor keeps the inode.
                    std::mem::forget(opened);
                }
            }
        }
        Ok(Self {
            ruleset: created.into(),
        })
    }

    /// The descriptor for landlock_restrict_self(2).
    pub(super) fn ruleset(&self) -> Option<BorrowedFd<'_>> {
        self.ruleset.as_ref().map(OwnedFd::as_fd)
    }

    /// The version of the kernel's Landlock, if these rules are used.
    pub(super) fn abi(&self) -> Option<i32> {
        const VERSION: libc::c_uint = 1;
        self.ruleset.as_ref()?;
        let nothing = std::ptr::null::<libc::c_void>();
        // SAFETY: with this flag it takes no attributes and yields a number.
        let version =
            unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0, VERSION) };
        i32::try_from(version).ok()
    }
}
