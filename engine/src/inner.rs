//! The packet inside: its addresses, the padding behind it, and congestion told from outside.

use gotatun::packet::Packet;

use crate::checksum;

/// The source address, 4 or 16 bytes; nothing when it is no IP packet.
pub fn source(packet: &[u8]) -> &[u8] {
    address(packet, 12, 8)
}

/// The destination address.
pub fn destination(packet: &[u8]) -> &[u8] {
    address(packet, 16, 24)
}

fn address(packet: &[u8], ipv4: usize, ipv6: usize) -> &[u8] {
    let range = match packet.first().map(|first| first >> 4) {
        Some(4) => ipv4..ipv4 + 4,
        Some(6) => ipv6..ipv6 + 16,
        _ => 0..0,
    };
    packet.get(range).unwrap_or_default()
}

/// Cut off the padding; nothing when it is a keepalive, or no whole IP packet.
pub fn unpadded(mut packet: Packet) -> Option<Packet> {
    let length = match packet.first()? >> 4 {
        4 if packet.len() >= 20 => usize::from(u16::from_be_bytes([packet[2], packet[3]])),
        6 if packet.len() >= 40 => 40 + usize::from(u16::from_be_bytes([packet[4], packet[5]])),
        _ => return None,
    };
    if length < 20 || length > packet.len() {
        return None;
    }
    packet.truncate(length);
    Some(packet)
}

const ECT0: u8 = 0b10;
const ECT1: u8 = 0b01;
const CE: u8 = 0b11;

/// The congestion bits, which alone of a packet's class are shown outside (RFC 6040, normal mode).
pub fn congestion(packet: &[u8]) -> u8 {
    match packet {
        [first, second, ..] if first >> 4 == 4 => second & 3,
        [first, second, ..] if first >> 4 == 6 => second >> 4 & 3,
        _ => 0,
    }
}

/// Bring congestion met outside inwards (RFC 6040, figure 4). A packet whose transport cannot be told of it
/// is lost instead.
pub fn combined(mut packet: Packet, outer: u8) -> Option<Packet> {
    let inner = congestion(&packet);
    let new = match (inner, outer) {
        (0, CE) => return None,
        (ECT0 | ECT1, CE) => CE,
        (ECT0, ECT1) => ECT1,
        _ => return Some(packet),
    };
    if packet[0] >> 4 == 4 {
        let old = [packet[0], packet[1]];
        packet[1] = packet[1] & !3 | new;
        let changed = [packet[0], packet[1]];
        let checksum = checksum::replace([packet[10], packet[11]], old, changed);
        packet[10..12].copy_from_slice(&checksum);
    } else {
        packet[1] = packet[1] & !0x30 | new << 4;
    }
    Some(packet)
}
