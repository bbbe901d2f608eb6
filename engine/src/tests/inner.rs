//! What is done to single packets: padding cut off, congestion brought inwards.

use gotatun::packet::Packet;

use super::made::{Made, right, tcp, udp};
use crate::inner::{combined, congestion, unpadded};

fn packet(bytes: &[u8]) -> Packet {
    Packet::copy_from(bytes)
}

#[test]
fn congestion_outside_is_told_inside_as_rfc_6040_has_it() {
    // Inner and outer bits; what becomes of the inner ones, or nothing when the packet is lost.
    let rows = [
        (0, 0, Some(0)),
        (0, 2, Some(0)),
        (0, 1, Some(0)),
        (0, 3, None),
        (2, 0, Some(2)),
        (2, 2, Some(2)),
        (2, 1, Some(1)),
        (2, 3, Some(3)),
        (1, 0, Some(1)),
        (1, 2, Some(1)),
        (1, 1, Some(1)),
        (1, 3, Some(3)),
        (3, 0, Some(3)),
        (3, 2, Some(3)),
        (3, 1, Some(3)),
        (3, 3, Some(3)),
    ];
    for ipv6 in [false, true] {
        for (inner, outer, expected) in rows {
            let made = Made { class: 0xb8 | inner, ..tcp(ipv6, 100) };
            let got = combined(packet(&made.bytes()), outer);
            let want = expected.map(|bits| Made { class: 0xb8 | bits, ..made.clone() }.bytes());
            assert_eq!(got.map(|packet| packet.to_vec()), want, "{inner} in {outer}, IPv6 {ipv6}");
        }
    }
}

#[test]
fn a_wrong_checksum_stays_wrong_when_congestion_is_told() {
    let mut bytes = Made { class: 2, ..udp(false, 10) }.bytes();
    bytes[10] ^= 1;
    assert!(!right(&combined(packet(&bytes), 3).expect("it is not lost")));
}

#[test]
fn only_congestion_is_shown_outside() {
    for ipv6 in [false, true] {
        for class in 0..=255 {
            assert_eq!(congestion(&Made { class, ..tcp(ipv6, 1) }.bytes()), class & 3);
        }
    }
    assert_eq!(congestion(&[]), 0);
}

#[test]
fn padding_is_cut_off_and_what_is_no_packet_is_lost() {
    for made in [udp(false, 5), udp(true, 5)] {
        let bytes = made.bytes();
        let padded = [&bytes[..], &[0; 11]].concat();
        assert_eq!(unpadded(packet(&padded)).map(|packet| packet.to_vec()), Some(bytes.clone()));
        for length in 0..bytes.len() {
            assert!(unpadded(packet(&bytes[..length])).is_none(), "{length} bytes of it");
        }
    }
    let mut short = udp(false, 5).bytes();
    short[2..4].copy_from_slice(&19u16.to_be_bytes());
    assert!(unpadded(packet(&short)).is_none(), "shorter than its header");
    assert!(unpadded(packet(&[0x50; 60])).is_none(), "no such version");
    assert!(unpadded(packet(&[])).is_none(), "a keepalive");
}
