//! Base64 (RFC 4648, section 4), as public keys and fingerprints are written.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text without padding, as fingerprints have it.
pub(crate) fn encode_unpadded(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0u32, |group, (i, &byte)| {
            group | u32::from(byte) << (16 - 8 * i)
        });
        for place in 0..=chunk.len() {
            let digit = (group >> (18 - 6 * place)) & 63;
            text.extend(ALPHABET.get(digit as usize).map(|&letter| letter as char));
        }
    }
    text
}

/// Reads padded text; `None` for anything that encoding would not have written,
/// so that no bytes have two texts.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.bytes().rev().take_while(|&byte| byte == b'=').count();
    let digits = text.get(..text.len().checked_sub(padding)?)?;
    if padding > 2 {
        return None;
    }
    decode_unpadded(digits)
}

/// The same without padding.
pub(crate) fn decode_unpadded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0u32;
        for (i, &letter) in chunk.iter().enumerate() {
            group |= digit(letter)? << (18 - 6 * i);
        }
        let whole = chunk.len().checked_sub(1).filter(|&whole| whole > 0)?;
        let [_, first, second, third] = group.to_be_bytes();
        let three = [first, second, third];
        let (kept, rest) = three.split_at_checked(whole)?;
        if rest.iter().any(|&byte| byte != 0) {
            return None;
        }
        bytes.extend(kept);
    }
    Some(bytes)
}

fn digit(letter: u8) -> Option<u32> {
    let value = match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_rfcs_own_examples() {
        for (plain, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(decode(text).as_deref(), Some(plain.as_bytes()));
            assert_eq!(
                encode_unpadded(plain.as_bytes()),
                text.trim_end_matches('=')
            );
        }
    }

    #[test]
    fn no_bytes_have_two_texts() {
        for wrong in [
            "Zg",
            "Zg=",
            "Zh==",
            "Zm9=",
            "Zg==Zg==",
            "====",
            "Z===",
            "Zm 9",
            "Zm9\u{e9}",
        ] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(bytes: Vec<u8>) {
            let text = encode_unpadded(&bytes);
            prop_assert_eq!(decode_unpadded(&text), Some(bytes));
        }

        #[test]
        fn no_text_panics(text in "[A-Za-z0-9+/=é]{0,20}") {
            if let Some(bytes) = decode(&text) {
                prop_assert_eq!(encode_unpadded(&bytes), text.trim_end_matches('='));
            }
        }
    }
}
