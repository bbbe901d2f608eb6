//! Whole devices on loopback, with a socket in place of each TUN.

use std::net::UdpSocket;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use gotatun::x25519::{PublicKey, StaticSecret};

use super::made::{Made, parted, right, tcp, udp};
use crate::engine::Engine;
use crate::segment::segment;
use crate::tun::{Gso, Tun, VNET, VnetHeader};
use crate::uapi::Junk;

/// A device and the other side of its TUN.
pub struct Device {
    pub engine: Engine,
    pub host: UnixDatagram,
}

pub const SECRETS: [[u8; 32]; 2] = [[0x41; 32], [0x42; 32]];

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn public(secret: [u8; 32]) -> String {
    hex(PublicKey::from(&StaticSecret::from(secret)).as_bytes())
}

impl Device {
    pub fn new(reserved: [u8; 3], junk: &str) -> Self {
        let (host, tun) = UnixDatagram::pair().expect("a pair");
        host.set_nonblocking(true).expect("nonblocking");
        tun.set_nonblocking(true).expect("nonblocking");
        let junk = junk.parse::<Junk>().expect("junk");
        Self { engine: Engine::new(Tun::of_socket(tun), None, reserved, junk).expect("a device"), host }
    }

    /// Let it do what is to be done, without waiting.
    pub fn turn(&mut self) {
        self.engine.turn(None, Duration::ZERO).expect("a turn");
    }

    pub fn set(&mut self, lines: &str) {
        assert_eq!(*self.engine.answer(&format!("set=1\n{lines}\n\n")), "errno=0\n\n", "{lines}");
    }

    pub fn get(&mut self, name: &str) -> String {
        let shown = self.engine.answer("get=1\n\n");
        let found = shown.lines().find_map(|line| line.strip_prefix(&format!("{name}=")));
        found.unwrap_or_default().to_owned()
    }

    pub fn port(&mut self) -> u16 {
        self.get("listen_port").parse().expect("a port")
    }

    fn handshake(&mut self) -> (String, String) {
        (self.get("last_handshake_time_sec"), self.get("last_handshake_time_nsec"))
    }

    /// Give the device a packet as the kernel would.
    fn give(&self, vnet: VnetHeader, packet: &[u8]) {
        self.host.send(&[&vnet.to_bytes()[..], packet].concat()).expect("room");
    }

    /// Take what the device has written, cut as the kernel would.
    fn take(&self) -> Vec<Vec<u8>> {
        let mut packets = vec![];
        let mut buffer = vec![0; VNET + 65_536];
        while let Ok(length) = self.host.recv(&mut buffer) {
            let (head, mut packet) = parted(&buffer[..length]);
            segment(&VnetHeader::parse(&head), &mut packet, |head, payload| {
                packets.push([head, payload].concat());
            })
            .expect("what is written can be cut");
        }
        packets
    }
}

/// Let the devices take turns until it is so.
pub fn until(devices: &mut [&mut Device], what: &str, mut so: impl FnMut(&mut [&mut Device]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !so(devices) {
        assert!(Instant::now() < deadline, "{what}");
        for device in &mut *devices {
            device.turn();
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Two devices that know each other; the second does not know where the first is.
pub fn pair(reserved: [[u8; 3]; 2], via: Option<u16>) -> [Device; 2] {
    let mut devices = reserved.map(|reserved| Device::new(reserved, ""));
    let port = devices[1].port();
    for (number, device) in devices.iter_mut().enumerate() {
        let peer = public(SECRETS[1 - number]);
        let endpoint = if number == 0 {
            format!("\nendpoint=127.0.0.1:{}\npersistent_keepalive_interval=25", via.unwrap_or(port))
        } else {
            String::new()
        };
        let key = hex(&SECRETS[number]);
        device.set(&format!(
            "private_key={key}\npublic_key={peer}\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0{endpoint}"
        ));
    }
    devices
}

fn connect(devices: &mut [Device; 2]) {
    let [near, far] = devices;
    until(&mut [near, far], "a handshake", |devices| {
        devices.iter_mut().all(|device| device.get("last_handshake_time_sec") != "0")
    });
}

#[test]
fn packets_pass_both_ways_and_are_counted() {
    let mut devices = pair([[0; 3]; 2], None);
    connect(&mut devices);
    for (made, from) in [(udp(false, 11), 0), (tcp(true, 999), 1), (udp(true, 1_200), 0), (tcp(false, 0), 1)]
    {
        let packet = made.bytes();
        devices[from].give(VnetHeader::default(), &packet);
        let [near, far] = &mut devices;
        let mut got = vec![];
        until(&mut [near, far], "it arrives", |devices| {
            got = devices[1 - from].take();
            !got.is_empty()
        });
        assert_eq!(got, [packet]);
    }
    let [near, far] = &mut devices;
    assert_eq!(near.get("tx_bytes"), far.get("rx_bytes"));
    assert_eq!(near.get("rx_bytes"), far.get("tx_bytes"));
    assert_eq!(far.get("endpoint"), format!("127.0.0.1:{}", near.port()), "it was learnt");
}

#[test]
fn super_packets_arrive_whole_and_in_order() {
    let mut devices = pair([[193, 29, 7], [1, 2, 3]], None);
    connect(&mut devices);
    for made in [tcp(false, 60_000), tcp(true, 60_000), udp(true, 60_000)] {
        let whole = made.bytes();
        let start = whole.len() - made.payload.len() - if made.tcp { 20 + made.options.len() } else { 8 };
        let field = if made.tcp { 16 } else { 6 };
        let gso = match (made.tcp, made.ipv6) {
            (true, false) => Gso::Tcp4,
            (true, true) => Gso::Tcp6,
            _ => Gso::Udp,
        };
        let vnet = VnetHeader::merged(gso, 0, 1_200, start, field);
        let mut raw = whole.clone();
        let addresses = if made.ipv6 { &whole[8..40] } else { &whole[12..20] };
        let protocol = if made.tcp { 6 } else { 17 };
        let sum = crate::checksum::pseudo_header(addresses, protocol, (whole.len() - start) as u16);
        raw[start + field..start + field + 2].copy_from_slice(&crate::checksum::fold(sum).to_ne_bytes());
        devices[0].give(vnet, &raw);
        let [near, far] = &mut devices;
        let mut got = vec![];
        until(&mut [near, far], "all of it", |devices| {
            got.extend(devices[1].take());
            got.len() == 50
        });
        let head = whole.len() - made.payload.len();
        let payload: Vec<u8> = got.iter().flat_map(|packet| packet[head..].to_vec()).collect();
        assert_eq!(payload, made.payload);
        assert!(got.iter().all(|packet| right(packet)));
    }
}

#[test]
fn packets_before_the_handshake_wait_for_it() {
    let mut devices = pair([[0; 3]; 2], None);
    let packets: Vec<_> = (0..20).map(|length| udp(false, length).bytes()).collect();
    packets.iter().for_each(|packet| devices[0].give(VnetHeader::default(), packet));
    let [near, far] = &mut devices;
    let mut got = vec![];
    until(&mut [near, far], "all of them", |devices| {
        got.extend(devices[1].take());
        got.len() == packets.len()
    });
    assert_eq!(got, packets);
}

#[test]
fn sources_and_destinations_are_those_allowed() {
    let mut devices = pair([[0; 3]; 2], None);
    connect(&mut devices);
    let other = public(SECRETS[0]);
    devices[1].set(&format!("public_key={other}\nreplace_allowed_ips=true\nallowed_ip=::/0"));
    for made in [udp(false, 30), udp(true, 31)] {
        devices[0].give(VnetHeader::default(), &made.bytes());
    }
    let [near, far] = &mut devices;
    let mut got = vec![];
    until(&mut [near, far], "the allowed one", |devices| {
        got.extend(devices[1].take());
        !got.is_empty()
    });
    assert_eq!(got, [udp(true, 31).bytes()]);
}

#[test]
fn a_set_that_changes_nothing_keeps_the_session_and_replacing_the_peer_ends_it() {
    let mut devices = pair([[0; 3]; 2], None);
    connect(&mut devices);
    let [near, far] = &mut devices;
    let (before, port) = (near.handshake(), near.port());
    let same = format!(
        "private_key={}\nfwmark=0\nlisten_port=0\npublic_key={}\nendpoint=127.0.0.1:{}\n\
         persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=0.0.0.0/0",
        hex(&SECRETS[0]),
        public(SECRETS[1]),
        far.port()
    );
    near.set(&same);
    assert_eq!((near.handshake(), near.port()), (before, port));
    near.give(VnetHeader::default(), &udp(false, 1).bytes());
    until(&mut [near, far], "it arrives by the same session", |devices| !devices[1].take().is_empty());
    near.set(&same.replace("public_key", "replace_peers=true\npublic_key"));
    assert_eq!(near.get("last_handshake_time_sec"), "0");
    until(&mut [near, far], "a new one", |devices| devices[0].get("last_handshake_time_sec") != "0");
}

#[test]
fn a_second_peer_is_refused_and_changes_nothing() {
    let [mut near, _far] = pair([[0; 3]; 2], None);
    let before = near.engine.answer("get=1\n\n");
    let third = public([9; 32]);
    let answer = near.engine.answer(&format!("set=1\nfwmark=5\npublic_key={third}\n\n"));
    assert_eq!(*answer, format!("errno={}\n\n", libc::ENOSPC));
    assert_eq!(near.engine.answer("get=1\n\n"), before);
    near.set(&format!("public_key={third}\nupdate_only=true"));
    assert_eq!(near.engine.answer("get=1\n\n"), before);
    near.set(&format!("public_key={}\nremove=true\npublic_key={third}", public(SECRETS[1])));
    assert_eq!(near.get("public_key"), third);
}

/// A device whose peer is a plain socket.
fn observed(junk: &str) -> (Device, UdpSocket) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.set_nonblocking(true).expect("nonblocking");
    let mut device = Device::new([193, 29, 7], junk);
    let (key, peer) = (hex(&SECRETS[0]), public(SECRETS[1]));
    let port = socket.local_addr().expect("bound").port();
    device.set(&format!(
        "private_key={key}\npublic_key={peer}\nallowed_ip=0.0.0.0/0\nendpoint=127.0.0.1:{port}\n\
         persistent_keepalive_interval=25"
    ));
    (device, socket)
}

fn initiation(device: &mut Device, socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut datagrams: Vec<Vec<u8>> = vec![];
    let mut buffer = [0; 2_000];
    until(&mut [device], "an initiation", |_| {
        while let Ok(length) = socket.recv(&mut buffer) {
            datagrams.push(buffer[..length].to_vec());
        }
        datagrams.last().is_some_and(|last| last.len() == 148 && last[0] == 1)
    });
    datagrams
}

#[test]
fn the_first_initiation_carries_the_reserved_bytes_and_leaves_late_enough() {
    let begun = Instant::now();
    let (mut device, socket) = observed("");
    let datagrams = initiation(&mut device, &socket);
    assert!(begun.elapsed() >= Duration::from_millis(40));
    assert!(begun.elapsed() < Duration::from_millis(400));
    assert_eq!(datagrams.len(), 1);
    assert_eq!(datagrams[0][..4], [1, 193, 29, 7]);
}

#[test]
fn a_packet_does_not_make_it_leave_earlier() {
    let begun = Instant::now();
    let (mut device, socket) = observed("");
    device.give(VnetHeader::default(), &udp(false, 1).bytes());
    initiation(&mut device, &socket);
    assert!(begun.elapsed() >= Duration::from_millis(40));
}

#[test]
fn junk_goes_before_an_initiation() {
    let (mut device, socket) = observed("5,40,70");
    let datagrams = initiation(&mut device, &socket);
    let (_, junk) = datagrams.split_last().expect("an initiation");
    assert_eq!(junk.len(), 5);
    for one in junk {
        assert!((40..=70).contains(&one.len()));
        assert!(one[0] >= 0x80, "no type of message");
    }
    let before = device.port();
    device.set("junk=off");
    assert_ne!(device.port(), before, "other junk, another flow");
}

#[test]
fn junk_is_ignored_by_a_peer() {
    let mut devices = pair([[0; 3]; 2], None);
    devices[0].set("junk=3,1,1200");
    connect(&mut devices);
}

#[test]
fn replayed_and_spoilt_messages_are_dropped() {
    let relay = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    relay.set_nonblocking(true).expect("nonblocking");
    let mut devices = pair([[0; 3]; 2], relay.local_addr().ok().map(|address| address.port()));
    let ports = [devices[0].port(), devices[1].port()];
    let packet = udp(false, 100).bytes();
    devices[0].give(VnetHeader::default(), &packet);
    let [near, far] = &mut devices;
    let (mut got, mut data) = (vec![], vec![]);
    let mut buffer = [0; 2_000];
    until(&mut [near, far], "one packet", |devices| {
        while let Ok((length, from)) = relay.recv_from(&mut buffer) {
            let to = if from.port() == ports[0] { ports[1] } else { ports[0] };
            let message = buffer[..length].to_vec();
            let mut spoilt = message.clone();
            spoilt[length - 1] ^= 1;
            for one in [&spoilt, &message, &message, &spoilt] {
                relay.send_to(one, ("127.0.0.1", to)).expect("sent");
            }
            if message[0] == 4 && length > 100 {
                data.push(message);
            }
        }
        got.extend(devices[1].take());
        !got.is_empty()
    });
    for message in &data {
        relay.send_to(message, ("127.0.0.1", ports[1])).expect("sent");
    }
    for _ in 0..50 {
        near.turn();
        far.turn();
    }
    got.extend(far.take());
    assert_eq!(got, [packet]);
}

#[test]
fn a_flood_of_initiations_is_answered_with_cookies() {
    let (mut near, socket) = observed("");
    let message = initiation(&mut near, &socket).pop().expect("an initiation");
    let mut far = Device::new([0; 3], "");
    let (key, peer) = (hex(&SECRETS[1]), public(SECRETS[0]));
    far.set(&format!("private_key={key}\npublic_key={peer}\nallowed_ip=0.0.0.0/0"));
    let port = far.port();
    let mut plain = message.clone();
    plain[1..4].fill(0);
    let mut kinds = [0; 5];
    let mut buffer = [0; 2_000];
    for _ in 0..400 {
        socket.send_to(&plain, ("127.0.0.1", port)).expect("sent");
        far.turn();
        while let Ok(length) = socket.recv(&mut buffer) {
            kinds[usize::from(buffer[0])] += 1;
            assert!(length <= plain.len(), "nothing is amplified");
        }
    }
    assert_eq!(kinds[2], 1, "the first is answered, copies of it are not");
    assert!(kinds[3] >= 200, "{kinds:?}");
}

#[test]
fn a_key_is_shown_and_can_be_taken_away() {
    let [mut near, _far] = pair([[0; 3]; 2], None);
    assert_eq!(near.get("private_key"), hex(&SECRETS[0]));
    near.set(&format!("private_key={}", "00".repeat(32)));
    assert_eq!(near.get("private_key"), "");
    near.give(VnetHeader::default(), &Made { payload: vec![], ..udp(false, 0) }.bytes());
    near.turn();
}
