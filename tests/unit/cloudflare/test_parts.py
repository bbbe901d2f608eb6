"""The emulator's pure parts: faults, trace, DNS, packet rules, configuration; and the observer's parser."""

import struct
from ipaddress import IPv6Network, ip_address, ip_network

import dns.message
import dns.rcode
import pytest

from tests.cloudflare.config import Config, bulk, bulk_sha256
from tests.cloudflare.devices import addresses
from tests.cloudflare.faults import REMOVED, Fault, Faults, overridden, too_many
from tests.cloudflare.names import answered, zone
from tests.cloudflare.rules import EdgeFaults, device_rules, published_rules
from tests.cloudflare.trace import Visit, trace
from tests.cloudflare.web import plain
from tests.lab.wire import GRACE, Packet, called, looked_up, neighbours, parse, served, wireguard
from tests.unit.cloudflare.lab import CONFIG

KEYS = [
    "fl",
    "h",
    "ip",
    "ts",
    "visit_scheme",
    "uag",
    "colo",
    "sliver",
    "http",
    "loc",
    "tls",
    "sni",
    "warp",
    "gateway",
    "rbi",
    "kex",
]


def test_a_fault_hits_what_it_names_as_often_as_it_says() -> None:
    queue = Faults()
    queue.add(too_many().only("POST", "/reg$", times=2), Fault(status=500, times=None))
    hits = [
        queue.take(*call) for call in [("GET", "/reg"), ("POST", "/reg"), ("POST", "/reg"), ("POST", "/reg")]
    ]
    assert [one.status if one else None for one in hits] == [500, 429, 429, 500]
    queue.clear()
    assert queue.take("POST", "/reg") is None


def test_a_fault_survives_its_journey_as_json() -> None:
    fault = too_many("3").only("POST", "reg")
    assert Fault.of(fault.plain()) == fault
    with pytest.raises(TypeError, match="statuss"):
        Fault.of({"statuss": 500})


def test_overriding_changes_a_copy_and_refuses_paths_that_lead_nowhere() -> None:
    body = {"a": [{"b": 1, "c": 2}]}
    assert overridden(body, {"a.0.b": None, "a.0.c": REMOVED, "d": 3}) == {"a": [{"b": None}], "d": 3}
    assert body == {"a": [{"b": 1, "c": 2}]}
    for path in ("x.y", "a.1.b", "a.0.b.c"):
        with pytest.raises((KeyError, IndexError, TypeError)):
            overridden(body, {path: 1})


@pytest.mark.parametrize(
    ("host", "tls", "shown", "sni"),
    [
        ("www.cloudflare.com", "TLSv1.3", "www.cloudflare.com", "plaintext"),
        ("1.1.1.1", "TLSv1.2", "1.1.1.1", "off"),
        ("[2606:4700:4700::1111]", "TLSv1.3", "[2606:4700:4700::1111]", "off"),
        ("1.1.1.1:80", "off", "1.1.1.1", "off"),
    ],
)
def test_the_trace_has_sixteen_lines_in_order(host: str, tls: str, shown: str, sni: str) -> None:
    text = trace(Visit(host, "104.28.0.1", "a=b c", tls, "on"), at=1.5).decode()
    lines = dict(one.split("=", 1) for one in text.splitlines())
    assert list(lines) == KEYS and text.endswith("\n")
    assert (lines["h"], lines["sni"], lines["uag"], lines["ts"]) == (shown, sni, "a=b c", "1.500")
    assert lines["visit_scheme"] == ("http" if tls == "off" else "https")


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("engage.cloudflareclient.com", "A", ["162.159.192.1"]),
        ("ENGAGE.cloudflareclient.com", "AAAA", ["2606:4700:d0::a29f:c001"]),
        ("v4.origin.test", "AAAA", []),
        ("api.cloudflareclient.com", "A", ["104.16.192.82"]),
    ],
)
def test_dns_knows_its_names(name: str, kind: str, expected: list[str]) -> None:
    query = dns.message.make_query(name, kind)
    wire, asked = answered(query.to_wire(), zone(CONFIG))
    reply = dns.message.from_wire(wire)
    assert (asked, reply.id, reply.rcode()) == (name.lower(), query.id, dns.rcode.NOERROR)
    assert [str(one) for rrset in reply.answer for one in rrset] == expected


def test_dns_denies_others_and_ignores_rubbish() -> None:
    wire, _ = answered(dns.message.make_query("example.org", "A").to_wire(), zone(CONFIG))
    assert dns.message.from_wire(wire).rcode() == dns.rcode.NXDOMAIN
    with pytest.raises(ValueError, match="no DNS query"):
        answered(b"rubbish", zone(CONFIG))


def test_rules_say_each_fault_once() -> None:
    place = addresses(CONFIG, 2)
    healthy = device_rules(CONFIG, "2606:4700:110:8::2", place, ("four", "six"), EdgeFaults())
    assert " drop" not in healthy and "snat ip to 104.28.0.2" in healthy
    faults = EdgeFaults(mute=(4,), dead=True, ports=(500,), addresses=("162.159.192.2",))
    sick = device_rules(CONFIG, "2606:4700:110:8::2", place, ("four", "six"), faults)
    drops = [one.strip() for one in sick.splitlines() if one.endswith(" drop")]
    assert drops == [
        "iifname uplink udp dport { 2408, 500, 1701, 4500 } drop",
        "iifname uplink udp dport 500 drop",
        "iifname uplink ip daddr 162.159.192.2 drop",
        "oifname uplink udp sport { 2408, 2409 } @th,64,8 { 4 } drop",
    ]


def test_published_addresses_stand_for_the_first_device_and_the_origin() -> None:
    origin = (ip_address("1.1.1.1"), ip_address("2606:4700:4700::1111"))
    text = published_rules(CONFIG, addresses(CONFIG, 1), origin)
    assert "ip daddr 10.9.0.2 udp dport { 2408, 500, 1701, 4500 } dnat ip to 162.159.192.1" in text
    assert "ip6 daddr fd00::2 udp dport { 7, 53 } dnat ip6 to 2606:4700:4700::1111" in text


def test_configuration_goes_through_json() -> None:
    assert Config.load(CONFIG.dump()) == CONFIG
    with pytest.raises(ValueError, match="uplonk"):
        Config.load('{"state": "/x", "uplink": "e", "uplonk": 1}')


def test_bulk_is_deterministic() -> None:
    size = (1 << 20) + 5
    assert len(bulk(size)) == size and bulk(size)[:9] == bulk(9)
    assert bulk_sha256(3) != bulk_sha256(4)


def test_mapped_and_scoped_addresses_are_shown_plainly() -> None:
    assert [plain(one) for one in ("::ffff:192.0.2.1", "fe80::1%eth0", "1.1.1.1")] == [
        "192.0.2.1",
        "fe80::1",
        "1.1.1.1",
    ]


def frame4(source: str, target: str, ports: tuple[int, int], payload: bytes, protocol: int = 17) -> bytes:
    rest = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    ends = ip_address(source).packed + ip_address(target).packed
    return (
        bytes(12)
        + b"\x08\x00"
        + struct.pack("!BBHIBBH", 0x45, 0, 20 + len(rest), 0, 64, protocol, 0)
        + ends
        + rest
    )


def frame6(source: str, target: str, protocol: int, rest: bytes) -> bytes:
    ends = ip_address(source).packed + ip_address(target).packed
    return bytes(12) + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(rest), protocol, 64) + ends + rest


def test_the_observer_knows_wireguard_from_what_only_uses_its_port() -> None:
    edge = (ip_network("162.159.192.0/24"), IPv6Network("2606:4700:d0::/48"))
    allowed = wireguard(edge, [2408], reserved=b"\x01\x02\x03").match
    ends = ("203.0.113.7", "162.159.192.1", (5000, 2408))
    for head, expected in (
        (b"\x04\0\0\0", True),
        (b"\x01\x01\x02\x03", True),
        (b"\x04\x09\0\0", False),
        (b"GET ", False),
    ):
        assert allowed(parse(frame4(*ends, head + bytes(28)), from_host=True)) is expected
    assert not allowed(parse(frame4(*ends[:2], (5000, 53), b"\x04\0\0\0"), from_host=True))
    assert not allowed(parse(frame4("203.0.113.7", "1.1.1.1", (5000, 2408), b"\x04\0\0\0"), from_host=True))
    assert not allowed(parse(frame4(*ends, b"\x04\0\0\0", protocol=6), from_host=True))


def datagram(ends: tuple[str, str], ports: tuple[int, int], *, from_host: bool, at: float = 0.0) -> Packet:
    return parse(frame4(*ends, ports, b"hello"), from_host=from_host, at=at)


def test_an_answer_is_one_only_to_whoever_has_asked() -> None:
    """What ssserver's user sends from its port to anybody else is a leak, whatever the port says."""
    host, far = "203.0.113.7", "9.9.9.9"
    judge = served("shadowsocks", 8388, ("udp", "tcp")).match
    assert not judge(datagram((host, far), (8388, 443), from_host=True))
    assert judge(datagram((far, host), (443, 8388), from_host=False))
    assert judge(datagram((host, far), (8388, 443), from_host=True))
    assert not judge(datagram((host, far), (8388, 444), from_host=True))
    assert not judge(datagram(("203.0.113.8", far), (8388, 443), from_host=True))


def test_a_known_client_may_have_asked_before_the_observer_came() -> None:
    host, client = "203.0.113.7", "198.51.100.50"
    judge = served("shadowsocks", 8388, ("udp",), [ip_address(client)]).match
    assert judge(datagram((host, client), (8388, 999), from_host=True, at=5))
    assert not judge(datagram((host, client), (8388, 999), from_host=True, at=5 + 2 * GRACE))


def test_a_connection_that_the_host_opens_is_no_answer() -> None:
    host, far = "203.0.113.7", "9.9.9.9"

    def segment(flags: int, ports: tuple[int, int]) -> Packet:
        header = bytes(4) + bytes([0x50, flags]) + bytes(6)
        return parse(frame4(host, far, ports, header, protocol=6), from_host=True)

    judge = served("shadowsocks", 8388).match
    assert judge(segment(0x10, (8388, 444))), "it is older than the observer"
    assert not judge(segment(0x02, (8388, 443)))
    assert not judge(segment(0x10, (8388, 443)))


def test_the_observer_reads_ports_neighbours_and_names() -> None:
    query = dns.message.make_query("api.cloudflareclient.com", "A").to_wire()
    asked = parse(frame4("203.0.113.7", "1.1.1.1", (999, 53), query), from_host=True)
    servers = [ip_address("1.1.1.1")]
    assert looked_up(["api.cloudflareclient.com"], servers).match(asked)
    assert not looked_up(["cloudflareclient.com"], servers).match(asked)
    assert called("dns", servers, 53, ["udp"]).match(asked) and not called("dns", servers, 53).match(asked)
    ssh = parse(frame4("198.51.100.50", "203.0.113.7", (40000, 22), bytes(12), protocol=6), from_host=False)
    assert served("ssh", 22).match(ssh) and not served("ssh", 40000).match(ssh)
    assert not ssh.opens
    solicitation = parse(frame6("fe80::1", "ff02::1", 0, b"\x3a\0" + bytes(6) + b"\x87\0"), from_host=True)
    assert solicitation.kind == "icmp6" and neighbours().match(solicitation)
    ping = parse(frame6("2001:db8::1", "2606:4700::1", 58, b"\x80\0"), from_host=True)
    assert not neighbours().match(ping)
    assert parse(frame6("2001:db8::1", "2606:4700::1", 44, bytes(8)), from_host=True).kind == "fragment"
