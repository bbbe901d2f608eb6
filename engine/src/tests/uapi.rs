//! The configuration protocol: what is taken, what is refused, what is shown.

use proptest::prelude::*;
use zeroize::Zeroizing;

use crate::uapi::{Change, Junk, Network, PeerState, Refused, Request, State, parse, reserved, show};

const KEY: &str = "c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00";

fn set(lines: &str) -> Result<Box<Change>, Refused> {
    match parse(&format!("set=1\n{lines}\n\n"))? {
        Request::Set(change) => Ok(change),
        Request::Get => panic!("it was a set"),
    }
}

#[test]
fn what_the_supervisor_and_wg_send_is_taken() {
    let change = set(&format!(
        "private_key={KEY}\nlisten_port=2408\nfwmark=4096\nreplace_peers=true\nreserved=193,29,7\n\
         junk=4,40,70\npublic_key={KEY}\npreshared_key={KEY}\nendpoint=[2606:4700::1]:2408\n\
         persistent_keepalive_interval=25\nreplace_allowed_ips=true\nallowed_ip=0.0.0.0/0\nallowed_ip=::/0\n\
         protocol_version=1\nupdate_only=true\nremove=true"
    ))
    .expect("all of it is known");
    assert_eq!(change.private_key.expect("a key")[..2], [0xc0, 0xff]);
    assert_eq!((change.listen_port, change.fwmark, change.replace_peers), (Some(2408), Some(4096), true));
    assert_eq!(
        (change.reserved, change.junk),
        (Some([193, 29, 7]), Some(Junk { count: 4, min: 40, max: 70 }))
    );
    let [peer] = &change.peers[..] else { panic!("one peer") };
    assert_eq!(peer.endpoint, "[2606:4700::1]:2408".parse().ok());
    assert_eq!((peer.keepalive, peer.allowed_ips.len()), (Some(25), 2));
    assert!(peer.replace_allowed_ips && peer.update_only && peer.remove);
}

#[test]
fn what_is_not_asked_for_stays_open() {
    let change = set("").expect("nothing is something");
    assert!(change.private_key.is_none() && change.listen_port.is_none() && change.fwmark.is_none());
    assert!(!change.replace_peers && change.peers.is_empty());
}

#[test]
fn a_mapped_address_is_the_ipv4_address() {
    let change = set(&format!("public_key={KEY}\nendpoint=[::ffff:192.0.2.1]:500")).expect("an address");
    assert_eq!(change.peers[0].endpoint, "192.0.2.1:500".parse().ok());
}

#[test]
fn wrong_lines_are_refused() {
    let peer = format!("public_key={KEY}\n");
    let rows = [
        "private_key=c0ffee".into(),
        format!("private_key={}", KEY.replace('c', "g")),
        format!("private_key={KEY}0"),
        "listen_port=65536".into(),
        "listen_port=+1".into(),
        "listen_port=".into(),
        "fwmark=0x1000".into(),
        "replace_peers=false".into(),
        "something=1".into(),
        "no equals sign".into(),
        "endpoint=192.0.2.1:1".into(),
        format!("{peer}endpoint=192.0.2.1"),
        format!("{peer}endpoint=name:1"),
        format!("{peer}allowed_ip=10.0.0.0/33"),
        format!("{peer}allowed_ip=::/129"),
        format!("{peer}allowed_ip=10.0.0.0"),
        format!("{peer}allowed_ip=-10.0.0.0/8"),
        format!("{peer}persistent_keepalive_interval=65536"),
        format!("{peer}protocol_version=2"),
        format!("{peer}private_key={KEY}"),
    ];
    for row in rows {
        assert_eq!(set(&row).err(), Some(libc::EINVAL), "{row}");
    }
    for text in ["", "\n\n", "get=2\n\n", "set=0\n\n", "hello\n\n"] {
        assert!(parse(text).is_err(), "{text:?}");
    }
    assert!(matches!(parse("get=1\n\n"), Ok(Request::Get)));
}

#[test]
fn reserved_are_three_numbers_or_nothing() {
    for (text, want) in
        [("", [0; 3]), ("0,0,0", [0; 3]), ("193,29,7", [193, 29, 7]), ("255,0,1", [255, 0, 1])]
    {
        assert_eq!(reserved(text), Ok(want), "{text}");
    }
    for text in ["1,2", "1,2,3,4", "1,2,256", "-1,2,3", "1, 2,3", "+1,2,3", "a,b,c", ",,", "AQID"] {
        assert!(reserved(text).is_err(), "{text}");
    }
}

#[test]
fn junk_is_a_count_and_two_lengths_or_off() {
    for text in ["", "off", "0"] {
        assert_eq!(text.parse(), Ok(Junk::default()), "{text}");
    }
    assert_eq!("1,1,1200".parse(), Ok(Junk { count: 1, min: 1, max: 1200 }));
    for text in ["1", "0,1,2", "256,1,2", "1,0,2", "1,3,2", "1,1,1201", "1,2,3,4", "on", "1,-1,2"] {
        assert!(text.parse::<Junk>().is_err(), "{text}");
    }
}

#[test]
fn a_network_contains_its_addresses() {
    let rows: [(&str, &[u8], bool); 9] = [
        ("0.0.0.0/0", &[1, 2, 3, 4], true),
        ("0.0.0.0/0", &[0; 16], false),
        ("::/0", &[9; 16], true),
        ("10.1.2.3/9", &[10, 127, 0, 0], true),
        ("10.1.2.3/9", &[10, 128, 0, 0], false),
        ("10.1.2.3/32", &[10, 1, 2, 3], true),
        ("10.1.2.3/32", &[10, 1, 2, 2], false),
        ("fd00::/8", &[0xfd; 16], true),
        ("10.0.0.0/8", &[], false),
    ];
    for (network, address, inside) in rows {
        let network: Network = network.parse().expect("a network");
        assert_eq!(network.contains(address), inside, "{network:?} {address:?}");
    }
}

#[test]
fn what_is_shown_is_what_wg_reads() {
    let key = Zeroizing::new([0xab; 32]);
    let networks = ["10.1.2.3/8".parse().expect("a network"), "::/0".parse().expect("a network")];
    let peer = PeerState {
        public_key: [1; 32],
        preshared_key: None,
        endpoint: "[2001:db8::1]:2408".parse().ok(),
        handshake: (1_700_000_000, 5),
        sent: 12,
        received: 34,
        keepalive: 25,
        allowed_ips: &networks,
    };
    let state = State { private_key: Some(key), listen_port: 5, fwmark: 4096, peer: Some(peer) };
    let expected = format!(
        "private_key={}\nlisten_port=5\nfwmark=4096\npublic_key={}\npreshared_key={}\nprotocol_version=1\n\
         endpoint=[2001:db8::1]:2408\nlast_handshake_time_sec=1700000000\nlast_handshake_time_nsec=5\n\
         tx_bytes=12\nrx_bytes=34\npersistent_keepalive_interval=25\nallowed_ip=10.0.0.0/8\n\
         allowed_ip=::/0\nerrno=0\n\n",
        "ab".repeat(32),
        "01".repeat(32),
        "00".repeat(32)
    );
    assert_eq!(*show(&state), expected);
    let empty = State { private_key: None, listen_port: 5, fwmark: 0, peer: None };
    assert_eq!(*show(&empty), "listen_port=5\nerrno=0\n\n");
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,300}") {
        let _ = parse(&text);
        let _ = set(&text);
    }

    #[test]
    fn a_key_reads_as_it_is_shown(key in any::<[u8; 32]>()) {
        let state = State { private_key: Some(Zeroizing::new(key)), listen_port: 0, fwmark: 0, peer: None };
        let shown = show(&state);
        let line = shown.lines().next().expect("a line");
        prop_assert_eq!(*set(line).expect("a key").private_key.expect("a key"), key);
    }
}
