//! Makes text from a server or a file safe for the user's terminal: removes what controls a
//! terminal and what makes text look like other text.

/// `text` for use within one line: without control characters (including line ends) and
/// without format characters that reorder text.
pub fn line(text: &str) -> String {
    text.chars().filter(|&c| is_shown(c)).collect()
}

/// `text` for use as a paragraph: like [`line()`], but line ends and tabs stay.
pub fn paragraph(text: &str) -> String {
    text.chars()
        .filter(|&c| matches!(c, '\n' | '\t') || is_shown(c))
        .collect()
}

/// Whether `c` is none of these: a control character (C0, DEL, C1), a line or paragraph
/// separator, a bidirectional or invisible format character.
pub fn is_shown(c: char) -> bool {
    let format = matches!(
        c,
        '\u{00ad}'
            | '\u{061c}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{e0000}'..='\u{e007f}'
    );
    !c.is_control() && !format
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_lose_their_power() {
        assert_eq!(line("a\x1b[2Jb\x07\r\nc\u{9b}1m"), "a[2Jbc1m");
        assert_eq!(paragraph("a\tb\r\n\x1b]0;x\x07c"), "a\tb\n]0;xc");
        assert_eq!(line("user\u{202e}gpj.exe"), "usergpj.exe");
    }

    #[test]
    fn other_scripts_stay() {
        assert_eq!(line("Schlüssel 鍵 🔑"), "Schlüssel 鍵 🔑");
    }
}
