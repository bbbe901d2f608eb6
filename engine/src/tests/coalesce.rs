//! Merging: what may join (one row for each rule), and what wrong checksums become.

use gotatun::packet::Packet;

use super::made::{DONT_FRAGMENT, Made, parted, tcp, udp};
use crate::coalesce::Coalescer;
use crate::tun::{Offload, VnetHeader};

const ALL: Offload = Offload { tcp: true, udp: true };

/// Return what is written for these packets.
pub fn written(packets: &[Vec<u8>], offload: Offload) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut coalescer = Coalescer::new(offload);
    for packet in packets {
        coalescer.push(Packet::copy_from(&packet[..]));
    }
    let mut writes = vec![];
    coalescer.flush(|slices| {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let (head, packet) = parted(&bytes);
        writes.push((VnetHeader::parse(&head), packet));
        Ok(bytes.len())
    });
    let mut again = 0;
    coalescer.flush(|_| {
        again += 1;
        Ok(0)
    });
    assert_eq!(again, 0, "nothing is written twice");
    writes
}

fn count(packets: &[Made]) -> usize {
    written(&packets.iter().map(Made::bytes).collect::<Vec<_>>(), ALL).len()
}

#[test]
fn what_follows_joins_and_what_differs_does_not() {
    type Change = fn(&mut Made);
    // The second packet of a flow, changed; whether it may join the first.
    let rows: [(&str, bool, Change); 22] = [
        ("nothing differs", true, |_| {}),
        ("PSH", true, |made| made.flags = 0x18),
        ("shorter", true, |made| made.payload.truncate(3)),
        ("longer", false, |made| made.payload.push(1)),
        ("FIN", false, |made| made.flags = 0x11),
        ("SYN", false, |made| made.flags = 0x12),
        ("RST", false, |made| made.flags = 0x14),
        ("URG", false, |made| made.flags = 0x30),
        ("ECE", false, |made| made.flags = 0x50),
        ("CWR", false, |made| made.flags = 0x90),
        ("no ACK", false, |made| made.flags = 0),
        ("a gap", false, |made| made.sequence += 1),
        ("the same once more", false, |made| made.sequence -= 1_000),
        ("another acknowledgement", false, |made| made.acknowledged += 1),
        ("another window", false, |made| made.window += 1),
        ("other options", false, |made| made.options[7] ^= 1),
        ("more options", false, |made| made.options.extend([1; 4])),
        ("another class", false, |made| made.class = 0x20),
        ("congestion", false, |made| made.class = 3),
        ("another limit", false, |made| made.limit -= 1),
        ("another port", false, |made| made.ports[3] ^= 1),
        ("no payload", false, |made| made.payload.clear()),
    ];
    for ipv6 in [false, true] {
        for (name, joins, change) in rows {
            let first = tcp(ipv6, 1_000);
            let mut second = first.next();
            change(&mut second);
            assert_eq!(count(&[first, second]), if joins { 1 } else { 2 }, "{name}, IPv6 {ipv6}");
        }
    }
}

#[test]
fn rules_of_one_family_or_protocol() {
    type Change = fn(&mut Made);
    let rows: [(&str, Made, bool, Change); 12] = [
        ("may be cut, and the id follows", Made { fragment: 0, ..tcp(false, 9) }, true, |_| {}),
        ("may be cut, and the id does not", Made { fragment: 0, ..tcp(false, 9) }, false, |made| {
            made.id += 1
        }),
        ("may not be cut: the id means nothing", tcp(false, 9), true, |made| made.id = 0),
        ("only one may be cut", tcp(false, 9), false, |made| made.fragment = 0),
        ("a first fragment", tcp(false, 9), false, |made| made.fragment = 0x2000),
        ("a later fragment", tcp(false, 9), false, |made| made.fragment = DONT_FRAGMENT | 4),
        ("IPv4 options", tcp(false, 9), false, |made| made.ip_options = vec![1; 4]),
        ("another flow label", tcp(true, 9), false, |made| made.label += 1),
        ("UDP", udp(false, 9), true, |_| {}),
        ("UDP over IPv6", udp(true, 9), true, |_| {}),
        ("UDP, shorter", udp(true, 9), true, |made| made.payload.truncate(1)),
        ("UDP, empty", udp(true, 9), false, |made| made.payload.clear()),
    ];
    for (name, first, joins, change) in rows {
        let mut second = first.next();
        change(&mut second);
        assert_eq!(count(&[first, second]), if joins { 1 } else { 2 }, "{name}");
    }
}

#[test]
fn some_packets_end_their_group() {
    for last in [|made: &mut Made| made.flags = 0x18, |made: &mut Made| made.payload.truncate(999)] {
        let first = tcp(false, 1_000);
        let mut second = first.next();
        last(&mut second);
        let third = second.next();
        assert_eq!(count(&[first, second, third]), 2);
    }
    let first = Made { flags: 0x18, ..tcp(false, 1_000) };
    assert_eq!(count(&[first.clone(), first.next()]), 2, "a first packet with PSH");
}

#[test]
fn a_packet_between_keeps_its_place() {
    let first = udp(false, 100);
    let fragment = Made { fragment: 0x2000, ..first.next() };
    let third = fragment.next();
    let packets = [first, fragment, Made { fragment: DONT_FRAGMENT, ..third }].map(|made| made.bytes());
    let writes: Vec<_> = written(&packets, ALL).into_iter().map(|(_, packet)| packet).collect();
    assert_eq!(writes, packets);
}

#[test]
fn checksums_are_never_repaired() {
    for made in [tcp(false, 500), tcp(true, 500), udp(false, 500), udp(true, 500)] {
        let all: Vec<_> = std::iter::successors(Some(made), |made| Some(made.next())).take(4).collect();
        for wrong in 0..4 {
            let mut packets: Vec<_> = all.iter().map(Made::bytes).collect();
            *packets[wrong].last_mut().expect("a payload") ^= 1;
            let writes = written(&packets, ALL);
            let alone: Vec<_> = writes.iter().filter(|(vnet, _)| *vnet == VnetHeader::default()).collect();
            assert!(alone.iter().any(|(_, packet)| *packet == packets[wrong]), "as it came, and alone");
        }
        if !all[0].ipv6 {
            let mut packets: Vec<_> = all.iter().map(Made::bytes).collect();
            packets[1][10] ^= 1;
            let writes = written(&packets, ALL);
            assert!(writes.contains(&(VnetHeader::default(), packets[1].clone())), "IPv4's own checksum");
        }
    }
}

#[test]
fn udp_without_a_checksum_or_with_a_wrong_length_stays_alone() {
    let made = udp(false, 100);
    for change in [|packet: &mut Vec<u8>| packet[26..28].fill(0), |packet: &mut Vec<u8>| packet[25] -= 1] {
        let mut packets = vec![made.bytes(), made.next().bytes()];
        packets.iter_mut().for_each(change);
        assert_eq!(written(&packets, ALL).len(), 2);
    }
}

#[test]
fn nothing_is_merged_that_the_kernel_does_not_take() {
    let rows = [
        (Offload { tcp: true, udp: false }, tcp(false, 100), 1),
        (Offload { tcp: true, udp: false }, udp(false, 100), 2),
        (Offload { tcp: false, udp: false }, tcp(true, 100), 2),
    ];
    for (offload, made, writes) in rows {
        let packets = [made.bytes(), made.next().bytes()];
        assert_eq!(written(&packets, offload).len(), writes, "{offload:?}");
    }
}

#[test]
fn a_super_packet_is_no_longer_than_ip_allows() {
    let all: Vec<_> =
        std::iter::successors(Some(tcp(false, 1_400)), |made| Some(made.next())).take(200).collect();
    let packets: Vec<_> = all.iter().map(Made::bytes).collect();
    let writes = written(&packets, ALL);
    assert!(writes.iter().all(|(_, packet)| packet.len() <= 65_535));
    assert_eq!(writes.len(), 200_usize.div_ceil(46), "46 of them fit");
}

#[test]
fn a_refused_super_packet_goes_packet_by_packet() {
    let first = tcp(false, 100);
    let packets = [first.bytes(), first.next().bytes()];
    let mut coalescer = Coalescer::new(ALL);
    packets.iter().for_each(|packet| coalescer.push(Packet::copy_from(&packet[..])));
    let mut taken = vec![];
    coalescer.flush(|slices| {
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        let (head, packet) = parted(&bytes);
        if VnetHeader::parse(&head) != VnetHeader::default() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        taken.push(packet);
        Ok(bytes.len())
    });
    assert_eq!(taken, packets);
}
