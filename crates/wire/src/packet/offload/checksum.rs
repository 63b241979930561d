//! The internet checksum (RFC 1071) and the pseudo headers of TCP and UDP.

use std::ops::Add;

/// Bytes that are summed in one step of the inner loop.
const BLOCK: usize = 32;

/// A ones' complement sum of 16-bit words, not folded yet. It is kept in the machine's
/// byte order: the sum of swapped words is the swapped sum (RFC 1071 section 2 (B)), so
/// only the result is swapped.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of `bytes`, padded with a zero byte if their number is odd. Sums may be
    /// added if all but the last cover an even number of bytes.
    pub fn of(bytes: &[u8]) -> Self {
        // The compiler turns independent lanes into vector instructions. Neither they nor
        // their sum can overflow: that takes 2^29 blocks.
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let mut lanes = [0_u64; BLOCK / 4];
        for block in blocks {
            let (words, _) = block.as_chunks::<4>();
            for (lane, word) in lanes.iter_mut().zip(words) {
                *lane += u64::from(u32::from_ne_bytes(*word));
            }
        }
        Self::of_short(rest) + Sum(lanes.into_iter().sum())
    }

    /// The sum of less than a block, which most headers are.
    fn of_short(bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<4>();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let last = u64::from(u32::from_ne_bytes(last));
        let words = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)));
        Sum(last + words.sum::<u64>())
    }

    /// The sum of one 16-bit number.
    pub fn of_word(word: u16) -> Self {
        Sum(u64::from(u16::from_ne_bytes(word.to_be_bytes())))
    }

    /// The sum folded to 16 bits: zero only if all summed bytes are zero.
    pub fn fold(self) -> u16 {
        let mut sum = self.0;
        // Four additions of halves are enough: 64 bits, 33, 18, 17, 16.
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        u16::from_be((sum & 0xffff) as u16)
    }

    /// The value for the checksum field, which was summed as zero.
    pub fn checksum(self) -> u16 {
        !self.fold()
    }
}

impl Add for Sum {
    type Output = Sum;

    /// The sum of the bytes of both.
    fn add(self, other: Sum) -> Sum {
        let (sum, carry) = self.0.overflowing_add(other.0);
        // After an overflow the sum is at most 2^64 - 2.
        Sum(sum + u64::from(carry))
    }
}

/// The sum of the pseudo header: both `addresses` as in the IP header, the protocol
/// number, and the length of transport header and payload in bytes (RFC 9293 section 3.1,
/// RFC 768; RFC 8200 section 8.1).
pub fn pseudo_header(addresses: &[u8], protocol: u8, length: u32) -> Sum {
    let [a, b, c, d] = length.to_be_bytes();
    Sum::of(addresses)
        + Sum::of_word(u16::from(protocol))
        + Sum::of_word(u16::from_be_bytes([a, b]))
        + Sum::of_word(u16::from_be_bytes([c, d]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The algorithm of RFC 1071 section 4.1, word by word.
    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0_u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    #[test]
    fn the_example_of_the_rfc() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::of(&bytes).fold(), 0xddf2);
        assert_eq!(Sum::of(&bytes).checksum(), 0x220d);
        assert_eq!(Sum::of_word(0x1234).fold(), 0x1234);
    }

    #[test]
    fn the_largest_sums_do_not_overflow() {
        assert_eq!(Sum::of(&[0xff; 65536]).fold(), 0xffff);
        assert_eq!((Sum(u64::MAX) + Sum(u64::MAX)).fold(), 0xffff);
        assert_eq!(Sum::of(&[0; 64]).fold(), 0);
    }

    #[test]
    fn pseudo_headers_are_those_of_etherparse() {
        let udp = etherparse::UdpHeader {
            source_port: 0,
            destination_port: 0,
            length: 8,
            checksum: 0,
        };
        let (from, to) = ([192, 168, 1, 1], [10, 0, 0, 254]);
        // The rest of such a header is its length.
        let sum = pseudo_header(&[from, to].concat(), 17, 8) + Sum::of_word(8);
        let expected = udp.calc_checksum_ipv4_raw(from, to, &[]).unwrap();
        assert_eq!(sum.checksum(), expected);
        let (from, to) = ([0xfd; 16], [0x20; 16]);
        let sum = pseudo_header(&[from, to].concat(), 17, 8) + Sum::of_word(8);
        let expected = udp.calc_checksum_ipv6_raw(from, to, &[]).unwrap();
        assert_eq!(sum.checksum(), expected);
    }

    proptest! {
        #[test]
        fn fast_and_slow_agree(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0..150_usize) {
            prop_assert_eq!(Sum::of(&bytes).fold(), slow(&bytes));
            let (one, two) = bytes.split_at((cut * 2).min(bytes.len() & !1));
            prop_assert_eq!((Sum::of(one) + Sum::of(two)).fold(), slow(&bytes));
        }
    }
}
