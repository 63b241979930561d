//! Parses configuration files in TOML as a whole, with the line number of an error.

use serde::de::DeserializeOwned;

/// Parses a document; the error is one line of text that begins with the line number.
pub(crate) fn parse<T: DeserializeOwned>(content: &[u8]) -> Result<T, String> {
    let text = match std::str::from_utf8(content) {
        Ok(text) => text,
        Err(error) => {
            let good = content.get(..error.valid_up_to()).unwrap_or_default();
            return Err(format!("line {}: not UTF-8", line_at_end(good)));
        }
    };
    toml::from_str(text).map_err(|error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        let line = before.map_or(1, |before| line_at_end(before.as_bytes()));
        format!("line {line}: {}", error.message().replace('\n', ", "))
    })
}

/// The number of the line that contains `offset`.
pub(crate) fn line_at(content: &[u8], offset: usize) -> usize {
    line_at_end(content.get(..offset).unwrap_or(content))
}

fn line_at_end(before: &[u8]) -> usize {
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}
