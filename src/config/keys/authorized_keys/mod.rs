//! Keys that may log in, one to a line: sshd(8), AUTHORIZED_KEYS FILE FORMAT.
//!
//! What a line says is kept to, or the line is refused: an option that means
//! nothing here is read over only where that gives nobody more than the line
//! says, since who wrote `command="…"` did not mean a login without it.

mod options;

#[cfg(test)]
mod agreement_tests;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use options::{KeyOptions, OptionError};

use super::key_blob::{KeyBlob, KeyError};

/// One key, and under which conditions it may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedKey {
    /// What stands in front of the key.
    pub options: KeyOptions,
    /// The key, or that of an authority.
    pub key: KeyBlob,
    /// What stands behind it.
    pub comment: String,
}

/// Why a line lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineProblem {
    /// A quote opens and does not close.
    #[error("a quote in the options is not closed")]
    OpenQuote,
    /// There is no key, or not of a kind that is taken.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is nothing behind the options, or behind the type.
    #[error("there is no key on this line: write it as [OPTIONS] TYPE BASE64 [COMMENT]")]
    NoKey,
    /// An option that cannot be kept to.
    #[error(transparent)]
    Option(#[from] OptionError),
}

/// A line that lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLine {
    /// The key, where one could be read; later lines are not to let it in either.
    pub key: Option<KeyBlob>,
    /// What is wrong.
    pub problem: LineProblem,
}

/// A line with something on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its number, from one on.
    pub number: usize,
    /// What it says.
    pub read: Result<AuthorizedKey, RefusedLine>,
}

/// Reads a file. A line is never a reason not to read the next.
pub fn parse(content: &[u8]) -> Vec<Line> {
    let numbered = content.split(|&byte| byte == b'\n').zip(1..);
    let lines = numbered.filter_map(|(bytes, number)| {
        let text = String::from_utf8_lossy(bytes);
        let read = parse_line(&text).transpose()?;
        Some(Line { number, read })
    });
    lines.collect()
}

/// Reads one line; `None` for an empty one and for a comment.
pub fn parse_line(text: &str) -> Result<Option<AuthorizedKey>, RefusedLine> {
    let text = trim(text.strip_suffix('\r').unwrap_or(text));
    if text.is_empty() || text.starts_with('#') {
        return Ok(None);
    }
    let without_key = |problem: LineProblem| RefusedLine { key: None, problem };
    let (first, rest) = split_word(text);
    if let Ok((key, comment)) = parse_key(first, rest) {
        return Ok(Some(AuthorizedKey {
            options: KeyOptions::default(),
            key,
            comment,
        }));
    }
    if KeyBlob::is_type(first) {
        return Err(without_key(
            parse_key(first, rest).err().unwrap_or(LineProblem::NoKey),
        ));
    }
    let end = end_of_options(text).ok_or_else(|| without_key(LineProblem::OpenQuote))?;
    let (options, rest) = text.split_at_checked(end).unwrap_or((text, ""));
    let (kind, rest) = split_word(trim(rest));
    let (key, comment) = parse_key(kind, rest).map_err(|problem| match problem {
        // It may be the key of an unknown type that the line begins with.
        LineProblem::Key(KeyError::UnknownType(_)) => without_key(LineProblem::NoKey),
        problem => without_key(problem),
    })?;
    match KeyOptions::parse(options) {
        Ok(options) => Ok(Some(AuthorizedKey {
            options,
            key,
            comment,
        })),
        Err(problem) => Err(RefusedLine {
            key: Some(key),
            problem: problem.into(),
        }),
    }
}

/// The key and the comment of a line, of which `kind` is the first word.
fn parse_key(kind: &str, rest: &str) -> Result<(KeyBlob, String), LineProblem> {
    let (text, comment) = split_word(rest);
    if kind.is_empty() || (text.is_empty() && KeyBlob::is_type(kind)) {
        return Err(LineProblem::NoKey);
    }
    let key = KeyBlob::parse(kind, text)?;
    Ok((key, comment.to_owned()))
}

/// Where the first space or tab outside of quotes is, or the end; `None` where a
/// quote does not close.
fn end_of_options(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut bytes = text.bytes().enumerate().peekable();
    while let Some((place, byte)) = bytes.next() {
        match byte {
            b'\\' if matches!(bytes.peek(), Some((_, b'"'))) => {
                bytes.next();
            }
            b'"' => quoted = !quoted,
            b' ' | b'\t' if !quoted => return Some(place),
            _ => {}
        }
    }
    (!quoted).then_some(text.len())
}

/// The first word, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, trim(rest))
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
