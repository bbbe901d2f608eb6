//! WireGuard's cross-platform configuration protocol (<https://www.wireguard.com/xplatform/>), pure: text to
//! values and back.
//!
//! Two keys are ours, both of the device: `reserved=1,2,3` and `junk=COUNT,MIN,MAX` (or `junk=off`).

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use zeroize::Zeroizing;

/// A 32-byte key that is wiped when it is dropped.
pub type Key = Zeroizing<[u8; 32]>;

/// What is refused, as an errno.
pub type Refused = i32;

const INVALID: Refused = libc::EINVAL;

/// Datagrams sent before a handshake initiation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Junk {
    /// How many; 0 is none.
    pub count: u8,
    /// The shortest.
    pub min: u16,
    /// The longest.
    pub max: u16,
}

/// The longest junk: it must fit into a packet on any path that carries IPv6.
const LONGEST_JUNK: u16 = 1_200;

impl FromStr for Junk {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        if matches!(text, "" | "off" | "0") {
            return Ok(Self::default());
        }
        let [count, min, max] = numbers::<u16>(text)?;
        let count = u8::try_from(count).map_err(|_| INVALID)?;
        if count == 0 || min == 0 || min > max || max > LONGEST_JUNK {
            return Err(INVALID);
        }
        Ok(Self { count, min, max })
    }
}

/// Read the three reserved bytes, e.g. `193,29,7`; nothing is zeros.
pub fn reserved(text: &str) -> Result<[u8; 3], Refused> {
    if text.is_empty() { Ok([0; 3]) } else { numbers(text) }
}

fn numbers<T: FromStr + Copy + Default>(text: &str) -> Result<[T; 3], Refused> {
    let mut numbers = [T::default(); 3];
    let mut words = text.split(',');
    for place in &mut numbers {
        let word = words.next().filter(|word| word.bytes().all(|byte| byte.is_ascii_digit()));
        *place = word.and_then(|word| word.parse().ok()).ok_or(INVALID)?;
    }
    if words.next().is_some() { Err(INVALID) } else { Ok(numbers) }
}

/// A network, without bits below its mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    length: u8,
}

impl Network {
    /// Whether the address, 4 or 16 bytes, lies in it.
    pub fn contains(&self, address: &[u8]) -> bool {
        match self.address {
            IpAddr::V4(network) => same_start(&network.octets(), address, self.length),
            IpAddr::V6(network) => same_start(&network.octets(), address, self.length),
        }
    }
}

fn same_start(network: &[u8], address: &[u8], bits: u8) -> bool {
    let (bytes, rest) = (usize::from(bits / 8), bits % 8);
    network.len() == address.len()
        && network[..bytes] == address[..bytes]
        && (rest == 0 || (network[bytes] ^ address[bytes]) >> (8 - rest) == 0)
}

impl FromStr for Network {
    type Err = Refused;

    fn from_str(text: &str) -> Result<Self, Refused> {
        let (address, length) = text.split_once('/').ok_or(INVALID)?;
        let address: IpAddr = address.parse().map_err(|_| INVALID)?;
        let length: u8 = number(length)?;
        let address = match address {
            IpAddr::V4(address) if length <= 32 => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::from((u32::from(address) & mask).to_be_bytes())
            }
            IpAddr::V6(address) if length <= 128 => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::from((u128::from(address) & mask).to_be_bytes())
            }
            _ => return Err(INVALID),
        };
        Ok(Self { address, length })
    }
}

/// What a `set` asks of a peer.
#[derive(Default)]
pub struct PeerChange {
    /// Which peer.
    pub public_key: [u8; 32],
    /// Forget it.
    pub remove: bool,
    /// Only if it is there.
    pub update_only: bool,
    /// Zeros are none.
    pub preshared_key: Option<Key>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// Seconds, 0 is off.
    pub keepalive: Option<u16>,
    /// Forget the networks it had.
    pub replace_allowed_ips: bool,
    /// Networks to add.
    pub allowed_ips: Vec<Network>,
}

/// What a `set` asks.
#[derive(Default)]
pub struct Change {
    /// Zeros are none.
    pub private_key: Option<Key>,
    /// 0 is any.
    pub listen_port: Option<u16>,
    /// 0 is none.
    pub fwmark: Option<u32>,
    /// Forget every peer first.
    pub replace_peers: bool,
    /// Bytes 1 to 3 of each message.
    pub reserved: Option<[u8; 3]>,
    /// What goes before handshake initiations.
    pub junk: Option<Junk>,
    /// In the order asked.
    pub peers: Vec<PeerChange>,
}

/// One request.
pub enum Request {
    /// Show everything.
    Get,
    /// Change something.
    Set(Box<Change>),
}

/// Read a request, which ends with an empty line.
pub fn parse(text: &str) -> Result<Request, Refused> {
    let mut lines = text.lines();
    match lines.next() {
        Some("get=1") => Ok(Request::Get),
        Some("set=1") => {
            let mut change = Change::default();
            for line in lines.take_while(|line| !line.is_empty()) {
                let (key, value) = line.split_once('=').ok_or(INVALID)?;
                take(&mut change, key, value)?;
            }
            Ok(Request::Set(Box::new(change)))
        }
        _ => Err(INVALID),
    }
}

fn take(change: &mut Change, name: &str, value: &str) -> Result<(), Refused> {
    if name == "public_key" {
        change.peers.push(PeerChange { public_key: *key(value)?, ..PeerChange::default() });
        return Ok(());
    }
    let Some(peer) = change.peers.last_mut() else {
        match name {
            "private_key" => change.private_key = Some(key(value)?),
            "listen_port" => change.listen_port = Some(number(value)?),
            "fwmark" => change.fwmark = Some(number(value)?),
            "replace_peers" => change.replace_peers = yes(value)?,
            "reserved" => change.reserved = Some(reserved(value)?),
            "junk" => change.junk = Some(value.parse()?),
            _ => return Err(INVALID),
        }
        return Ok(());
    };
    match name {
        "remove" => peer.remove = yes(value)?,
        "update_only" => peer.update_only = yes(value)?,
        "preshared_key" => peer.preshared_key = Some(key(value)?),
        "endpoint" => {
            let endpoint: SocketAddr = value.parse().map_err(|_| INVALID)?;
            // A mapped IPv4 address is that IPv4 address.
            let plain = SocketAddr::new(endpoint.ip().to_canonical(), endpoint.port());
            peer.endpoint = Some(if plain.is_ipv4() { plain } else { endpoint });
        }
        "persistent_keepalive_interval" => peer.keepalive = Some(number(value)?),
        "replace_allowed_ips" => peer.replace_allowed_ips = yes(value)?,
        "allowed_ip" => peer.allowed_ips.push(value.parse()?),
        "protocol_version" if value == "1" => {}
        _ => return Err(INVALID),
    }
    Ok(())
}

fn yes(value: &str) -> Result<bool, Refused> {
    if value == "true" { Ok(true) } else { Err(INVALID) }
}

fn number<T: FromStr>(text: &str) -> Result<T, Refused> {
    // `parse` would take a sign.
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_err(|_| INVALID)
    } else {
        Err(INVALID)
    }
}

fn key(text: &str) -> Result<Key, Refused> {
    let text = text.as_bytes();
    let mut key = Key::default();
    if text.len() != 64 {
        return Err(INVALID);
    }
    for (byte, pair) in key.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| char::from(digit).to_digit(16));
        *byte = (high.ok_or(INVALID)? * 16 + low.ok_or(INVALID)?) as u8;
    }
    Ok(key)
}

/// What a `get` shows of a peer.
pub struct PeerState<'a> {
    /// Which peer.
    pub public_key: [u8; 32],
    /// Zeros are none.
    pub preshared_key: Option<&'a Key>,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// Seconds and nanoseconds since 1970, zeros are never.
    pub handshake: (u64, u32),
    /// Bytes sent, with WireGuard's own.
    pub sent: u64,
    /// Bytes received, with WireGuard's own.
    pub received: u64,
    /// Seconds, 0 is off.
    pub keepalive: u16,
    /// Its networks.
    pub allowed_ips: &'a [Network],
}

/// What a `get` shows.
pub struct State<'a> {
    /// Nothing while none is set.
    pub private_key: Option<Key>,
    /// The port that is bound.
    pub listen_port: u16,
    /// 0 is none.
    pub fwmark: u32,
    /// The peer.
    pub peer: Option<PeerState<'a>>,
}

/// More than a device with one peer needs, so that no copy with the key is left by growing.
const ROOM: usize = 4_096;

/// Answer a `get`.
pub fn show(state: &State<'_>) -> Zeroizing<String> {
    let networks = state.peer.as_ref().map_or(0, |peer| peer.allowed_ips.len());
    let mut text = Zeroizing::new(String::with_capacity(ROOM + networks * 64));
    if let Some(key) = &state.private_key {
        hex(&mut text, "private_key", &key[..]);
    }
    // Writing to a string cannot fail.
    let _ = writeln!(text, "listen_port={}", state.listen_port);
    if state.fwmark != 0 {
        let _ = writeln!(text, "fwmark={}", state.fwmark);
    }
    if let Some(peer) = &state.peer {
        hex(&mut text, "public_key", &peer.public_key);
        hex(&mut text, "preshared_key", &peer.preshared_key.map_or([0; 32], |key| **key));
        text.push_str("protocol_version=1\n");
        if let Some(endpoint) = peer.endpoint {
            let _ = writeln!(text, "endpoint={endpoint}");
        }
        let (seconds, nanoseconds) = peer.handshake;
        let _ = writeln!(text, "last_handshake_time_sec={seconds}\nlast_handshake_time_nsec={nanoseconds}");
        let _ = writeln!(text, "tx_bytes={}\nrx_bytes={}", peer.sent, peer.received);
        let _ = writeln!(text, "persistent_keepalive_interval={}", peer.keepalive);
        for network in peer.allowed_ips {
            let _ = writeln!(text, "allowed_ip={}/{}", network.address, network.length);
        }
    }
    text.push_str("errno=0\n\n");
    text
}

fn hex(text: &mut String, name: &str, bytes: &[u8]) {
    text.push_str(name);
    text.push('=');
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    text.push('\n');
}
