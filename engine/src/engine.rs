//! The loop: one thread, one turn after the other, nothing waits for anything but `poll`.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use gotatun::noise::TunnResult;
use gotatun::packet::Packet;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use zeroize::Zeroizing;

use crate::coalesce::Coalescer;
use crate::control::{Client, Listener};
use crate::outbox::Outbox;
use crate::peer::{Arrival, Identity, Peer};
use crate::segment::segment;
use crate::tun::{LARGEST, Tun, VNET, VnetHeader};
use crate::uapi::{self, Change, Junk, Refused, Request, State};
use crate::udp::{Batch, Inbox, Socket};

/// Time between two looks at the timers, whose own unit is a second.
pub const TICK: Duration = Duration::from_millis(250);
/// Packets taken from the TUN before the socket has its turn.
const READS: usize = 16;
/// Room for a turn's segments before the memory is taken again.
const SEGMENTS: usize = 65_536;

/// How a turn ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Turn {
    /// Go on.
    More,
    /// A signal waits.
    Signal,
    /// The interface or the control socket was deleted.
    Gone,
}

/// A WireGuard device.
pub struct Engine {
    tun: Tun,
    mtu: u16,
    out: Outbox,
    inbox: Inbox,
    coalescer: Coalescer,
    listener: Option<Listener>,
    clients: Vec<Client>,
    identity: Option<Identity>,
    peer: Option<Peer>,
    mark: u32,
    /// The port asked for, 0 is any.
    port: u16,
    junk: Junk,
    ticked: Instant,
    ticks: u8,
    packet: Vec<u8>,
    pieces: BytesMut,
}

impl Engine {
    /// Make a device without key and peer.
    pub fn new(tun: Tun, listener: Option<Listener>, reserved: [u8; 3], junk: Junk) -> io::Result<Self> {
        let mut out = Outbox::new(Socket::bind(0, 0)?);
        out.reserved = reserved;
        Ok(Self {
            mtu: tun.mtu()?,
            coalescer: Coalescer::new(tun.offload),
            tun,
            out,
            inbox: Inbox::new(),
            listener,
            clients: Vec::new(),
            identity: None,
            peer: None,
            mark: 0,
            port: 0,
            junk,
            ticked: Instant::now(),
            ticks: 0,
            packet: vec![0; LARGEST],
            pieces: BytesMut::new(),
        })
    }

    /// Wait until something is to be done, not longer than `patience`, and do it.
    pub fn turn(&mut self, signals: Option<BorrowedFd<'_>>, patience: Duration) -> io::Result<Turn> {
        let now = Instant::now();
        let held = self.peer.as_ref().map_or(Duration::ZERO, |peer| peer.held(now));
        let mut wait = patience.min(TICK.saturating_sub(now.duration_since(self.ticked)));
        if !held.is_zero() {
            wait = wait.min(held);
        }
        // Packets that would make us initiate too early wait in the kernel.
        let reading = if held.is_zero() { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::new(self.out.socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.tun.as_fd(), reading),
        ];
        fds.extend(self.listener.as_ref().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        for client in &self.clients {
            let wanted = if client.answering() { PollFlags::POLLOUT } else { PollFlags::POLLIN };
            fds.push(PollFd::new(client.as_fd(), wanted));
        }
        fds.extend(signals.map(|signals| PollFd::new(signals, PollFlags::POLLIN)));
        // Up to the next millisecond, else a wait of less would be none and the loop would spin.
        let wait = PollTimeout::try_from(wait + Duration::from_micros(999)).unwrap_or(PollTimeout::ZERO);
        match poll(&mut fds, wait) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let happened = |fd: &PollFd<'_>| fd.any().unwrap_or(false);
        let (udp, tun) = (happened(&fds[0]), fds[1].revents().unwrap_or(PollFlags::empty()));
        let signal = signals.is_some() && fds.last().is_some_and(happened);
        let asked = fds[2..].iter().any(happened);
        drop(fds);
        if signal {
            return Ok(Turn::Signal);
        }

        if udp {
            self.receive();
        }
        if tun.contains(PollFlags::POLLERR) {
            return Ok(Turn::Gone);
        }
        if tun.contains(PollFlags::POLLIN) && self.send() == Turn::Gone {
            return Ok(Turn::Gone);
        }
        if asked {
            self.listen();
        }
        let due = Instant::now().duration_since(self.ticked) >= TICK;
        if (due || !held.is_zero()) && self.tick(due) == Turn::Gone {
            return Ok(Turn::Gone);
        }
        self.out.flush();
        if std::mem::take(&mut self.out.source_lost)
            && let Some(peer) = &mut self.peer
        {
            peer.forget_source();
        }
        Ok(Turn::More)
    }

    /// From the socket to the TUN.
    fn receive(&mut self) {
        let Self { inbox, out, identity, peer, coalescer, tun, junk, .. } = self;
        if inbox.receive(&out.socket).is_err() {
            return;
        }
        for Batch { payload, size, path, ecn } in inbox.batches() {
            while !payload.is_empty() {
                let mut datagram = payload.split_to(size.min(payload.len()));
                let length = datagram.len();
                // The reserved bytes are of no interest here, and MACs are made over zeros.
                datagram.iter_mut().skip(1).take(3).for_each(|byte| *byte = 0);
                let Some(identity) = identity else { continue };
                match (identity.verify(Packet::from_bytes(datagram), &path), &mut *peer) {
                    (Ok(message), Some(peer)) => {
                        let arrival = Arrival { length, path: &path, ecn, mtu: self.mtu };
                        peer.incoming(message, &arrival, out, coalescer, *junk);
                    }
                    (Err(TunnResult::WriteToNetwork(cookie)), _) => {
                        out.push(&Packet::from(cookie), &path, 0);
                    }
                    _ => {}
                }
            }
        }
        coalescer.flush(|slices| tun.write(slices));
    }

    /// From the TUN to the socket.
    fn send(&mut self) -> Turn {
        let Self { tun, packet, pieces, peer, out, junk, .. } = self;
        let mtu = usize::from(self.mtu);
        for _ in 0..READS {
            let length = match tun.read(packet) {
                Ok(length) => length,
                Err(error) if error.raw_os_error() == Some(libc::EBADFD) => return Turn::Gone,
                Err(_) => break,
            };
            let Some((vnet, packet)) = packet[..length].split_first_chunk_mut::<VNET>() else { continue };
            let Some(peer) = peer.as_mut().filter(|peer| peer.accepts(packet)) else { continue };
            // A packet whose header does not fit it is lost.
            let _ = segment(&VnetHeader::parse(vnet), packet, |head, payload| {
                let length = head.len() + payload.len();
                // To the next 16 bytes, within the MTU, as the protocol has it.
                let padded = length.next_multiple_of(16).min(mtu).max(length);
                if pieces.capacity() < padded {
                    // The pieces before are gone, so this takes the same memory again.
                    pieces.reserve(SEGMENTS.max(padded));
                }
                pieces.extend_from_slice(head);
                pieces.extend_from_slice(payload);
                pieces.resize(padded, 0);
                peer.outgoing(Packet::from_bytes(pieces.split()), out, *junk);
            });
        }
        Turn::More
    }

    /// Look at the timers; once a second at what others may have changed.
    fn tick(&mut self, due: bool) -> Turn {
        if let Some(peer) = &mut self.peer {
            peer.tick(&mut self.out, self.junk);
        }
        if !due {
            return Turn::More;
        }
        self.ticked = Instant::now();
        self.ticks = (self.ticks + 1) % 4;
        if self.ticks == 0 {
            if let Some(identity) = &mut self.identity {
                identity.second();
            }
            let Ok(mtu) = self.tun.mtu() else { return Turn::Gone };
            self.mtu = mtu;
            if self.listener.as_ref().is_some_and(|listener| !listener.exists()) {
                return Turn::Gone;
            }
        }
        Turn::More
    }

    /// Serve whoever is connected.
    fn listen(&mut self) {
        let mut clients = std::mem::take(&mut self.clients);
        if let Some(listener) = &self.listener {
            listener.accept(&mut clients);
        }
        clients.retain_mut(|client| client.serve(|text| self.answer(text)));
        self.clients = clients;
    }

    /// Answer one request of the control socket.
    pub fn answer(&mut self, text: &str) -> Zeroizing<String> {
        let outcome = match uapi::parse(text) {
            Ok(Request::Get) => return uapi::show(&self.state()),
            Ok(Request::Set(change)) => self.apply(&change),
            Err(refused) => Err(refused),
        };
        Zeroizing::new(format!("errno={}\n\n", outcome.err().unwrap_or(0)))
    }

    fn state(&self) -> State<'_> {
        State {
            private_key: self.identity.as_ref().map(Identity::key),
            listen_port: self.out.socket.port().unwrap_or(0),
            fwmark: self.mark,
            peer: self.peer.as_ref().map(Peer::state),
        }
    }

    /// Make the change. A session ends only with its key or its peer.
    fn apply(&mut self, change: &Change) -> Result<(), Refused> {
        self.check(change)?;
        if let Some(key) = &change.private_key
            && !self.identity.as_ref().is_some_and(|identity| identity.is(key))
        {
            self.identity = Some(key).filter(|key| ***key != [0; 32]).map(Identity::new);
            if let Some(peer) = &mut self.peer {
                peer.restart(self.identity.as_ref());
            }
        }
        let refused = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
        if let Some(mark) = change.fwmark.filter(|mark| *mark != self.mark) {
            self.out.socket.mark(mark).map_err(refused)?;
            self.mark = mark;
        }
        self.out.reserved = change.reserved.unwrap_or(self.out.reserved);
        let (port, junk) = (change.listen_port.unwrap_or(self.port), change.junk.unwrap_or(self.junk));
        // Junk counts where it comes first on a flow, so it gets a flow of its own.
        if port != self.port || (port == 0 && junk != self.junk) {
            self.out.flush();
            self.out.socket = Socket::bind(port, self.mark).map_err(refused)?;
        }
        (self.port, self.junk) = (port, junk);
        if change.replace_peers {
            self.peer = None;
        }
        for asked in &change.peers {
            let known = self.peer.as_ref().is_some_and(|peer| peer.is(&asked.public_key));
            if asked.remove {
                self.peer.take_if(|_| known);
            } else if known || !asked.update_only {
                let identity = self.identity.as_ref();
                let peer = self.peer.get_or_insert_with(|| Peer::new(asked.public_key, identity));
                peer.change(asked);
            }
        }
        Ok(())
    }

    /// Refuse what would leave more than one peer, before anything is changed.
    fn check(&self, change: &Change) -> Result<(), Refused> {
        let mut known = self.peer.as_ref().map(Peer::key).filter(|_| !change.replace_peers);
        for asked in &change.peers {
            if asked.remove {
                known.take_if(|known| *known == asked.public_key);
            } else if known.is_none() && !asked.update_only {
                known = Some(asked.public_key);
            } else if known.is_some_and(|known| known != asked.public_key) && !asked.update_only {
                return Err(libc::ENOSPC);
            }
        }
        Ok(())
    }
}
