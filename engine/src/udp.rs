//! The UDP socket: what leaves in batches (UDP_SEGMENT), and what arrives in batches (UDP_GRO).
//!
//! One socket serves both families. It is not connected: the kernel chooses route and source for each batch,
//! so changes of either are followed at once, and the peer may roam.
#![allow(unsafe_code)]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use bytes::BytesMut;

/// As much of each kernel buffer as wireguard-go asks for.
const KERNEL_BUFFER: libc::c_int = 7 << 20;
/// Batches taken by one call; more were no faster.
const SLOTS: usize = 4;
/// A batch is at most one maximal datagram.
const SLOT: usize = 65_536;
/// Room for control messages, aligned as they must be.
type Control = [u64; 16];

/// Where a datagram goes to or comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Path {
    /// The other end.
    pub remote: SocketAddr,
    /// Our address, when it is not the kernel's choice.
    pub local: Option<Ipv6Addr>,
}

/// The socket and what its kernel can.
pub struct Socket {
    fd: OwnedFd,
    /// IPv4 alone where the kernel has no IPv6.
    dual: bool,
    /// Whether batches may leave as one.
    pub segments: bool,
}

impl Socket {
    /// Bind to `port` (0: any) of every address; `mark` is on it before anything can leave.
    pub fn bind(port: u16, mark: u32) -> io::Result<Self> {
        let (fd, dual) = match socket(libc::AF_INET6) {
            Ok(fd) => (fd, true),
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => (socket(libc::AF_INET)?, false),
            Err(error) => return Err(error),
        };
        let mut made = Self { fd, dual, segments: false };
        if dual {
            made.set(libc::SOL_IPV6, libc::IPV6_V6ONLY, 0)?;
            made.set(libc::SOL_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
            made.set(libc::SOL_IPV6, libc::IPV6_RECVTCLASS, 1)?;
            // As the kernel's WireGuard: nothing says "do not fragment", and what is too long is cut here.
            made.set(libc::SOL_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)?;
        }
        made.set(libc::SOL_IP, libc::IP_RECVTOS, 1)?;
        made.set(libc::SOL_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
        if mark != 0 {
            made.mark(mark)?;
        }
        for (force, plain) in
            [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
        {
            let _ = made
                .set(libc::SOL_SOCKET, force, KERNEL_BUFFER)
                .or_else(|_| made.set(libc::SOL_SOCKET, plain, KERNEL_BUFFER));
        }
        // Kernels before 4.18 ignore the control message and send one giant datagram: so ask first.
        made.segments = made.get(libc::SOL_UDP, libc::UDP_SEGMENT).is_ok();
        // Before 5.0 datagrams simply come one by one.
        let _ = made.set(libc::SOL_UDP, libc::UDP_GRO, 1);
        made.bind_to(port)?;
        Ok(made)
    }

    /// Set the mark of what is sent from now on.
    pub fn mark(&self, mark: u32) -> io::Result<()> {
        self.set(libc::SOL_SOCKET, libc::SO_MARK, mark as libc::c_int)
    }

    /// The port it is bound to.
    pub fn port(&self) -> io::Result<u16> {
        let mut address = MaybeUninit::<libc::sockaddr_in6>::zeroed();
        let mut length = mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t;
        // SAFETY: the address has room for `length` bytes, which both families fit into.
        let answer =
            unsafe { libc::getsockname(self.fd.as_raw_fd(), address.as_mut_ptr().cast(), &raw mut length) };
        checked(answer)?;
        // SAFETY: zeroed, then written by the kernel; any bytes are valid numbers. The port stands at the same
        // place in both families' addresses.
        Ok(u16::from_be(unsafe { address.assume_init() }.sin6_port))
    }

    /// Send `payload` as datagrams of `size` bytes, the last one shorter, with `ecn` in their headers.
    pub fn send(&self, payload: &[u8], size: usize, path: &Path, ecn: u8) -> io::Result<()> {
        let (address, length) = self.address(path.remote);
        let mapped = !self.dual || path.remote.is_ipv4();
        let mut control: Control = [0; 16];
        let mut part = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
        // SAFETY: a message header is plain numbers and pointers, for which zeros are valid.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        message.msg_name = (&raw const address).cast_mut().cast();
        message.msg_namelen = length;
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        let mut notes = Notes { control: &mut control, used: 0 };
        if payload.len() > size {
            notes.add(libc::SOL_UDP, libc::UDP_SEGMENT, size as u16);
        }
        if ecn != 0 {
            let (level, kind) =
                if mapped { (libc::SOL_IP, libc::IP_TOS) } else { (libc::SOL_IPV6, libc::IPV6_TCLASS) };
            notes.add(level, kind, libc::c_int::from(ecn));
        }
        if let Some(local) = path.local.filter(|_| self.dual) {
            let from =
                libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: local.octets() }, ipi6_ifindex: 0 };
            notes.add(libc::SOL_IPV6, libc::IPV6_PKTINFO, from);
        }
        message.msg_controllen = notes.used as _;
        message.msg_control = control.as_mut_ptr().cast();
        loop {
            // SAFETY: name, payload and control messages live until the call returns, and lengths are theirs.
            // The kernel reads all three and writes none.
            let sent = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) };
            match checked(sent) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
    }

    fn address(&self, of: SocketAddr) -> (libc::sockaddr_in6, libc::socklen_t) {
        // SAFETY: an address is plain numbers, for which zeros are valid.
        let mut address: libc::sockaddr_in6 = unsafe { mem::zeroed() };
        let size = mem::size_of::<libc::sockaddr_in6>();
        match (of, self.dual) {
            (SocketAddr::V4(of), false) => {
                let narrow = libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: of.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(of.ip().octets()) },
                    sin_zero: [0; 8],
                };
                // SAFETY: the IPv6 address is larger than the IPv4 one and at least as aligned.
                unsafe { (&raw mut address).cast::<libc::sockaddr_in>().write(narrow) };
                return (address, mem::size_of::<libc::sockaddr_in>() as libc::socklen_t);
            }
            (SocketAddr::V4(of), true) => {
                address.sin6_addr.s6_addr = of.ip().to_ipv6_mapped().octets();
            }
            (SocketAddr::V6(of), _) => {
                address.sin6_addr.s6_addr = of.ip().octets();
                address.sin6_scope_id = of.scope_id();
            }
        }
        address.sin6_family = libc::AF_INET6 as libc::sa_family_t;
        address.sin6_port = of.port().to_be();
        (address, size as libc::socklen_t)
    }

    fn bind_to(&self, port: u16) -> io::Result<()> {
        let any = if self.dual { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4([0; 4].into()) };
        let (address, length) = self.address(SocketAddr::new(any, port));
        // SAFETY: the address has at least `length` bytes.
        checked(unsafe { libc::bind(self.fd.as_raw_fd(), (&raw const address).cast(), length) })
    }

    fn set(&self, level: libc::c_int, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
        let size = mem::size_of_val(&value) as libc::socklen_t;
        // SAFETY: the value has `size` bytes and is only read.
        checked(unsafe {
            libc::setsockopt(self.fd.as_raw_fd(), level, option, (&raw const value).cast(), size)
        })
    }

    fn get(&self, level: libc::c_int, option: libc::c_int) -> io::Result<libc::c_int> {
        let mut value: libc::c_int = 0;
        let mut size = mem::size_of_val(&value) as libc::socklen_t;
        // SAFETY: the value has room for `size` bytes, and any bytes are a valid number.
        checked(unsafe {
            libc::getsockopt(self.fd.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut size)
        })?;
        Ok(value)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn socket(family: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: no pointer is passed.
    let fd = unsafe { libc::socket(family, kind, 0) };
    checked(fd)?;
    // SAFETY: the kernel has just returned it, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn checked(answer: impl TryInto<i64>) -> io::Result<()> {
    if answer.try_into().is_ok_and(|answer| answer < 0) { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Control messages being written.
struct Notes<'a> {
    control: &'a mut Control,
    used: usize,
}

impl Notes<'_> {
    fn add<T: Copy>(&mut self, level: libc::c_int, kind: libc::c_int, value: T) {
        let size = mem::size_of::<T>() as libc::c_uint;
        // SAFETY: these only calculate.
        let (length, space) = unsafe { (libc::CMSG_LEN(size), libc::CMSG_SPACE(size) as usize) };
        let all = mem::size_of_val(self.control);
        assert!(self.used + space <= all, "control messages fit");
        // SAFETY: there is room, as was just checked. `used` is a multiple of CMSG_SPACE's alignment and the
        // buffer is aligned to eight bytes, which is what a header needs; the value is written unaligned.
        unsafe {
            let header = self.control.as_mut_ptr().byte_add(self.used).cast::<libc::cmsghdr>();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = length as _;
            libc::CMSG_DATA(header).cast::<T>().write_unaligned(value);
        }
        self.used += space;
    }
}

/// Datagrams that arrived together: all of one length but the last, which may be shorter.
pub struct Batch<'a> {
    /// All of them, end to end.
    pub payload: &'a mut BytesMut,
    /// The length of each.
    pub size: usize,
    /// Where they came from, and the address they were sent to.
    pub path: Path,
    /// Congestion bits of their IP header.
    pub ecn: u8,
}

/// What is known of a slot's datagrams; no path when there are none.
#[derive(Clone, Copy, Default)]
struct Arrival {
    size: usize,
    path: Option<Path>,
    ecn: u8,
}

/// Buffers that datagrams are received into, and decrypted in.
pub struct Inbox {
    slots: [BytesMut; SLOTS],
    arrivals: [Arrival; SLOTS],
}

impl Inbox {
    /// Make the buffers.
    pub fn new() -> Self {
        Self {
            slots: std::array::from_fn(|_| BytesMut::with_capacity(SLOT)),
            arrivals: [Arrival::default(); SLOTS],
        }
    }

    /// What the last `receive` has brought.
    pub fn batches(&mut self) -> impl Iterator<Item = Batch<'_>> {
        let filled = self.slots.iter_mut().zip(&self.arrivals);
        filled.filter_map(|(payload, arrival)| {
            let Arrival { size, path, ecn } = *arrival;
            Some(Batch { payload, size, path: path?, ecn })
        })
    }

    /// Receive what is there, without waiting. Whatever was cut out of the last batches should be gone.
    pub fn receive(&mut self, socket: &Socket) -> io::Result<()> {
        self.arrivals = [Arrival::default(); SLOTS];
        // SAFETY: addresses, control messages and headers are plain numbers and pointers: zeros are valid.
        let mut names: [libc::sockaddr_in6; SLOTS] = unsafe { mem::zeroed() };
        let mut controls: [Control; SLOTS] = [[0; 16]; SLOTS];
        // SAFETY: as above.
        let mut parts: [libc::iovec; SLOTS] = unsafe { mem::zeroed() };
        // SAFETY: as above.
        let mut messages: [libc::mmsghdr; SLOTS] = unsafe { mem::zeroed() };
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.clear();
            // All pieces are gone, so this takes the same memory again.
            slot.reserve(SLOT);
            let room = slot.spare_capacity_mut();
            parts[index] = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: SLOT };
            let header = &mut messages[index].msg_hdr;
            header.msg_iov = &raw mut parts[index];
            header.msg_iovlen = 1;
            header.msg_name = (&raw mut names[index]).cast();
            header.msg_namelen = mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_control = (&raw mut controls[index]).cast();
            header.msg_controllen = mem::size_of::<Control>() as _;
        }
        // SAFETY: every header points to memory that lives until the end of this function, with its own length:
        // `reserve` has made room for SLOT bytes in each slot.
        let count = unsafe {
            libc::recvmmsg(
                socket.fd.as_raw_fd(),
                messages.as_mut_ptr(),
                SLOTS as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        checked(count)?;
        let filled = self.slots.iter_mut().zip(&mut self.arrivals);
        for ((slot, arrival), message) in filled.zip(&messages[..count as usize]) {
            let length = (message.msg_len as usize).min(SLOT);
            // SAFETY: the kernel has written `length` bytes to the spare room of an empty buffer.
            unsafe { slot.set_len(length) };
            let header = &message.msg_hdr;
            // SAFETY: the name points to an address above, which is zeros or what the kernel wrote.
            let remote = address(unsafe { &*header.msg_name.cast::<libc::sockaddr_in6>() });
            if length > 0 && header.msg_flags & libc::MSG_TRUNC == 0 {
                arrival.path = remote.map(|remote| Path { remote, local: None });
                arrival.size = length;
                read_notes(header, arrival);
            }
        }
        Ok(())
    }
}

fn read_notes(message: &libc::msghdr, arrival: &mut Arrival) {
    // SAFETY: the kernel has filled in the control messages and their whole length, within the buffer that the
    // header points to; these functions stay inside it. Data is read unaligned, with the type that the kernel
    // documents for each kind; a byte is the first of IP_TOS.
    unsafe {
        let mut note = libc::CMSG_FIRSTHDR(message);
        while let Some(header) = note.as_ref() {
            let data = libc::CMSG_DATA(note);
            match (header.cmsg_level, header.cmsg_type) {
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let size = data.cast::<libc::c_int>().read_unaligned();
                    arrival.size = usize::try_from(size).unwrap_or(0).clamp(1, arrival.size);
                }
                (libc::SOL_IP, libc::IP_TOS) => arrival.ecn = data.read() & 3,
                (libc::SOL_IPV6, libc::IPV6_TCLASS) => {
                    arrival.ecn = (data.cast::<libc::c_int>().read_unaligned() & 3) as u8;
                }
                (libc::SOL_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    if let Some(path) = &mut arrival.path {
                        path.local = Some(info.ipi6_addr.s6_addr.into());
                    }
                }
                _ => {}
            }
            note = libc::CMSG_NXTHDR(message, note);
        }
    }
}

/// Read an address of either family; a mapped IPv4 address becomes what it is.
fn address(raw: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match libc::c_int::from(raw.sin6_family) {
        libc::AF_INET => {
            // SAFETY: the family says that it is an IPv4 address, which is smaller and less aligned.
            let raw = unsafe { &*(&raw const *raw).cast::<libc::sockaddr_in>() };
            let ip = IpAddr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddr::new(ip, u16::from_be(raw.sin_port)))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Some(match ip.to_ipv4_mapped() {
                Some(ip) => SocketAddr::new(ip.into(), port),
                None => SocketAddrV6::new(ip, port, 0, raw.sin6_scope_id).into(),
            })
        }
        _ => None,
    }
}
