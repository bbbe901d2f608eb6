//! The TUN: attached with every offload the kernel has, never created and never deleted.
//!
//! Each packet read or written has a header before it (`struct virtio_net_hdr`), which says what the kernel
//! left undone, or may leave undone.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;

/// Bytes before each packet.
pub const VNET: usize = 10;
/// The largest packet and its header.
pub const LARGEST: usize = VNET + 65_536;

const NEEDS_CSUM: u8 = 1;
const GSO_TCP4: u8 = 1;
const GSO_TCP6: u8 = 4;
const GSO_UDP: u8 = 5;
/// Beside a kind: the first segment carries CWR.
const GSO_ECN: u8 = 0x80;

const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

const TUN_F_CSUM: libc::c_ulong = 0x01;
const TUN_F_TSO: libc::c_ulong = 0x02 | 0x04;
const TUN_F_TSO_ECN: libc::c_ulong = 0x08;
const TUN_F_USO: libc::c_ulong = 0x20 | 0x40;

/// From best to none. USO is for both families at once, and unknown before Linux 6.2.
const OFFLOADS: [(libc::c_ulong, Offload); 3] = [
    (TUN_F_CSUM | TUN_F_TSO | TUN_F_TSO_ECN | TUN_F_USO, Offload { tcp: true, udp: true }),
    (TUN_F_CSUM | TUN_F_TSO | TUN_F_TSO_ECN, Offload { tcp: true, udp: false }),
    (0, Offload { tcp: false, udp: false }),
];

/// Which merged packets the kernel takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offload {
    /// Segments of TCP as one packet.
    pub tcp: bool,
    /// Datagrams of UDP as one packet.
    pub udp: bool,
}

/// What kind of super-packet it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    /// One packet.
    None,
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// UDP over either.
    Udp,
}

/// The header before a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// `NEEDS_CSUM` or nothing.
    pub flags: u8,
    /// Kind of super-packet.
    pub gso_type: u8,
    /// Length of all headers; the kernel's is only a hint.
    pub hdr_len: u16,
    /// Payload of each segment.
    pub gso_size: u16,
    /// Where the unfinished checksum begins to count.
    pub csum_start: u16,
    /// Where it stands, from there.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Read it; the numbers are in the machine's byte order.
    pub fn parse(bytes: &[u8; VNET]) -> Self {
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: number(2),
            gso_size: number(4),
            csum_start: number(6),
            csum_offset: number(8),
        }
    }

    /// Write it.
    pub fn to_bytes(self) -> [u8; VNET] {
        let mut bytes = [0; VNET];
        (bytes[0], bytes[1]) = (self.flags, self.gso_type);
        let numbers = [self.hdr_len, self.gso_size, self.csum_start, self.csum_offset];
        for (place, number) in bytes[2..].chunks_exact_mut(2).zip(numbers) {
            place.copy_from_slice(&number.to_ne_bytes());
        }
        bytes
    }

    /// The header of a super-packet.
    pub fn merged(gso: Gso, head: usize, size: usize, csum_start: usize, csum_offset: usize) -> Self {
        let gso_type = match gso {
            Gso::None => 0,
            Gso::Tcp4 => GSO_TCP4,
            Gso::Tcp6 => GSO_TCP6,
            Gso::Udp => GSO_UDP,
        };
        Self {
            flags: NEEDS_CSUM,
            gso_type,
            hdr_len: head as u16,
            gso_size: size as u16,
            csum_start: csum_start as u16,
            csum_offset: csum_offset as u16,
        }
    }

    /// The kind, `None` when it is one that was not asked for.
    pub fn gso(&self) -> Option<Gso> {
        match self.gso_type & !GSO_ECN {
            0 => Some(Gso::None),
            GSO_TCP4 => Some(Gso::Tcp4),
            GSO_TCP6 => Some(Gso::Tcp6),
            GSO_UDP => Some(Gso::Udp),
            _ => None,
        }
    }

    /// Whether the transport checksum is left to the reader.
    pub fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }
}

/// An attached TUN.
pub struct Tun {
    file: File,
    name: String,
    /// For questions about the interface.
    control: Option<UnixDatagram>,
    /// What was agreed with the kernel.
    pub offload: Offload,
}

impl Tun {
    /// Attach to the interface `name`, which must exist and stays after us.
    pub fn attach(name: &str) -> io::Result<Self> {
        let mut request = interface_request(name)?;
        // Any socket will do for a question about an interface; this kind takes no port.
        let control = UnixDatagram::unbound()?;
        mtu(&control, name)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        ioctl(&file, TUNSETIFF, &mut request)?;
        ioctl(&file, TUNGETIFF, &mut request)?;
        // SAFETY: TUNGETIFF has filled in the flags, and every bit pattern is a number.
        let flags = libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags });
        if flags & libc::IFF_PERSIST == 0 {
            // It was deleted meanwhile, and attaching made another that would end with us.
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        ioctl(&file, TUNSETVNETHDRSZ, &mut (VNET as libc::c_int))?;
        let offload = OFFLOADS
            .iter()
            .find(|(bits, _)| set_offload(&file, *bits).is_ok())
            .map_or(OFFLOADS[2].1, |(_, offload)| *offload);
        Ok(Self { file, name: name.to_owned(), control: Some(control), offload })
    }

    /// Use a datagram socket in its place, which behaves the same for reading and writing.
    #[cfg(test)]
    pub fn of_socket(socket: UnixDatagram) -> Self {
        let file = File::from(std::os::fd::OwnedFd::from(socket));
        Self { file, name: "test".into(), control: None, offload: OFFLOADS[0].1 }
    }

    /// The MTU as it is now; the supervisor may change it at any time.
    pub fn mtu(&self) -> io::Result<u16> {
        self.control.as_ref().map_or(Ok(1280), |control| mtu(control, &self.name))
    }

    /// Read one packet and its header.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Write one packet, its header first.
    pub fn write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(slices)
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: `ifreq` is plain numbers, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte as libc::c_char;
    }
    Ok(request)
}

fn mtu(control: &UnixDatagram, name: &str) -> io::Result<u16> {
    let mut request = interface_request(name)?;
    ioctl(control, libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: SIOCGIFMTU has filled in the number.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

fn ioctl<T>(of: &impl AsRawFd, code: libc::c_ulong, argument: &mut T) -> io::Result<()> {
    // SAFETY: the descriptor is open, and every call here passes the type that its code reads or writes:
    // `ifreq` for interface questions, `c_int` for the header's size. The kernel keeps no pointer.
    let answer = unsafe { libc::ioctl(of.as_raw_fd(), code as _, std::ptr::from_mut(argument)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn set_offload(file: &File, bits: libc::c_ulong) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes a number, no pointer.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD as _, bits) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
