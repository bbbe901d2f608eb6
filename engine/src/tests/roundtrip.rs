//! Whatever comes in whatever order: merged and cut again, it is what it was.

use std::collections::HashMap;

use proptest::prelude::*;

use super::coalesce::written;
use super::made::{Made, tcp, udp};
use crate::segment::segment;
use crate::tun::Offload;

/// What happens to the next packet of a flow.
#[derive(Clone, Debug)]
enum Event {
    Plain,
    Push,
    Short(usize),
    Gap,
    Acknowledge,
    Flags(u8),
    Class(u8),
    Limit(u8),
    Options(u8),
    Fragment(u16),
    Id(u16),
    /// A byte of the finished packet, wrong on arrival.
    Spoilt(usize, u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        12 => Just(Event::Plain),
        2 => Just(Event::Push),
        2 => (0usize..1_300).prop_map(Event::Short),
        1 => Just(Event::Gap),
        1 => Just(Event::Acknowledge),
        1 => any::<u8>().prop_map(Event::Flags),
        1 => any::<u8>().prop_map(Event::Class),
        1 => any::<u8>().prop_map(Event::Limit),
        1 => any::<u8>().prop_map(Event::Options),
        1 => any::<u16>().prop_map(Event::Fragment),
        1 => any::<u16>().prop_map(Event::Id),
        2 => (any::<usize>(), 1u8..).prop_map(|(place, by)| Event::Spoilt(place, by)),
    ]
}

/// Play events on six flows, of both families and protocols.
fn played(events: &[(usize, Event)], size: usize) -> Vec<Vec<u8>> {
    let mut flows: Vec<Made> = (0..6)
        .map(|number| {
            let made = if number % 3 == 2 { udp(number > 2, size) } else { tcp(number > 2, size) };
            Made { ports: [number as u8, 1, 2, 3], ..made }
        })
        .collect();
    let mut packets = vec![];
    for (number, event) in events {
        let flow = &mut flows[*number];
        let mut made = flow.clone();
        let mut spoilt = None;
        match event {
            Event::Plain => {}
            Event::Push => made.flags |= 8,
            Event::Short(length) => made.payload.truncate(*length),
            Event::Gap => made.sequence = made.sequence.wrapping_add(size as u32),
            Event::Acknowledge => made.acknowledged += 1,
            Event::Flags(flags) => made.flags = *flags,
            Event::Class(class) => made.class = *class,
            Event::Limit(limit) => made.limit = *limit,
            Event::Options(byte) => made.options[7] = *byte,
            Event::Fragment(bits) => made.fragment = *bits,
            Event::Id(id) => made.id = *id,
            Event::Spoilt(place, by) => spoilt = Some((*place, *by)),
        }
        let mut packet = made.bytes();
        if let Some((place, by)) = spoilt {
            // Version and lengths are what the engine has checked before.
            let place = 8 + place % (packet.len() - 8);
            packet[place] ^= by;
        }
        packets.push(packet);
        let flags = flow.flags;
        *flow = Made { flags, payload: flow.payload.clone(), ..made.next() };
    }
    packets
}

/// The flow a packet is of, by its bytes; a fragment is of all of them.
fn flow(packet: &[u8]) -> Vec<u8> {
    let (addresses, start) = if packet[0] >> 4 == 4 { (12..20, 20) } else { (8..40, 40) };
    [&packet[addresses], &packet[start..start + 4]].concat()
}

/// The id of a packet that may not be cut means nothing, and merging gives it another.
fn comparable(mut packet: Vec<u8>) -> Vec<u8> {
    if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
        packet[4..6].fill(0);
        packet[10..12].fill(0);
    }
    packet
}

fn by_flow(packets: &[Vec<u8>]) -> HashMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: HashMap<_, Vec<_>> = HashMap::new();
    for packet in packets {
        flows.entry(flow(packet)).or_default().push(comparable(packet.clone()));
    }
    flows
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn segment_undoes_coalesce(
        events in prop::collection::vec((0usize..6, event()), 1..250),
        size in prop_oneof![Just(1_208usize), 1usize..1_400],
        udp in any::<bool>(),
    ) {
        let packets = played(&events, size);
        let writes = written(&packets, Offload { tcp: true, udp });
        let mut back = vec![];
        for (vnet, mut packet) in writes {
            segment(&vnet, &mut packet, |head, payload| back.push([head, payload].concat()))
                .expect("what we write can be cut");
        }
        prop_assert_eq!(back.len(), packets.len());
        prop_assert_eq!(by_flow(&back), by_flow(&packets));
    }
}

#[test]
fn a_plain_download_is_one_write_for_each_64_kb() {
    // 54 segments fit.
    let events: Vec<_> = (0..108).map(|_| (0, Event::Plain)).collect();
    assert_eq!(written(&played(&events, 1_208), Offload { tcp: true, udp: true }).len(), 2);
}
