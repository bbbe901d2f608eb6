//! The checksum against a plain one.

use proptest::prelude::*;

use crate::checksum::{fold, replace, sum};

/// RFC 1071, word by word.
fn plain(bytes: &[u8]) -> u16 {
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Zero has two forms, which are the same number.
fn same(left: u16, right: u16) -> bool {
    left % 0xffff == right % 0xffff
}

proptest! {
    #[test]
    fn it_is_the_plain_sum_whatever_the_length(bytes in prop::collection::vec(any::<u8>(), 0..3000)) {
        prop_assert!(same(u16::from_be(fold(sum(&bytes))), plain(&bytes)));
    }

    #[test]
    fn a_replaced_word_moves_the_checksum_as_summing_again_does(
        mut bytes in prop::collection::vec(any::<u8>(), 20),
        new in any::<[u8; 2]>(),
    ) {
        let before = (!fold(sum(&bytes))).to_ne_bytes();
        let old = [bytes[4], bytes[5]];
        bytes[4..6].copy_from_slice(&new);
        let moved = u16::from_ne_bytes(replace(before, old, new));
        prop_assert!(same(moved, !fold(sum(&bytes))));
    }
}

#[test]
fn the_largest_packet_of_ones_does_not_overflow() {
    assert_eq!(fold(sum(&[0xff; 65_535])), u16::from_be(plain(&[0xff; 65_535])));
}
