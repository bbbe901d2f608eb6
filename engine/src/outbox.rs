//! What leaves: messages of equal length collected into one buffer and sent by one call.
//!
//! Nothing is held back for more to come: the loop flushes at the end of each turn.

use std::io;
use std::os::fd::AsFd;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::udp::{Path, Socket};

/// As many datagrams as the kernel takes in one batch.
const MOST: usize = 64;
/// The longest UDP payload over IPv6 without a jumbogram, which fits over IPv4 too.
const LONGEST: usize = 65_535 - 40 - 8;
/// Milliseconds to wait while the kernel's buffer is full, before a batch is dropped.
const PATIENCE: u8 = 5;
/// Where the reserved bytes stand in each message.
const RESERVED: std::ops::Range<usize> = 1..4;

/// Messages that wait for `flush`.
pub struct Outbox {
    /// Where they leave.
    pub socket: Socket,
    /// Bytes 1 to 3 of each message; zeros in standard WireGuard.
    pub reserved: [u8; 3],
    /// Set when our address, as the peer knew it, could not be sent from any more.
    pub source_lost: bool,
    buffer: Vec<u8>,
    /// Length of each message but the last, which may be shorter.
    size: usize,
    count: usize,
    closed: bool,
    ecn: u8,
    path: Option<Path>,
}

impl Outbox {
    /// Make an empty one.
    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            reserved: [0; 3],
            source_lost: false,
            buffer: Vec::with_capacity(LONGEST),
            size: 0,
            count: 0,
            closed: false,
            ecn: 0,
            path: None,
        }
    }

    /// Add a WireGuard message; the reserved bytes are written here, since its MACs are made over zeros.
    pub fn push(&mut self, message: &[u8], path: &Path, ecn: u8) {
        let fits = self.count < MOST
            && self.socket.segments
            && !self.closed
            && message.len() <= self.size
            && self.buffer.len() + message.len() <= LONGEST
            && self.ecn == ecn
            && self.path.as_ref() == Some(path);
        if self.count > 0 && !fits {
            self.flush();
        }
        if self.count == 0 {
            self.size = message.len();
            self.ecn = ecn;
            self.path = Some(*path);
        }
        let start = self.buffer.len();
        self.buffer.extend_from_slice(message);
        if let Some(place) = self.buffer[start..].get_mut(RESERVED) {
            place.copy_from_slice(&self.reserved);
        }
        self.count += 1;
        self.closed = message.len() < self.size;
    }

    /// Send something that is no WireGuard message, behind what is already waiting.
    pub fn push_raw(&mut self, datagram: &[u8], path: &Path) {
        self.flush();
        let _ = self.patiently(datagram, datagram.len(), path, 0);
    }

    /// Send everything. What cannot be sent is lost, as on any network.
    pub fn flush(&mut self) {
        if let (true, Some(path)) = (self.count > 0, self.path) {
            let _ = self.send(path);
        }
        self.buffer.clear();
        self.count = 0;
        self.closed = false;
    }

    fn send(&mut self, mut path: Path) -> io::Result<()> {
        let mut sent = self.patiently(&self.buffer, self.size, &path, self.ecn);
        if sent.is_err() && path.local.is_some() {
            path.local = None;
            self.source_lost = true;
            sent = self.patiently(&self.buffer, self.size, &path, self.ecn);
        }
        let Err(error) = sent else { return Ok(()) };
        match error.raw_os_error() {
            // The link has no checksum offload; that does not change from batch to batch.
            Some(libc::EIO) if self.count > 1 => self.socket.segments = false,
            // The path carries less than one of these datagrams, which the kernel cuts when they come alone.
            Some(libc::EINVAL | libc::EMSGSIZE) if self.count > 1 => {}
            _ => return Err(error),
        }
        for datagram in self.buffer.chunks(self.size) {
            self.patiently(datagram, datagram.len(), &path, self.ecn)?;
        }
        Ok(())
    }

    fn patiently(&self, payload: &[u8], size: usize, path: &Path, ecn: u8) -> io::Result<()> {
        match self.socket.send(payload, size, path, ecn) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut room = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut room, PollTimeout::from(PATIENCE));
                self.socket.send(payload, size, path, ecn)
            }
            answer => answer,
        }
    }
}
