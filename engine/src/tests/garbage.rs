//! Hostile input: a corpus, changed at random but always in the same way, never makes anything panic.
//!
//! `FUZZ_SECONDS=60 cargo test --release garbage` runs longer. An input that was found goes into `corpus/`.

use std::fs;
use std::net::UdpSocket;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use gotatun::packet::Packet;

use super::device::{Device, SECRETS, hex, public};
use crate::coalesce::Coalescer;
use crate::inner::{combined, unpadded};
use crate::segment::segment;
use crate::tun::{Offload, VNET, VnetHeader};
use crate::uapi;

/// xorshift64*: any numbers will do, if they are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(&directory).expect("a corpus").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let inputs: Vec<_> = files.iter().map(|file| fs::read(file).expect("readable")).collect();
    assert!(!inputs.is_empty(), "{}", directory.display());
    inputs
}

fn changed(inputs: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    let mut input = inputs[dice.below(inputs.len())].clone();
    for _ in 0..=dice.below(4) {
        let place = dice.below(input.len());
        let end = place + dice.below(input.len() - place);
        match dice.below(8) {
            0 if !input.is_empty() => input[place] ^= 1 << dice.below(8),
            1 if !input.is_empty() => input[place] = [0, 1, 0x7f, 0x80, 0xff][dice.below(5)],
            2 if !input.is_empty() => input[place] = dice.below(256) as u8,
            3 => input.truncate(place),
            4 => drop(input.drain(place..end)),
            5 => input.extend_from_within(place..end),
            6 => input.splice(place..place, (0..dice.below(16)).map(|byte| byte as u8)).for_each(drop),
            _ => {
                let other = &inputs[dice.below(inputs.len())];
                input.extend(&other[dice.below(other.len())..]);
            }
        }
        input.truncate(65_536);
    }
    input
}

fn hunt(target: &str, mut attempt: impl FnMut(&[u8])) {
    let seconds = std::env::var("FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let inputs = corpus(target);
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut count = 0u64;
    let mut guarded = |input: &[u8]| {
        if catch_unwind(AssertUnwindSafe(|| attempt(input))).is_err() {
            panic!("{target}: add this to the corpus: {}", hex(input));
        }
    };
    inputs.iter().for_each(|input| guarded(input));
    while Instant::now() < deadline {
        for _ in 0..64 {
            guarded(&changed(&inputs, &mut dice));
            count += 1;
        }
    }
    println!("{target}: {count} inputs");
}

#[test]
fn what_the_kernel_hands_over() {
    hunt("segment", |input| {
        if let Some((vnet, packet)) = input.split_first_chunk::<VNET>() {
            let mut length = 0;
            let mut packet = packet.to_vec();
            let whole = packet.len();
            let vnet = VnetHeader::parse(vnet);
            let done = segment(&vnet, &mut packet, |head, payload| {
                assert!(head.len() + payload.len() <= whole);
                length += payload.len();
            });
            assert!(done.is_err() || length <= whole);
        }
    });
}

#[test]
fn what_the_tunnel_carries() {
    // Packets one after the other, each after its length.
    hunt("coalesce", |mut input| {
        let mut coalescer = Coalescer::new(Offload { tcp: true, udp: true });
        let mut count = 0;
        while let Some((length, rest)) = input.split_first_chunk::<2>() {
            let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
            if let Some(packet) = unpadded(Packet::copy_from(&rest[..length]))
                && let Some(packet) = combined(packet, length as u8 & 3)
            {
                coalescer.push(packet);
                count += 1;
            }
            input = &rest[length..];
        }
        let mut written = 0;
        coalescer.flush(|slices| {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            let (vnet, packet) = bytes.split_first_chunk::<VNET>().expect("a header");
            segment(&VnetHeader::parse(vnet), &mut packet.to_vec(), |_, _| written += 1)
                .expect("it can be cut");
            Ok(bytes.len())
        });
        assert_eq!(written, count);
    });
}

#[test]
fn what_the_control_socket_is_sent() {
    hunt("uapi", |input| drop(uapi::parse(&String::from_utf8_lossy(input))));
}

#[test]
fn what_the_network_sends() {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut device = Device::new([0; 3], "");
    let (key, peer) = (hex(&SECRETS[1]), public(SECRETS[0]));
    device.set(&format!("private_key={key}\npublic_key={peer}\nallowed_ip=0.0.0.0/0"));
    let port = device.port();
    hunt("network", |input| {
        let _ = socket.send_to(&input[..input.len().min(65_000)], ("127.0.0.1", port));
        device.turn();
    });
    assert_eq!(device.get("rx_bytes"), "0", "nothing of it was taken for the peer's");
}
