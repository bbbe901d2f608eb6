//! From a packet as the kernel hands it to a TUN to packets as they go over a wire.
//!
//! With offloads, the kernel leaves two things to whoever reads the TUN: the transport checksum, and cutting
//! a super-packet of up to 64 KB into segments. Both are described by the header before the packet.

use crate::checksum::{fold, number, sum};
use crate::tun::{Gso, VnetHeader};

/// A header that does not fit its packet.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

const CHECKSUM_OF_UDP: usize = 6;
const CHECKSUM_OF_TCP: usize = 16;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Hand each packet that goes over the wire to `emit`, in order, as header and payload.
///
/// `packet` is written to: its header becomes that of each segment in turn.
pub fn segment(
    vnet: &VnetHeader,
    packet: &mut [u8],
    mut emit: impl FnMut(&[u8], &[u8]),
) -> Result<(), Malformed> {
    let gso = vnet.gso().ok_or(Malformed)?;
    if gso == Gso::None {
        if vnet.needs_checksum() {
            complete(packet, vnet)?;
        }
        emit(packet, &[]);
        return Ok(());
    }
    let segments = Segments::of(vnet, gso, packet)?;
    let (head, payload) = packet.split_at_mut(segments.head);
    let size = usize::from(vnet.gso_size);
    let count = payload.len().div_ceil(size).max(1);
    for index in 0..count {
        let start = index * size;
        let part = &payload[start..payload.len().min(start + size)];
        segments.write(head, index, start, part, index + 1 == count);
        emit(head, part);
    }
    Ok(())
}

/// Finish a checksum that covers everything from `csum_start`; its field holds the pseudo-header's sum.
fn complete(packet: &mut [u8], vnet: &VnetHeader) -> Result<(), Malformed> {
    let start = usize::from(vnet.csum_start);
    let field = start + usize::from(vnet.csum_offset);
    if packet.len() < field + 2 {
        return Err(Malformed);
    }
    let udp = usize::from(vnet.csum_offset) == CHECKSUM_OF_UDP;
    let checksum = finished(sum(&packet[start..]), udp);
    packet[field..field + 2].copy_from_slice(&checksum);
    Ok(())
}

/// In UDP a zero means "none" (RFC 768), so the other zero is written.
fn finished(total: u64, udp: bool) -> [u8; 2] {
    match !fold(total) {
        0 if udp => [0xff, 0xff],
        checksum => checksum.to_ne_bytes(),
    }
}

/// What all segments of a super-packet share.
struct Segments {
    /// Where the transport header begins, as the kernel says: IPv6 extension headers are not parsed.
    transport: usize,
    /// Length of all headers, by TCP's own data offset: `hdr_len` is only a hint.
    head: usize,
    udp: bool,
    ipv4: bool,
    /// Of IPv4.
    id: u16,
    /// Of TCP.
    sequence: u32,
    flags: u8,
    /// The pseudo-header's sum without the length.
    pseudo: u64,
}

impl Segments {
    fn of(vnet: &VnetHeader, gso: Gso, packet: &[u8]) -> Result<Self, Malformed> {
        let transport = usize::from(vnet.csum_start);
        let udp = gso == Gso::Udp;
        let ipv4 = packet.first().ok_or(Malformed)? >> 4 == 4;
        let least = if ipv4 { 20 } else { 40 };
        let fixed = if udp { 8 } else { 20 };
        if vnet.gso_size == 0
            || !vnet.needs_checksum()
            || transport < least
            || packet.len() < transport + fixed
            || (ipv4 && usize::from(packet[0] & 15) * 4 != transport)
            || gso == (if ipv4 { Gso::Tcp6 } else { Gso::Tcp4 })
        {
            return Err(Malformed);
        }
        let head = transport + if udp { 8 } else { usize::from(packet[transport + 12] >> 4) * 4 };
        let whole = u16::try_from(packet.len() - transport).map_err(|_| Malformed)?;
        if head < transport + fixed || packet.len() < head {
            return Err(Malformed);
        }
        let field = transport + if udp { CHECKSUM_OF_UDP } else { CHECKSUM_OF_TCP };
        Ok(Self {
            transport,
            head,
            udp,
            ipv4,
            id: u16::from_be_bytes([packet[4], packet[5]]),
            sequence: u32::from_be_bytes([
                packet[transport + 4],
                packet[transport + 5],
                packet[transport + 6],
                packet[transport + 7],
            ]),
            flags: packet[transport + 13.min(fixed - 1)],
            // The field holds the sum with the whole length, which is subtracted: its complement is added.
            pseudo: u64::from(u16::from_ne_bytes([packet[field], packet[field + 1]]))
                + u64::from(!whole.to_be()),
        })
    }

    /// Write the headers of segment `index`, whose payload begins at `start`.
    fn write(&self, head: &mut [u8], index: usize, start: usize, payload: &[u8], last: bool) {
        let total = head.len() + payload.len();
        if self.ipv4 {
            head[2..4].copy_from_slice(&(total as u16).to_be_bytes());
            head[4..6].copy_from_slice(&self.id.wrapping_add(index as u16).to_be_bytes());
            head[10..12].fill(0);
            let checksum = !fold(sum(&head[..self.transport]));
            head[10..12].copy_from_slice(&checksum.to_ne_bytes());
        } else {
            head[4..6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        }
        let length = (total - self.transport) as u16;
        let transport = &mut head[self.transport..];
        let field = if self.udp {
            transport[4..6].copy_from_slice(&length.to_be_bytes());
            CHECKSUM_OF_UDP
        } else {
            let sequence = self.sequence.wrapping_add(start as u32);
            transport[4..8].copy_from_slice(&sequence.to_be_bytes());
            let mut flags = self.flags;
            if index > 0 {
                flags &= !CWR;
            }
            if !last {
                flags &= !(FIN | PSH);
            }
            transport[13] = flags;
            CHECKSUM_OF_TCP
        };
        transport[field..field + 2].fill(0);
        let total = self.pseudo + number(length) + sum(transport) + sum(payload);
        transport[field..field + 2].copy_from_slice(&finished(total, self.udp));
    }
}
