//! Matches patterns of ssh_config(5), section PATTERNS: `*`, `?`, and lists in which `!` negates a
//! pattern.

/// Whether `text` matches `pattern`, in which `*` is any text and `?` any one byte. Takes at most
/// the product of both lengths in steps.
pub(crate) fn matches_pattern(text: &str, pattern: &str) -> bool {
    let (text, pattern) = (text.as_bytes(), pattern.as_bytes());
    let (mut t, mut p) = (0, 0);
    // The positions to retry from if the text after the last star does not match.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((t, p + 1));
                p += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                t += 1;
                p += 1;
            }
            _ => match retry {
                Some((from, after_star)) => {
                    t = from + 1;
                    p = after_star;
                    retry = Some((t, p));
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(p).all(|&rest| rest == b'*')
}

/// Whether `text` matches one of the patterns and none of the negated ones.
pub(crate) fn matches_any<'a>(text: &str, patterns: impl IntoIterator<Item = &'a str>) -> bool {
    let mut found = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(negated) if matches_pattern(text, negated) => return false,
            Some(_) => {}
            None => found |= matches_pattern(text, pattern),
        }
    }
    found
}

/// The same for a comma-separated list of patterns.
pub(crate) fn matches_list(text: &str, list: &str) -> bool {
    matches_any(text, list.split(','))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn wildcards() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "*", true),
            ("a", "", false),
            ("host.example.com", "*.example.com", true),
            ("example.com", "*.example.com", false),
            ("192.168.0.12", "192.168.0.?", false),
            ("192.168.0.1", "192.168.0.?", true),
            ("aXbXc", "a*b*c", true),
            ("aab", "*ab", true),
            ("Host", "host", false),
            ("a", "a**", true),
        ] {
            assert_eq!(matches_pattern(text, pattern), expected, "{text} {pattern}");
        }
    }

    #[test]
    fn negation_takes_away_but_never_matches_by_itself() {
        assert!(matches_list("a.lab", "!b.lab,*.lab"));
        assert!(!matches_list("b.lab", "*.lab,!b.lab"));
        assert!(!matches_list("a.lab", "!b.lab"));
    }

    /// The definition, as plain recursion.
    fn by_definition(text: &[u8], pattern: &[u8]) -> bool {
        match (pattern.first(), text.first()) {
            (None, rest) => rest.is_none(),
            (Some(b'*'), None) => by_definition(text, &pattern[1..]),
            (Some(b'*'), Some(_)) => {
                by_definition(text, &pattern[1..]) || by_definition(&text[1..], pattern)
            }
            (Some(_), None) => false,
            (Some(wanted), Some(byte)) => {
                (*wanted == b'?' || wanted == byte) && by_definition(&text[1..], &pattern[1..])
            }
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(text in "[ab]{0,8}", pattern in "[ab*?]{0,6}") {
            let expected = by_definition(text.as_bytes(), pattern.as_bytes());
            prop_assert_eq!(matches_pattern(&text, &pattern), expected);
        }
    }
}
