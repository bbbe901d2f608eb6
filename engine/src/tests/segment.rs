//! Cutting: what each header must say (one row for each rule), and what is refused.

use super::made::{Made, right, tcp, udp};
use crate::checksum::{fold, pseudo_header};
use crate::segment::{Malformed, segment};
use crate::tun::{Gso, VnetHeader};

/// A super-packet as the kernel hands it over: the checksum holds the pseudo-header's sum.
fn merged(made: &Made, size: usize) -> (VnetHeader, Vec<u8>) {
    let mut packet = made.bytes();
    let head = packet.len() - made.payload.len();
    let start = head - if made.tcp { 20 + made.options.len() } else { 8 };
    let (field, protocol) = if made.tcp { (16, 6) } else { (6, 17) };
    let addresses = if made.ipv6 { packet[8..40].to_vec() } else { packet[12..20].to_vec() };
    let sum = fold(pseudo_header(&addresses, protocol, (packet.len() - start) as u16));
    packet[start + field..start + field + 2].copy_from_slice(&sum.to_ne_bytes());
    let gso = match (made.tcp, made.ipv6) {
        (true, false) => Gso::Tcp4,
        (true, true) => Gso::Tcp6,
        (false, _) => Gso::Udp,
    };
    // The kernel's length of the headers is a hint, and here a wrong one.
    (VnetHeader { hdr_len: 999, ..VnetHeader::merged(gso, 0, size, start, field) }, packet)
}

fn cut(vnet: &VnetHeader, packet: &[u8]) -> Result<Vec<Vec<u8>>, Malformed> {
    let mut packets = vec![];
    segment(vnet, &mut packet.to_vec(), |head, payload| packets.push([head, payload].concat()))?;
    Ok(packets)
}

/// What an honest sender would have sent without offloads.
fn expected(made: &Made, size: usize) -> Vec<Vec<u8>> {
    let count = made.payload.len().div_ceil(size);
    let parts = made.payload.chunks(size).enumerate();
    let packets = parts.map(|(index, part)| {
        let mut flags = made.flags;
        if index > 0 {
            flags &= !0x80;
        }
        if index + 1 < count {
            flags &= !0x09;
        }
        let sequence = made.sequence.wrapping_add((index * size) as u32);
        let id = made.id.wrapping_add(index as u16);
        Made { payload: part.to_vec(), flags, sequence, id, ..made.clone() }.bytes()
    });
    packets.collect()
}

#[test]
fn each_segment_is_what_an_honest_sender_would_send() {
    let rows: Vec<(&str, Made)> = vec![
        ("TCP", tcp(false, 5_000)),
        ("TCP over IPv6", tcp(true, 5_000)),
        ("UDP", udp(false, 5_000)),
        ("UDP over IPv6", udp(true, 5_000)),
        ("FIN and PSH only on the last", Made { flags: 0x19, ..tcp(false, 5_000) }),
        ("CWR only on the first", Made { flags: 0x90, ..tcp(false, 5_000) }),
        ("URG on all", Made { flags: 0x30, ..tcp(true, 5_000) }),
        ("the sequence number wraps", Made { sequence: u32::MAX - 100, ..tcp(false, 5_000) }),
        ("the id wraps", Made { id: u16::MAX, ..tcp(false, 5_000) }),
        ("IPv4 options", Made { ip_options: vec![1; 8], ..tcp(false, 5_000) }),
        ("IPv4 options and UDP", Made { ip_options: vec![1; 40], ..udp(false, 5_000) }),
        ("no TCP options", Made { options: vec![], ..tcp(false, 5_000) }),
        ("the most TCP options", Made { options: vec![1; 40], ..tcp(true, 5_000) }),
        ("class and limit", Made { class: 0xb9, limit: 1, ..tcp(true, 5_000) }),
        ("the longest", tcp(false, 65_535 - 52)),
        ("the longest of IPv6", tcp(true, 65_535 - 32)),
        ("odd lengths", udp(true, 4_999)),
        ("less than one segment", tcp(false, 3)),
    ];
    for (name, made) in rows {
        for size in [1, 2, 7, 1_219, 1_220, 9_000] {
            if made.payload.len() / size > 20_000 {
                continue;
            }
            let (vnet, packet) = merged(&made, size);
            let got = cut(&vnet, &packet).expect(name);
            assert_eq!(got, expected(&made, size), "{name}, {size}");
            assert!(got.iter().all(|packet| right(packet)), "{name}, {size}");
        }
    }
}

#[test]
fn one_packet_gets_its_checksum_and_nothing_else() {
    for made in [tcp(false, 100), tcp(true, 101), udp(false, 99), udp(true, 0)] {
        let (vnet, packet) = merged(&made, 1);
        let vnet = VnetHeader { gso_type: 0, gso_size: 0, ..vnet };
        assert_eq!(cut(&vnet, &packet).expect("one"), [made.bytes()]);
        let finished = made.bytes();
        assert_eq!(cut(&VnetHeader::default(), &finished).expect("one"), std::slice::from_ref(&finished));
    }
}

#[test]
fn a_checksum_of_udp_is_never_zero() {
    let mut seen = false;
    for last in 0..=u16::MAX {
        let payload = last.to_be_bytes().to_vec();
        let made = Made { payload, ..udp(false, 2) };
        let (vnet, packet) = merged(&made, 2);
        for vnet in [vnet, VnetHeader { gso_type: 0, ..vnet }] {
            let packets = cut(&vnet, &packet).expect("one");
            seen |= packets[0][26..28] == [0xff, 0xff];
            assert_ne!(packets[0][26..28], [0, 0]);
        }
    }
    assert!(seen, "some payload sums up to zero");
}

#[test]
fn wrong_headers_are_refused() {
    let (good, packet) = merged(&tcp(false, 3_000), 1_000);
    assert_eq!(cut(&good, &packet).expect("it is good").len(), 3);
    let rows = [
        ("no size", VnetHeader { gso_size: 0, ..good }),
        ("no checksum to finish", VnetHeader { flags: 0, ..good }),
        ("a kind that was not asked for", VnetHeader { gso_type: 3, ..good }),
        ("the other family", VnetHeader { gso_type: 4, ..good }),
        ("transport inside the IP header", VnetHeader { csum_start: 16, ..good }),
        ("transport behind the packet", VnetHeader { csum_start: 65_000, ..good }),
        ("checksum behind the packet", VnetHeader { gso_type: 0, csum_offset: 65_000, ..good }),
    ];
    for (name, vnet) in rows {
        assert_eq!(cut(&vnet, &packet), Err(Malformed), "{name}");
    }
    for length in [0, 1, 19, 20, 39, 51] {
        assert_eq!(cut(&good, &packet[..length]), Err(Malformed), "{length} bytes");
    }
    let mut short = packet.clone();
    short[32] = 0x10;
    assert_eq!(cut(&good, &short), Err(Malformed), "a data offset of 4");
}

#[test]
fn the_header_reads_as_it_was_written() {
    let vnet = VnetHeader::merged(Gso::Udp, 48, 1_000, 40, 6);
    assert_eq!(VnetHeader::parse(&vnet.to_bytes()), vnet);
    let ecn = VnetHeader { gso_type: 0x81, ..vnet };
    assert_eq!(ecn.gso(), Some(Gso::Tcp4), "with CWR");
}
