//! The peer: its session is the library's, its endpoint, networks and counters are kept here.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gotatun::noise::index_table::IndexTable;
use gotatun::noise::rate_limiter::RateLimiter;
use gotatun::noise::{Tunn, TunnResult};
use gotatun::packet::{Packet, WgKind};
use gotatun::tun::MtuWatcher;
use gotatun::x25519::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::coalesce::Coalescer;
use crate::inner::{combined, congestion, destination, source, unpadded};
use crate::outbox::Outbox;
use crate::uapi::{Junk, Key, Network, PeerChange, PeerState};
use crate::udp::Path;

/// A responder drops a second initiation within 20 ms of the last, and the next is due after 5 s. A new engine
/// cannot know what the one before it has sent, so it waits longer than that.
const HOLD: Duration = Duration::from_millis(40);
/// Handshake messages a second from one address, before it must prove that it receives there.
const EACH: u64 = 100;
/// Handshake messages a second from everywhere, before everyone must.
const ALL: u32 = 200;

/// Our key, and what guards it from floods.
pub struct Identity {
    secret: StaticSecret,
    public: PublicKey,
    calm: Arc<RateLimiter>,
    /// Asks everyone for a cookie.
    strict: RateLimiter,
    handshakes: u32,
    indices: IndexTable,
}

impl Identity {
    /// Take a key.
    pub fn new(key: &Key) -> Self {
        let secret = StaticSecret::from(**key);
        let public = PublicKey::from(&secret);
        Self {
            calm: Arc::new(RateLimiter::new(&public, EACH)),
            strict: RateLimiter::new(&public, 0),
            handshakes: 0,
            indices: IndexTable::from_os_rng(),
            secret,
            public,
        }
    }

    /// Whether it is this key.
    pub fn is(&self, key: &Key) -> bool {
        PublicKey::from(&StaticSecret::from(**key)) == self.public
    }

    /// Show the key.
    pub fn key(&self) -> Key {
        Zeroizing::new(self.secret.to_bytes())
    }

    /// Look at a datagram before the peer does: what is no message for us ends here, and so do floods.
    /// The error may be a cookie, which is for whoever sent the datagram.
    pub fn verify(&mut self, packet: Packet, path: &Path) -> Result<WgKind, TunnResult> {
        if !matches!(packet.first(), Some(1 | 2)) {
            return self.calm.verify_packet(path.remote, packet);
        }
        self.handshakes = self.handshakes.saturating_add(1);
        let limiter = if self.handshakes > ALL { &self.strict } else { &*self.calm };
        limiter.verify_packet(path.remote, packet)
    }

    /// A second is over.
    pub fn second(&mut self) {
        self.handshakes = 0;
        self.calm.try_reset_count();
        self.strict.try_reset_count();
    }
}

/// How a message came.
pub struct Arrival<'a> {
    /// Its length.
    pub length: usize,
    /// Where from, and where to.
    pub path: &'a Path,
    /// Congestion bits of its IP header.
    pub ecn: u8,
    /// The TUN's MTU at that time.
    pub mtu: u16,
}

/// The one peer of a device.
pub struct Peer {
    public_key: [u8; 32],
    preshared_key: Option<Key>,
    path: Option<Path>,
    keepalive: u16,
    networks: Vec<Network>,
    tunnel: Option<Tunn>,
    /// When the first initiation may leave.
    ready: Instant,
    /// When the last one did.
    initiated: Instant,
    /// Packets wait in the library for a session.
    queued: bool,
    /// We answered an initiation; the session counts from the first packet on it.
    confirming: bool,
    handshake: Option<SystemTime>,
    sent: u64,
    received: u64,
}

impl Peer {
    /// Make one that knows nothing but its key.
    pub fn new(public_key: [u8; 32], identity: Option<&Identity>) -> Self {
        let mut peer = Self {
            public_key,
            preshared_key: None,
            path: None,
            keepalive: 0,
            networks: Vec::new(),
            tunnel: None,
            ready: Instant::now(),
            initiated: Instant::now(),
            queued: false,
            confirming: false,
            handshake: None,
            sent: 0,
            received: 0,
        };
        peer.restart(identity);
        peer
    }

    /// Its key.
    pub fn key(&self) -> [u8; 32] {
        self.public_key
    }

    /// Whether it is the peer of this key.
    pub fn is(&self, public_key: &[u8; 32]) -> bool {
        self.public_key == *public_key
    }

    /// Begin without a session, as our key is another one now.
    pub fn restart(&mut self, identity: Option<&Identity>) {
        self.ready = Instant::now() + HOLD;
        self.queued = false;
        self.confirming = false;
        self.tunnel = identity.map(|identity| {
            Tunn::new(
                identity.secret.clone(),
                PublicKey::from(self.public_key),
                self.preshared_key.as_ref().map(|key| **key),
                Some(self.keepalive),
                identity.indices.clone(),
                Arc::clone(&identity.calm),
            )
        });
    }

    /// Take what was asked; the session stays.
    pub fn change(&mut self, change: &PeerChange) {
        if let Some(key) = &change.preshared_key {
            self.preshared_key = Some(key.clone()).filter(|key| **key != [0; 32]);
            if let Some(tunnel) = &mut self.tunnel {
                tunnel.set_preshared_key(self.preshared_key.as_ref().map(|key| **key));
            }
        }
        if let Some(remote) = change.endpoint
            && self.path.is_none_or(|path| path.remote != remote)
        {
            self.path = Some(Path { remote, local: None });
        }
        if let Some(keepalive) = change.keepalive
            && keepalive != self.keepalive
        {
            self.keepalive = keepalive;
            if let Some(tunnel) = &mut self.tunnel {
                tunnel.set_persistent_keepalive(Some(keepalive));
            }
        }
        if change.replace_allowed_ips {
            self.networks.clear();
        }
        for network in &change.allowed_ips {
            if !self.networks.contains(network) {
                self.networks.push(*network);
            }
        }
    }

    /// Show it.
    pub fn state(&self) -> PeerState<'_> {
        let since = self.handshake.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        PeerState {
            public_key: self.public_key,
            preshared_key: self.preshared_key.as_ref(),
            endpoint: self.path.map(|path| path.remote),
            handshake: (since.as_secs(), since.subsec_nanos()),
            sent: self.sent,
            received: self.received,
            keepalive: self.keepalive,
            allowed_ips: &self.networks,
        }
    }

    /// How long until packets may be taken from the TUN.
    pub fn held(&self, now: Instant) -> Duration {
        self.ready.saturating_duration_since(now)
    }

    /// The kernel's routes decide where from, until the peer sends to one of this machine's addresses.
    pub fn forget_source(&mut self) {
        if let Some(path) = &mut self.path {
            path.local = None;
        }
    }

    /// Whether a packet of the TUN may go to this peer now.
    pub fn accepts(&self, packet: &[u8]) -> bool {
        self.tunnel.is_some() && self.path.is_some() && self.allows(destination(packet))
    }

    /// Encrypt and send a packet, already padded.
    pub fn outgoing(&mut self, packet: Packet, out: &mut Outbox, junk: Junk) {
        let Some(tunnel) = &mut self.tunnel else { return };
        let ecn = congestion(&packet);
        let message = match tunnel.encapsulate_with_session(packet) {
            Ok(message) => WgKind::Data(message),
            // A copy of its own, since it may wait long and would keep the whole of its buffer.
            Err(packet) => {
                self.queued = true;
                match tunnel.handle_outgoing_packet(Packet::copy_from(&packet[..]), None) {
                    Some(message) => message,
                    None => return,
                }
            }
        };
        self.transmit(message, ecn, out, junk);
    }

    /// Take a message that passed `Identity::verify`.
    pub fn incoming(
        &mut self,
        message: WgKind,
        arrival: &Arrival<'_>,
        out: &mut Outbox,
        coalescer: &mut Coalescer,
        junk: Junk,
    ) {
        let Some(tunnel) = &mut self.tunnel else { return };
        let Arrival { length, path, ecn, mtu } = *arrival;
        match tunnel.handle_incoming_packet(message) {
            // A cookie is no proof of where the peer is.
            TunnResult::Done | TunnResult::Err(_) => {}
            TunnResult::WriteToNetwork(reply) => {
                self.received += length as u64;
                self.confirming = matches!(reply, WgKind::HandshakeResp(_));
                self.roam(path, self.confirming);
                let established = !self.confirming;
                self.transmit(reply, 0, out, junk);
                if established {
                    self.established(mtu, out, junk);
                }
            }
            TunnResult::WriteToTunnel(packet) => {
                self.received += length as u64;
                self.roam(path, false);
                if self.confirming {
                    self.confirming = false;
                    self.established(mtu, out, junk);
                }
                if let Some(packet) = unpadded(packet)
                    && self.allows(source(&packet))
                    && let Some(packet) = combined(packet, ecn)
                {
                    coalescer.push(packet);
                }
            }
        }
    }

    /// Do what is due; four times a second.
    pub fn tick(&mut self, out: &mut Outbox, junk: Junk) {
        let Some(tunnel) = self.tunnel.as_mut().filter(|_| self.path.is_some()) else { return };
        if Instant::now() < self.ready {
            return;
        }
        let due = match tunnel.update_timers() {
            Ok(due) => due,
            // After 90 s without an answer the library waits for a packet to send. A keepalive is one.
            Err(_) => {
                let pause = Duration::from_secs(self.keepalive.into());
                if pause.is_zero() || self.initiated.elapsed() < pause {
                    return;
                }
                tunnel.format_handshake_initiation(false).map(WgKind::from)
            }
        };
        if let Some(message) = due {
            self.transmit(message, 0, out, junk);
        }
    }

    fn established(&mut self, mtu: u16, out: &mut Outbox, junk: Junk) {
        self.handshake = Some(SystemTime::now());
        let Some(tunnel) = self.tunnel.as_mut().filter(|_| self.queued) else { return };
        self.queued = false;
        let waiting: Vec<_> = tunnel.get_queued_packets(&mut MtuWatcher::new(mtu)).collect();
        for message in waiting {
            self.transmit(message, 0, out, junk);
        }
    }

    fn transmit(&mut self, message: WgKind, ecn: u8, out: &mut Outbox, junk: Junk) {
        let initiation = matches!(message, WgKind::HandshakeInit(_));
        if initiation {
            self.initiated = Instant::now();
            // Whoever begins is where the routes say.
            self.forget_source();
        }
        let Some(path) = &self.path else { return };
        if initiation {
            send_junk(junk, path, out);
        }
        let message = Packet::from(message);
        self.sent += message.len() as u64;
        out.push(&message, path, ecn);
    }

    /// Follow the peer. Answers leave from where it `asked`.
    fn roam(&mut self, path: &Path, asked: bool) {
        if asked || self.path.is_none_or(|known| known.remote != path.remote) {
            self.path = Some(*path);
        }
    }

    fn allows(&self, address: &[u8]) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }
}

/// Datagrams that an unmodified peer ignores: their first byte is no type of message.
fn send_junk(junk: Junk, path: &Path, out: &mut Outbox) {
    let mut noise = [0; 2 + 1_200];
    for _ in 0..junk.count {
        if getrandom::fill(&mut noise).is_err() {
            return;
        }
        let span = junk.max - junk.min + 1;
        let length = junk.min + u16::from_ne_bytes([noise[0], noise[1]]) % span;
        let datagram = &mut noise[2..2 + usize::from(length)];
        datagram[0] |= 0x80;
        out.push_raw(datagram, path);
    }
}
