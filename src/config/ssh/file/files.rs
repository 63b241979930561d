//! Reads the configuration files in ssh's order, and decides by `Host`, `Match` and `Include` which
//! lines apply.

use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tracing::debug;

use super::Reader;
use super::conditions::{self, MatchFacts};
use super::keywords::Kind;
use super::line::Line;
use crate::config::error::ConfigError;
use crate::config::invoker::Invoker;
use crate::config::ssh::args::SshArgs;
use crate::config::ssh::pattern::matches_any;
use crate::config::ssh::tokens::COMMON;

/// The limit of nested `Include`s; ssh's own limit.
const MAX_DEPTH: usize = 16;
/// The limit of included files in total.
const MAX_FILES: usize = 4096;
/// The size limit of a file, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The mode of reading a file.
#[derive(Debug, Clone, Copy)]
struct Mode {
    /// Whether it is the user's file, not the system's.
    user: bool,
    /// Whether to refuse a file that other users can change.
    check_permissions: bool,
    /// Whether its lines apply at the beginning; if not, no `Host` or `Match` of it applies either.
    active: bool,
    depth: usize,
}

impl Reader<'_> {
    /// Reads the file of `-F`, or the user's and the system's files.
    pub(super) fn read_files(&mut self, args: &SshArgs) -> Result<(), ConfigError> {
        let mut files = 0;
        let user = Mode {
            user: true,
            check_permissions: true,
            active: true,
            depth: 0,
        };
        if let Some(file) = &args.config_file {
            if file.as_os_str().eq_ignore_ascii_case("none") {
                return Ok(());
            }
            let given = Mode {
                check_permissions: false,
                ..user
            };
            let read = self.read_file(file, given, &mut files);
            return read?.map_err(|source| ConfigError::read(file, source));
        }
        let own = self.invoker.home.join(".ssh/config");
        let system = Mode {
            user: false,
            check_permissions: false,
            ..user
        };
        for (file, mode) in [(own, user), (self.system.join("ssh_config"), system)] {
            if let Err(error) = self.read_file(&file, mode, &mut files)? {
                debug!("not reading {}: {error}", file.display());
            }
        }
        Ok(())
    }

    /// Reads one file. The inner result is an error if the file cannot be read.
    fn read_file(
        &mut self,
        path: &Path,
        mode: Mode,
        files: &mut usize,
    ) -> Result<io::Result<()>, ConfigError> {
        *files += 1;
        if mode.depth > MAX_DEPTH || *files > MAX_FILES {
            return Err(ConfigError::Line {
                place: path.display().to_string(),
                problem: "too many files are included".into(),
            });
        }
        let text = match open(path, mode.check_permissions, self.invoker)? {
            Ok(text) => text,
            Err(error) => return Ok(Err(error)),
        };
        debug!("reading {}", path.display());
        let mut active = mode.active;
        for (index, text) in text.split('\n').enumerate() {
            let place = || format!("{} line {}", path.display(), index + 1);
            self.take_line(text, mode, &mut active, files)
                .map_err(|failure| failure.at(place))?;
        }
        Ok(Ok(()))
    }

    fn take_line(
        &mut self,
        text: &str,
        mode: Mode,
        active: &mut bool,
        files: &mut usize,
    ) -> Result<(), Failure> {
        let Some(line) = Line::parse(text)? else {
            return Ok(());
        };
        match (self.collected.kind(&line)?, line.keyword.as_str()) {
            (Some(Kind::Structure), "host") => {
                let patterns = line.some_words()?.iter().map(String::as_str);
                let host = if self.final_pass {
                    self.host_name()?
                } else {
                    self.typed_host.clone()
                };
                *active = mode.active && matches_any(&host, patterns);
            }
            (Some(Kind::Structure), "match") => {
                let holds = self.match_holds(&line)?;
                *active = mode.active && holds;
            }
            (Some(Kind::Structure), _) => {
                for name in line.some_words()? {
                    self.include(
                        name,
                        Mode {
                            active: *active,
                            ..mode
                        },
                        files,
                    )?;
                }
            }
            (Some(_), _) => self.collected.apply(&line, *active)?,
            (None, _) => {}
        }
        Ok(())
    }

    fn match_holds(&mut self, line: &Line) -> Result<bool, Failure> {
        let tokens = self.tokens()?;
        let values = &self.collected.values;
        let session_type = values.first("sessiontype").unwrap_or("default");
        let facts = MatchFacts {
            tokens: &tokens,
            invoker: self.invoker,
            tag: values.first("tag").unwrap_or_default(),
            session_type: &session_type.to_ascii_lowercase(),
            command: &self.command,
            final_pass: self.final_pass,
            runs_commands: self.runs_commands,
        };
        let outcome = conditions::evaluate(line, &facts)?;
        self.wants_final_pass |= outcome.wants_final_pass;
        Ok(outcome.holds)
    }

    /// Reads the files that match the pattern `name`. Missing files are skipped.
    fn include(&mut self, name: &str, mode: Mode, files: &mut usize) -> Result<(), Failure> {
        let tokens = self.tokens()?;
        let name = tokens.expand_with_environment("Include", name, COMMON, self.invoker)?;
        let path = if name.starts_with('~') {
            if !mode.user {
                return Err(format!("a system file cannot include {name}").into());
            }
            self.invoker.expand_tilde(&name)?
        } else if mode.user {
            self.invoker.home.join(".ssh").join(&name)
        } else {
            self.system.join(&name)
        };
        let included = Mode {
            check_permissions: true,
            depth: mode.depth + 1,
            ..mode
        };
        for file in matching_files(&path, self.invoker)? {
            match self.read_file(&file, included, files)? {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(ConfigError::read(&file, error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// The files that match a pattern of glob(7), in order, with the invoker's permissions.
fn matching_files(pattern: &Path, invoker: &Invoker) -> Result<Vec<PathBuf>, Failure> {
    let text = pattern.to_str().ok_or("a path is not UTF-8")?;
    // In glob(7) several stars are one; in the crate, two stars match any directories.
    let mut text = text.to_owned();
    while text.contains("**") {
        text = text.replace("**", "*");
    }
    let options = glob::MatchOptions {
        case_sensitive: true,
        require_literal_separator: true,
        require_literal_leading_dot: true,
    };
    let find = || {
        let found = glob::glob_with(&text, options).map_err(io::Error::other)?;
        Ok(found.flatten().take(MAX_FILES).collect())
    };
    let found = invoker.act(find);
    found.map_err(|error| format!("{text}: {error}").into())
}

/// The text of a file, read with the invoker's permissions. With `check`, the file must belong to
/// root or the invoker, and no other user may be able to write to it.
fn open(path: &Path, check: bool, invoker: &Invoker) -> Result<io::Result<String>, ConfigError> {
    let mut file = match invoker.open(path) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let metadata = file.metadata();
    let found = metadata.map_err(|source| ConfigError::read(path, source))?;
    let others_can_write = found.mode() & 0o022 != 0;
    if check && ((found.uid() != 0 && found.uid() != invoker.uid.as_raw()) || others_can_write) {
        return Err(ConfigError::Permissions {
            path: path.to_owned(),
        });
    }
    if found.is_dir() {
        // `Include conf.d/*` may match a directory; it contains no lines.
        return Ok(Ok(String::new()));
    }
    let mut bytes = Vec::new();
    let read = file.by_ref().take(MAX_FILE + 1).read_to_end(&mut bytes);
    let too_large = || io::Error::new(io::ErrorKind::FileTooLarge, "more than 4 MiB");
    match read {
        Ok(length) if length as u64 > MAX_FILE => Err(ConfigError::read(path, too_large())),
        // Comments may be in any encoding.
        Ok(_) => Ok(Ok(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) => Ok(Err(error)),
    }
}

/// A problem of a line, or an error that names its place already.
enum Failure {
    Problem(String),
    Placed(ConfigError),
}

impl Failure {
    fn at(self, place: impl Fn() -> String) -> ConfigError {
        match self {
            Failure::Problem(problem) => ConfigError::Line {
                place: place(),
                problem,
            },
            Failure::Placed(error @ ConfigError::Value { .. }) => ConfigError::Line {
                place: place(),
                problem: error.to_string(),
            },
            Failure::Placed(error) => error,
        }
    }
}

impl From<String> for Failure {
    fn from(problem: String) -> Self {
        Failure::Problem(problem)
    }
}

impl From<&str> for Failure {
    fn from(problem: &str) -> Self {
        Failure::Problem(problem.to_owned())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Placed(error)
    }
}
