//! Parses one line of ssh_config(5): a keyword, then arguments that may be quoted.

/// A line that is not empty and not a comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The keyword in lower case.
    pub keyword: String,
    /// The text after the keyword, unchanged.
    pub rest: String,
    /// The words after the keyword.
    pub words: Vec<String>,
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

impl Line {
    /// Parses `text`; `None` for an empty line or a comment. The error describes the problem.
    pub fn parse(text: &str) -> Result<Option<Self>, String> {
        let text = text.trim_end_matches([' ', '\t', '\r', '\n', '\x0c']);
        let text = text.trim_start_matches(SPACE);
        let (keyword, rest) = split_keyword(text)?;
        if keyword.is_empty() || keyword.starts_with('#') {
            return Ok(None);
        }
        let keyword = keyword.to_ascii_lowercase();
        let rest = rest.trim_start_matches(SPACE);
        let rest = rest.strip_prefix('=').unwrap_or(rest);
        let rest = rest.trim_start_matches(SPACE);
        if rest.is_empty() {
            return Err(format!("{keyword} needs an argument"));
        }
        Ok(Some(Self {
            words: split_words(rest)?,
            rest: rest.to_owned(),
            keyword,
        }))
    }

    /// The only argument of the keyword.
    pub fn only_word(&self) -> Result<&str, String> {
        match self.words.as_slice() {
            [word] if !word.is_empty() => Ok(word),
            [] => Err(format!("{} needs an argument", self.keyword)),
            [word] if word.is_empty() => Err(format!("{} needs an argument", self.keyword)),
            _ => Err(format!("{} takes one argument", self.keyword)),
        }
    }

    /// The arguments of the keyword, at least one, none of them empty.
    pub fn some_words(&self) -> Result<&[String], String> {
        if self.words.is_empty() || self.words.iter().any(String::is_empty) {
            return Err(format!(
                "{} needs arguments that are not empty",
                self.keyword
            ));
        }
        Ok(&self.words)
    }

    /// The text after the keyword, for keywords with a shell command.
    pub fn command(&self) -> &str {
        self.rest.trim_start_matches([' ', '\t', '='])
    }
}

fn split_keyword(text: &str) -> Result<(&str, &str), String> {
    if let Some(quoted) = text.strip_prefix('"') {
        return quoted
            .split_once('"')
            .ok_or_else(|| "a quote is not closed".to_owned());
    }
    let end = text.find([' ', '\t', '\r', '\n', '=', '"']);
    let split = text.split_at_checked(end.unwrap_or(text.len()));
    Ok(split.unwrap_or((text, "")))
}

/// Splits text into words, in either kind of quotes or none; a backslash escapes a quote, itself
/// and, outside of quotes, a space. An unquoted `#` at the start of a word ends the line.
pub(super) fn split_words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|&c| c == ' ' || c == '\t').is_some() {}
        if chars.peek().is_none_or(|&c| c == '#') {
            return Ok(words);
        }
        let mut word = String::new();
        let mut quote = None;
        while let Some(c) = chars.next_if(|&c| quote.is_some() || (c != ' ' && c != '\t')) {
            let escaped = |next: char| match next {
                '\'' | '"' | '\\' => true,
                ' ' => quote.is_none(),
                _ => false,
            };
            match c {
                '\\' => word.push(chars.next_if(|&next| escaped(next)).unwrap_or('\\')),
                '"' | '\'' if quote.is_none() => quote = Some(c),
                c if quote == Some(c) => quote = None,
                c => word.push(c),
            }
        }
        if quote.is_some() {
            return Err("a quote is not closed".to_owned());
        }
        words.push(word);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(text: &str) -> Vec<String> {
        Line::parse(text).unwrap().unwrap().words
    }

    #[test]
    fn forms_of_a_line() {
        for same in [
            "Port 22",
            " \tport=22 ",
            "PORT = 22\r\n",
            "\"port\" 22",
            "port \"22\" # x",
        ] {
            let line = Line::parse(same).unwrap().unwrap();
            assert_eq!(
                (line.keyword.as_str(), line.only_word()),
                ("port", Ok("22")),
                "{same}"
            );
        }
        for nothing in ["", "  ", "# Port 22", "\t#x", "\r\n"] {
            assert_eq!(Line::parse(nothing), Ok(None), "{nothing}");
        }
        for wrong in ["port", "port=", "port \"22", "\"port 22"] {
            assert!(Line::parse(wrong).is_err(), "{wrong}");
        }
        assert!(
            Line::parse("port 1 2")
                .unwrap()
                .unwrap()
                .only_word()
                .is_err()
        );
        assert!(
            Line::parse("port \"\"")
                .unwrap()
                .unwrap()
                .only_word()
                .is_err()
        );
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(
            words(r#"k a "b c" 'd "e' f"g h"i"#),
            ["a", "b c", "d \"e", "fg hi"]
        );
        assert_eq!(
            words(r#"k a\ b "c\"d" 'e\\f' g\h "i\ j""#),
            ["a b", "c\"d", "e\\f", "g\\h", "i\\ j"]
        );
        assert_eq!(words("k a#b #c d"), ["a#b"]);
        assert_eq!(words("k \"\" x"), ["", "x"]);
        let line = Line::parse("ProxyCommand = nc  '%h' # %p")
            .unwrap()
            .unwrap();
        assert_eq!(line.command(), "nc  '%h' # %p");
    }

    proptest! {
        #[test]
        fn no_line_panics(text in "[a \"'\\\\#=\t\ré]{0,24}|\\PC{0,24}") {
            if let Ok(Some(line)) = Line::parse(&text) {
                let _ = line.only_word();
                line.command();
            }
        }
    }
}
