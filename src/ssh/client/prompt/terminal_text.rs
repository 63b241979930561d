//! Text from elsewhere (a server, a file) made fit for the user's terminal:
//! without what a terminal acts upon, or what makes text read as another text.

/// `text` for use inside one line: without control characters (line ends
/// among them) and without the format characters that reorder text.
pub fn line(text: &str) -> String {
    text.chars().filter(|&c| is_shown(c)).collect()
}

/// `text` for use as a paragraph: like [`line()`], but line ends and tabs stay.
pub fn paragraph(text: &str) -> String {
    text.chars()
        .filter(|&c| matches!(c, '\n' | '\t') || is_shown(c))
        .collect()
}

/// Neither a control character (C0, DEL, C1), nor a line or paragraph
/// separator, nor a bidirectional or invisible format character.
fn is_shown(c: char) -> bool {
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
