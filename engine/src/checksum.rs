//! The Internet checksum (RFC 1071).
//!
//! Sums are kept in the machine's byte order: a ones' complement sum does not depend on it, and only the
//! finished 16 bits are written back, with `to_ne_bytes`.

/// Sum `bytes` in 16-bit words; an odd last byte is padded with a zero.
pub fn sum(bytes: &[u8]) -> u64 {
    // Eight independent lanes of 32-bit words, which the compiler turns into vector instructions.
    let mut lanes = [0u64; 8];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let mut pairs = blocks.remainder().chunks_exact(2);
    for pair in &mut pairs {
        total += u64::from(u16::from_ne_bytes([pair[0], pair[1]]));
    }
    if let [last] = pairs.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

/// Fold a sum into 16 bits.
pub fn fold(mut total: u64) -> u16 {
    while total >> 16 != 0 {
        total = (total & 0xffff) + (total >> 16);
    }
    total as u16
}

/// Return what a 16-bit number in network order adds to a sum.
pub fn number(value: u16) -> u64 {
    u64::from(value.to_be())
}

/// Sum a pseudo-header: both addresses as they stand in the IP header, protocol and length.
pub fn pseudo_header(addresses: &[u8], protocol: u8, length: u16) -> u64 {
    sum(addresses) + number(u16::from(protocol)) + number(length)
}

/// Replace a 16-bit word that a checksum covers (RFC 1624): what was wrong stays wrong by as much.
pub fn replace(checksum: [u8; 2], old: [u8; 2], new: [u8; 2]) -> [u8; 2] {
    let total = u64::from(!u16::from_ne_bytes(checksum))
        + u64::from(!u16::from_ne_bytes(old))
        + u64::from(u16::from_ne_bytes(new));
    (!fold(total)).to_ne_bytes()
}
