//! Base64 (RFC 4648, section 4), as public keys and fingerprints are written.
//!
//! Decoding is strict: it refuses padding and trailing bits that encoding does not write, so each
//! byte string has exactly one text.

use data_encoding::BASE64_NOPAD;

/// Encodes without padding, as in fingerprints.
pub(crate) fn encode_unpadded(bytes: &[u8]) -> String {
    BASE64_NOPAD.encode(bytes)
}

/// Decodes padded text.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    // `data_encoding::BASE64` would also accept padding in the middle.
    let digits = text.trim_end_matches('=');
    let padding = text.len() - digits.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    decode_unpadded(digits)
}

/// Decodes text without padding.
pub(crate) fn decode_unpadded(text: &str) -> Option<Vec<u8>> {
    BASE64_NOPAD.decode(text.as_bytes()).ok()
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
