//! From decrypted packets to as few writes to the TUN as possible.
//!
//! Segments of one TCP connection, or datagrams of one UDP flow, that follow each other are merged into one
//! super-packet, the inverse of `segment`. The kernel then trusts the payload, so every packet's checksums are
//! verified before it is merged: an error between origin and edge is seen by nothing but these. What fails is
//! written alone, as it came, and the kernel drops it.
//!
//! Packets of a flow leave in the order they came: one that cannot join its flow's group closes the group.

use std::io::{self, IoSlice};

use gotatun::packet::Packet;

use crate::checksum::{fold, number, pseudo_header, sum};
use crate::tun::{Gso, Offload, VNET, VnetHeader};

const TCP: u8 = 6;
const UDP: u8 = 17;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const DONT_FRAGMENT: u8 = 0x40;

/// How many packets one write carries; the kernel takes 64 datagrams of UDP.
const MOST: usize = 64;
/// How many of the newest groups are searched. A flow that is not found gets a new group, behind its old one.
const WINDOW: usize = 32;
/// IP header with options, and TCP header with options.
const HEADERS: usize = 60 + 60;

/// Addresses, protocol and ports. Without ports it stands for every flow between the addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Flow {
    addresses: [u8; 32],
    ports: [u8; 4],
    protocol: u8,
}

/// What a packet's headers say.
struct Shape {
    flow: Flow,
    /// Length of the IP header.
    transport: usize,
    /// Length of all headers.
    head: usize,
    /// Whether it may be merged with others of its flow.
    mergeable: bool,
    /// Whether nothing may follow it in its group.
    ends: bool,
}

struct Member {
    packet: Packet,
    next: usize,
}

struct Group {
    flow: Flow,
    first: usize,
    last: usize,
    count: usize,
    transport: usize,
    head: usize,
    /// Payload of each but the last.
    size: usize,
    /// Length of the whole super-packet.
    total: usize,
    open: bool,
    /// Whether the first packet's checksums hold; found out when the second comes.
    verified: Option<bool>,
    push: bool,
}

/// Packets that wait for `flush`.
pub struct Coalescer {
    offload: Offload,
    members: Vec<Member>,
    groups: Vec<Group>,
}

impl Coalescer {
    /// Merge what `offload` allows.
    pub fn new(offload: Offload) -> Self {
        Self { offload, members: Vec::new(), groups: Vec::new() }
    }

    /// Add a packet, which must be as long as its IP header says.
    pub fn push(&mut self, packet: Packet) {
        let Some(shape) = Shape::of(&packet, self.offload) else {
            return;
        };
        let members = &self.members;
        let newest = self.groups.iter_mut().rev().take(WINDOW);
        if shape.mergeable {
            if let Some(group) = newest.into_iter().find(|group| group.flow == shape.flow && group.open) {
                if group.takes(members, &packet, &shape) {
                    let index = members.len();
                    self.members[group.last].next = index;
                    group.append(index, packet.len() - shape.head, shape.ends);
                    self.members.push(Member { packet, next: usize::MAX });
                    return;
                }
                group.open = false;
            }
        } else {
            for group in newest {
                // Without ports it may belong to any flow between these addresses.
                if group.flow == shape.flow
                    || (shape.flow.ports == [0; 4] && group.flow.addresses == shape.flow.addresses)
                {
                    group.open = false;
                }
            }
        }
        let index = self.members.len();
        self.groups.push(Group {
            flow: shape.flow,
            first: index,
            last: index,
            count: 1,
            transport: shape.transport,
            head: shape.head,
            size: packet.len() - shape.head,
            total: packet.len(),
            open: shape.mergeable && !shape.ends,
            verified: None,
            push: false,
        });
        self.members.push(Member { packet, next: usize::MAX });
    }

    /// Write everything; a super-packet that is refused goes packet by packet.
    pub fn flush(&mut self, mut write: impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>) {
        for group in &self.groups {
            if group.count > 1 && group.write(&self.members, &mut write).is_ok() {
                continue;
            }
            let mut index = group.first;
            while let Some(member) = self.members.get(index) {
                // The kernel itself verifies what comes with an empty header.
                let _ = write(&[IoSlice::new(&[0; VNET]), IoSlice::new(&member.packet)]);
                index = member.next;
            }
        }
        self.groups.clear();
        self.members.clear();
    }
}

impl Group {
    /// Whether the packet continues this group, which is of its flow.
    fn takes(&mut self, members: &[Member], packet: &[u8], shape: &Shape) -> bool {
        let first = &members[self.first].packet[..];
        let length = packet.len() - shape.head;
        if self.count == MOST
            || length > self.size
            || self.total + length > usize::from(u16::MAX)
            || shape.head != self.head
            || !same_ip(first, packet, self.count)
        {
            return false;
        }
        let (ours, theirs) = (&first[self.transport..self.head], &packet[shape.transport..shape.head]);
        if shape.flow.protocol == TCP && !same_tcp(ours, theirs, self.total - self.head) {
            return false;
        }
        let verified =
            *self.verified.get_or_insert_with(|| holds(first, self.transport, shape.flow.protocol));
        verified && holds(packet, shape.transport, shape.flow.protocol)
    }

    fn append(&mut self, index: usize, length: usize, ends: bool) {
        self.last = index;
        self.count += 1;
        self.total += length;
        self.push |= ends;
        // Segments are cut to equal lengths, so nothing can follow a shorter one.
        self.open = !ends && length == self.size;
    }

    /// Write the group as one super-packet.
    fn write(
        &self,
        members: &[Member],
        write: &mut impl FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let first = &members[self.first].packet[..];
        let mut front = [0; VNET + HEADERS];
        let front = &mut front[..VNET + self.head];
        let (vnet, head) = front.split_at_mut(VNET);
        head.copy_from_slice(&first[..self.head]);
        vnet.copy_from_slice(&self.finish(head).to_bytes());

        let mut slices = [IoSlice::new(&[]); MOST + 1];
        slices[0] = IoSlice::new(front);
        let mut index = self.first;
        for slice in &mut slices[1..=self.count] {
            *slice = IoSlice::new(&members[index].packet[self.head..]);
            index = members[index].next;
        }
        write(&slices[..=self.count])
    }

    /// Make the first packet's headers those of the whole; the checksum is left to whoever needs it.
    fn finish(&self, head: &mut [u8]) -> VnetHeader {
        let ipv4 = head[0] >> 4 == 4;
        if ipv4 {
            head[2..4].copy_from_slice(&(self.total as u16).to_be_bytes());
            head[10..12].fill(0);
            let checksum = !fold(sum(&head[..self.transport]));
            head[10..12].copy_from_slice(&checksum.to_ne_bytes());
        } else {
            head[4..6].copy_from_slice(&((self.total - 40) as u16).to_be_bytes());
        }
        let length = (self.total - self.transport) as u16;
        let pseudo = pseudo_header(addresses(head), self.flow.protocol, length);
        let transport = &mut head[self.transport..];
        let (gso, field) = match self.flow.protocol {
            TCP => {
                transport[13] |= if self.push { PSH } else { 0 };
                (if ipv4 { Gso::Tcp4 } else { Gso::Tcp6 }, 16)
            }
            _ => {
                transport[4..6].copy_from_slice(&length.to_be_bytes());
                (Gso::Udp, 6)
            }
        };
        transport[field..field + 2].copy_from_slice(&fold(pseudo).to_ne_bytes());
        VnetHeader::merged(gso, self.head, self.size, self.transport, field)
    }
}

impl Shape {
    /// Read the headers; `None` when it is not an IP packet at all.
    fn of(packet: &[u8], offload: Offload) -> Option<Self> {
        let mut flow = Flow { addresses: [0; 32], ports: [0; 4], protocol: 0 };
        let (transport, whole) = match packet.first()? >> 4 {
            4 if packet.len() >= 20 => {
                flow.addresses[..8].copy_from_slice(&packet[12..20]);
                flow.protocol = packet[9];
                // No options, and neither "more fragments" nor an offset.
                (20, packet[0] == 0x45 && packet[6] & 0x3f == 0 && packet[7] == 0)
            }
            6 if packet.len() >= 40 => {
                flow.addresses.copy_from_slice(&packet[8..40]);
                flow.protocol = packet[6];
                // An extension header is a protocol that is neither TCP nor UDP.
                (40, true)
            }
            _ => return None,
        };
        let mut shape = Self { flow, transport, head: transport, mergeable: false, ends: false };
        let rest = &packet[transport..];
        let fixed = if flow.protocol == TCP { 20 } else { 8 };
        if !whole || !matches!(flow.protocol, TCP | UDP) || rest.len() < fixed {
            return Some(shape);
        }
        shape.flow.ports.copy_from_slice(&rest[..4]);
        if flow.protocol == TCP {
            let length = usize::from(rest[12] >> 4) * 4;
            // It may claim to be longer than the packet.
            shape.head += length.min(rest.len());
            shape.ends = rest[13] & PSH != 0;
            // The low bits beside the length are reserved, or accurate ECN.
            shape.mergeable = offload.tcp
                && rest[12] & 15 == 0
                && rest[13] & !PSH == ACK
                && length >= 20
                && rest.len() > length;
        } else {
            shape.head += 8;
            shape.mergeable = offload.udp
                && rest.len() > 8
                && usize::from(u16::from_be_bytes([rest[4], rest[5]])) == rest.len()
                && rest[6..8] != [0, 0];
        }
        Some(shape)
    }
}

/// Whether all of the IP header but lengths and checksum is the same, and the id is that of segment `count`.
fn same_ip(first: &[u8], packet: &[u8], count: usize) -> bool {
    if first[0] >> 4 == 6 {
        // Version, class and flow label; next header and hop limit.
        return first[..4] == packet[..4] && first[6..8] == packet[6..8];
    }
    let id = |of: &[u8]| u16::from_be_bytes([of[4], of[5]]);
    // Where nothing may cut the packet the id means nothing, and some senders leave it zero.
    let follows = first[6] & DONT_FRAGMENT != 0 || id(packet) == id(first).wrapping_add(count as u16);
    follows && first[..2] == packet[..2] && first[6..10] == packet[6..10]
}

/// Whether the TCP headers agree, and the sequence number is `sent` bytes on.
fn same_tcp(first: &[u8], packet: &[u8], sent: usize) -> bool {
    let sequence = |of: &[u8]| u32::from_be_bytes([of[4], of[5], of[6], of[7]]);
    // Acknowledgement and length, window, urgent pointer and options.
    sequence(packet) == sequence(first).wrapping_add(sent as u32)
        && first[8..13] == packet[8..13]
        && first[14..16] == packet[14..16]
        && first[18..] == packet[18..]
}

/// Whether the packet's checksums are right.
fn holds(packet: &[u8], transport: usize, protocol: u8) -> bool {
    let (head, rest) = packet.split_at(transport);
    let ip = head[0] >> 4 == 6 || fold(sum(head)) == 0xffff;
    let length = number(rest.len() as u16) + number(u16::from(protocol));
    ip && fold(sum(addresses(head)) + length + sum(rest)) == 0xffff
}

fn addresses(head: &[u8]) -> &[u8] {
    if head[0] >> 4 == 4 { &head[12..20] } else { &head[8..40] }
}
