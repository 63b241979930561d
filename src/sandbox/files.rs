//! Files that stay accessible, by Landlock (landlock(7)). A rule is a directory with
//! all below it, or a file, as it is at that time: one that takes its place later is
//! not covered. What is open already stays as it was opened.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use landlock::{
    ABI, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, Scope, make_bitflags,
};
use nix::libc;

use super::SandboxError;
use super::executable;

/// The newest version of Landlock whose rights are asked for.
const NEWEST: ABI = ABI::V7;

/// Files are read, directories listed.
const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// What is there is written, and asked and told by ioctl(2).
const WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{WriteFile | Truncate | IoctlDev});
/// Files and sockets come, are renamed and go.
const CHANGE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeReg | MakeSock | RemoveFile});

/// What stays accessible; all else that is limited is refused.
#[derive(Debug)]
pub struct Files {
    limits_reading: bool,
    rules: Vec<(PathBuf, BitFlags<AccessFs>)>,
    scopes: BitFlags<Scope>,
}

impl Files {
    /// Limits what is written, made and removed. Reading and running programs are as
    /// free as before.
    pub fn limited_in_writing() -> Self {
        Self {
            limits_reading: false,
            rules: Vec::new(),
            scopes: BitFlags::EMPTY,
        }
    }

    /// Limits reading and running programs too.
    pub fn limited() -> Self {
        Self {
            limits_reading: true,
            ..Self::limited_in_writing()
        }
    }

    /// Below `path`, files may be read.
    #[must_use]
    pub fn read(mut self, path: impl Into<PathBuf>) -> Self {
        self.rules.push((path.into(), READ));
        self
    }

    /// `path`, or the files below it, may be read and written; none may be made.
    #[must_use]
    pub fn write(mut self, path: impl Into<PathBuf>) -> Self {
        self.rules.push((path.into(), READ | WRITE));
        self
    }

    /// Below `path`, files may be read, written, made, renamed and removed.
    #[must_use]
    pub fn change(mut self, path: impl Into<PathBuf>) -> Self {
        self.rules.push((path.into(), READ | WRITE | CHANGE));
        self
    }

    /// The same, and symbolic links may be made.
    #[must_use]
    pub fn change_with_links(mut self, path: impl Into<PathBuf>) -> Self {
        let changed = READ | WRITE | CHANGE | AccessFs::MakeSym;
        self.rules.push((path.into(), changed));
        self
    }

    /// Below `path`, files may be made and written.
    #[must_use]
    pub fn append(mut self, path: impl Into<PathBuf>) -> Self {
        let made = READ | WRITE | AccessFs::MakeReg;
        self.rules.push((path.into(), made));
        self
    }

    /// Below `path`, empty directories may be removed.
    #[must_use]
    pub fn remove_directories(mut self, path: impl Into<PathBuf>) -> Self {
        self.rules.push((path.into(), AccessFs::RemoveDir.into()));
        self
    }

    /// The program at `path` may be run, with what it is interpreted by.
    #[must_use]
    pub fn run(mut self, path: &Path) -> Self {
        for file in executable::with_interpreters(path) {
            self.rules
                .push((file, AccessFs::Execute | AccessFs::ReadFile));
        }
        self
    }

    /// Signals to processes that were not started from here on are refused.
    #[must_use]
    pub fn without_signals(mut self) -> Self {
        self.scopes |= Scope::Signal;
        self
    }

    /// So are connections to their sockets in the abstract namespace (unix(7)).
    #[must_use]
    pub fn without_abstract_sockets(mut self) -> Self {
        self.scopes |= Scope::AbstractUnixSocket;
        self
    }
}

/// The rules as the kernel has them; none where it has no Landlock.
#[derive(Debug)]
pub(super) struct FileRules {
    ruleset: Option<OwnedFd>,
}

impl FileRules {
    /// Asks for as much of them as this kernel knows. Paths that are not there are
    /// passed over.
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
                    // A rule is an inode's, and procfs makes another inode once it has
                    // reclaimed this one: open, it stays.
                    std::mem::forget(opened);
                }
            }
        }
        Ok(Self {
            ruleset: created.into(),
        })
    }

    /// For landlock_restrict_self(2).
    pub(super) fn ruleset(&self) -> Option<BorrowedFd<'_>> {
        self.ruleset.as_ref().map(OwnedFd::as_fd)
    }

    /// The version of the kernel's Landlock, where these rules are in force.
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
