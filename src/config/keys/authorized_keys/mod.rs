//! Parses authorized_keys: one key per line (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
//!
//! sshvpn enforces every option of a line or refuses the line. It ignores an option without a
//! meaning here only if that grants no more than the line says: an administrator who wrote
//! `command="…"` did not mean a login without it.

mod options;

#[cfg(test)]
mod agreement_tests;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use options::{KeyOptions, OptionError};

use super::key_blob::{KeyBlob, KeyError};

/// A key and the conditions of its login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthorizedKey {
    /// The options in front of the key.
    pub options: KeyOptions,
    /// The key, or an authority's key.
    pub key: KeyBlob,
    /// The comment behind the key.
    pub comment: String,
}

/// The reason why a line is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineProblem {
    /// A quote is not closed.
    #[error("a quote in the options is not closed")]
    OpenQuote,
    /// The key is missing or not supported.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// There is no key after the options or the type.
    #[error("there is no key on this line: write it as [OPTIONS] TYPE BASE64 [COMMENT]")]
    NoKey,
    /// An option is invalid or not supported.
    #[error(transparent)]
    Option(#[from] OptionError),
}

/// A refused line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedLine {
    /// The key, if one could be read; later lines must not allow it either.
    pub key: Option<KeyBlob>,
    /// The reason.
    pub problem: LineProblem,
}

/// A line that is not empty and not a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The line's number, from 1.
    pub number: usize,
    /// The result of parsing it.
    pub read: Result<AuthorizedKey, RefusedLine>,
}

/// Parses a file. A refused line does not stop the parsing.
pub fn parse(content: &[u8]) -> Vec<Line> {
    let numbered = content.split(|&byte| byte == b'\n').zip(1..);
    let lines = numbered.filter_map(|(bytes, number)| {
        let text = String::from_utf8_lossy(bytes);
        let read = parse_line(&text).transpose()?;
        Some(Line { number, read })
    });
    lines.collect()
}

/// Parses one line; `None` for an empty line and for a comment.
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
        // The unknown first word may be a key type.
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

/// Parses the key and the comment of a line; `kind` is the line's first word.
fn parse_key(kind: &str, rest: &str) -> Result<(KeyBlob, String), LineProblem> {
    let (text, comment) = split_word(rest);
    if kind.is_empty() || (text.is_empty() && KeyBlob::is_type(kind)) {
        return Err(LineProblem::NoKey);
    }
    let key = KeyBlob::parse(kind, text)?;
    Ok((key, comment.to_owned()))
}

/// The position of the first space or tab outside of quotes, or the end; `None` if a quote is not
/// closed.
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

/// Splits off the first word.
fn split_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, trim(rest))
}

fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}
