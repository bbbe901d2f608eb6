//! Packets as a sender makes them.

use crate::checksum::{fold, pseudo_header, sum};
use crate::tun::VNET;

/// What a packet is made of; the rest follows.
#[derive(Clone, Debug)]
pub struct Made {
    pub ipv6: bool,
    pub tcp: bool,
    pub ports: [u8; 4],
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
    pub class: u8,
    pub limit: u8,
    pub id: u16,
    /// IPv4's flags and fragment offset.
    pub fragment: u16,
    pub ip_options: Vec<u8>,
    /// IPv6's flow label.
    pub label: u32,
}

pub const DONT_FRAGMENT: u16 = 0x4000;

/// A segment of TCP, as the first of a download.
pub fn tcp(ipv6: bool, length: usize) -> Made {
    Made {
        ipv6,
        tcp: true,
        ports: [0, 80, 0x9c, 0x40],
        sequence: 1_000,
        acknowledged: 7,
        flags: 0x10,
        window: 500,
        options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
        payload: (0..length).map(|at| (at * 7 % 251) as u8).collect(),
        class: 0,
        limit: 60,
        id: 77,
        fragment: DONT_FRAGMENT,
        ip_options: vec![],
        label: 0x1_2345,
    }
}

/// A datagram of UDP.
pub fn udp(ipv6: bool, length: usize) -> Made {
    Made { tcp: false, ..tcp(ipv6, length) }
}

impl Made {
    /// The next of its flow.
    pub fn next(&self) -> Self {
        let sequence = self.sequence.wrapping_add(self.payload.len() as u32);
        Self { sequence, id: self.id.wrapping_add(1), ..self.clone() }
    }

    /// With right checksums.
    pub fn bytes(&self) -> Vec<u8> {
        let mut transport = self.ports.to_vec();
        let field = if self.tcp {
            transport.extend(self.sequence.to_be_bytes());
            transport.extend(self.acknowledged.to_be_bytes());
            transport.push(((20 + self.options.len()) as u8 / 4) << 4);
            transport.push(self.flags);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0; 4]);
            transport.extend(&self.options);
            16
        } else {
            transport.extend((8 + self.payload.len() as u16).to_be_bytes());
            transport.extend([0; 2]);
            6
        };
        transport.extend(&self.payload);
        let protocol = if self.tcp { 6 } else { 17 };
        let mut packet = self.ip(transport.len(), protocol);
        let addresses = if self.ipv6 { &packet[8..40] } else { &packet[12..20] };
        let total = pseudo_header(addresses, protocol, transport.len() as u16) + sum(&transport);
        let checksum = match !fold(total) {
            0 if !self.tcp => 0xffff,
            checksum => checksum,
        };
        transport[field..field + 2].copy_from_slice(&checksum.to_ne_bytes());
        packet.extend(transport);
        packet
    }

    fn ip(&self, length: usize, protocol: u8) -> Vec<u8> {
        if self.ipv6 {
            let first = 6 << 28 | u32::from(self.class) << 20 | self.label;
            let mut head = first.to_be_bytes().to_vec();
            head.extend((length as u16).to_be_bytes());
            head.extend([protocol, self.limit]);
            head.extend([0xfd; 16]);
            head.extend([0x26; 16]);
            return head;
        }
        let size = 20 + self.ip_options.len();
        let mut head = vec![0x40 | (size / 4) as u8, self.class];
        head.extend(((size + length) as u16).to_be_bytes());
        head.extend(self.id.to_be_bytes());
        head.extend(self.fragment.to_be_bytes());
        head.extend([self.limit, protocol, 0, 0, 104, 16, 0, 1, 172, 16, 0, 2]);
        head.extend(&self.ip_options);
        let checksum = !fold(sum(&head));
        head[10..12].copy_from_slice(&checksum.to_ne_bytes());
        head
    }
}

/// Whether the packet's checksums are right, looked at without any of the code under test but the sums.
pub fn right(packet: &[u8]) -> bool {
    let ipv4 = packet[0] >> 4 == 4;
    let start = if ipv4 { usize::from(packet[0] & 15) * 4 } else { 40 };
    let (head, rest) = packet.split_at(start);
    let (addresses, protocol) = if ipv4 { (&head[12..20], head[9]) } else { (&head[8..40], head[6]) };
    (!ipv4 || fold(sum(head)) == 0xffff)
        && fold(pseudo_header(addresses, protocol, rest.len() as u16) + sum(rest)) == 0xffff
}

/// Split what was written to the TUN into header and packet.
pub fn parted(written: &[u8]) -> ([u8; VNET], Vec<u8>) {
    let (head, packet) = written.split_first_chunk().expect("a header");
    (*head, packet.to_vec())
}
