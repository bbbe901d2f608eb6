"""The emulated Cloudflare, proven with stock tools: plain httpx and a wireguard-go configured by hand.

C ── R ── H      the standard lab (topology.py); C and H both play WireGuard clients
     │
     F ── D1, D2, … , O       the emulator (tests/cloudflare)
"""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

import dns.message
import dns.query
import httpx
import pytest

from tests.cloudflare.client import Cloudflare
from tests.cloudflare.config import bulk, bulk_sha256
from tests.lab.stock import Account, Client, call, client, echo, new_key, register, trace
from tests.lab.topology import HOST, WIRE, Lab
from tests.lab.wire import Wire, called, neighbours, wireguard

pytestmark = pytest.mark.lab
MEGABYTES = 50 << 20
EDGE: tuple[IPv4Network | IPv6Network, ...] = (
    ip_network("162.159.192.0/24"),
    ip_network("2606:4700:d0::/48"),
)
INSIDE = ("1.1.1.1", "2606:4700:4700::1111")
DIRECT = ("1.0.0.1", "2606:4700:4700::1001")


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cloudflare")) as made:
        yield made


@pytest.fixture
def cf(lab: Lab) -> Iterator[Cloudflare]:
    yield lab.cloudflare
    lab.cloudflare.heal()
    lab.cloudflare.edge.heal()
    lab.cloudflare.forget_calls()
    lab.cloudflare.origin.forget()


@pytest.fixture(scope="module")
def account(lab: Lab) -> Account:
    return register(lab, "H")


@pytest.fixture
def tunnel(lab: Lab, account: Account) -> Iterator[Client]:
    with client(lab, "H", account) as made:
        made.route(*INSIDE)
        assert echo(lab, "H", INSIDE[0], b"up", tries=10)
        lab.cloudflare.origin.forget()
        yield made


def test_through_the_tunnel_warp_is_on_and_beside_it_off(lab: Lab, cf: Cloudflare, tunnel: Client) -> None:
    for scheme in ("http", "https"):
        for inside, direct, exit_, own in zip(
            ("1.1.1.1", "[2606:4700:4700::1111]"),
            ("1.0.0.1", "[2606:4700:4700::1001]"),
            ("104.28.0.1", "2a09:bac0::1"),
            map(str, HOST),
            strict=True,
        ):
            through = trace(lab, "H", f"{scheme}://{inside}/cdn-cgi/trace")
            assert (through["warp"], through["ip"], len(through)) == ("on", exit_, 16)
            beside = trace(lab, "H", f"{scheme}://{direct}/cdn-cgi/trace")
            assert (beside["warp"], beside["ip"]) == ("off", own)
    assert {one.warp for one in cf.origin.seen("https")} == {"on", "off"}


def test_udp_of_both_families_comes_out_of_the_exit(lab: Lab, cf: Cloudflare, tunnel: Client) -> None:
    assert [echo(lab, "H", one, b"probe") for one in INSIDE] == ["104.28.0.1", "2a09:bac0::1"]
    assert [echo(lab, "H", one, b"probe") for one in DIRECT] == [str(one) for one in HOST]
    large = os.urandom(3000)
    assert [echo(lab, "H", one, large) for one in INSIDE] == ["104.28.0.1", "2a09:bac0::1"]
    assert [one.source for one in cf.origin.seen("echo")][:1] == ["104.28.0.1"]


def test_another_inner_source_is_dropped(lab: Lab, cf: Cloudflare, tunnel: Client) -> None:
    for stray, length, target in (("172.16.0.3", 32, INSIDE[0]), ("2606:4700:110:8::bad", 128, INSIDE[1])):
        nodad = ["nodad"] if length == 128 else []
        lab.run("H", ["ip", "address", "add", f"{stray}/{length}", "dev", tunnel.name, *nodad])
        assert echo(lab, "H", target, b"stray", source=stray, wait=0.5) is None
        lab.run("H", ["ip", "address", "del", f"{stray}/{length}", "dev", tunnel.name])
        assert echo(lab, "H", target, b"mine", tries=3)
    assert [one.detail for one in cf.origin.seen("echo")] == [b"mine".hex()] * 2


def test_two_devices_share_an_inner_address_at_the_same_time(
    lab: Lab, account: Account, tunnel: Client
) -> None:
    other = register(lab, "C")
    assert other.addresses[0] == account.addresses[0] == "172.16.0.2"
    assert other.addresses[1] != account.addresses[1] and other.endpoints != account.endpoints
    with client(lab, "C", other) as second:
        second.route(*INSIDE)
        assert echo(lab, "C", INSIDE[0], b"second", tries=10) == "104.28.0.2"
        for _ in range(3):
            assert echo(lab, "H", INSIDE[0], b"first") == "104.28.0.1"
            assert echo(lab, "C", INSIDE[1], b"second") == "2a09:bac0::2"


@pytest.mark.parametrize("family", [0, 1])
def test_every_port_answers_from_where_it_was_asked(
    lab: Lab, tunnel: Client, account: Account, family: int
) -> None:
    endpoint = (account.endpoints[0], f"[{account.endpoints[1]}]")[family]
    tunnel.restart()
    for port in (500, 1701, 4500, 2408):
        with Wire(lab.name("R"), WIRE, [neighbours(), wireguard(EDGE[family:], [port])]) as wire:
            tunnel.configure(account, f"{endpoint}:{port}")
            assert echo(lab, "H", INSIDE[0], b"port", tries=10), port
            # A last message of the session before may still be on its way at the old port.
            assert wire.counts()["wireguard"] >= 4
            assert wire.counts().get("stranger", 0) <= 1


def test_a_connection_outlives_a_change_of_the_outer_family(
    lab: Lab, tunnel: Client, account: Account
) -> None:
    url = f"http://{INSIDE[0]}/bytes/100000"
    with lab.inside("H"), httpx.Client(trust_env=False, timeout=10.0) as http:
        assert http.get(url).content == bulk(100000)
        tunnel.restart()
        tunnel.configure(account, f"[{account.endpoints[1]}]:2408")
        assert http.get(url).content == bulk(100000)
    assert len({one.source_port for one in lab.cloudflare.origin.seen("http")}) == 1


def test_the_first_device_answers_in_the_whole_range(lab: Lab, tunnel: Client, account: Account) -> None:
    for endpoint in ("162.159.192.77:2408", "[2606:4700:d0::a29f:c04d]:500", "162.159.192.8:4500"):
        tunnel.restart()
        tunnel.configure(account, endpoint)
        assert echo(lab, "H", INSIDE[0], b"range", tries=10), endpoint


def test_unknown_rotated_and_deleted_keys_meet_silence(lab: Lab, cf: Cloudflare) -> None:
    mine = register(lab, "C")
    headers = {"authorization": f"Bearer {mine.body['token']}"}
    path = f"/v0a2158/reg/{mine.body['id']}"
    with client(lab, "C", mine) as other:
        other.route(*INSIDE)
        assert echo(lab, "C", INSIDE[0], b"known", tries=10)
        private, public = new_key()
        answer = call(lab, "C", "PUT", path, json={"key": public}, headers=headers)
        assert (answer.status_code, answer.json()["key"]) == (200, public)
        assert "token" not in answer.json()
        assert echo(lab, "C", INSIDE[0], b"rotated", tries=2, wait=0.5) is None
        rotated = Account(private, mine.body)
        other.configure(rotated, f"{mine.endpoints[0]}:2408")
        assert echo(lab, "C", INSIDE[0], b"new", tries=10)
        assert call(lab, "C", "DELETE", path, headers=headers).status_code == 204
        other.configure(rotated, f"{mine.endpoints[0]}:2408")
        assert echo(lab, "C", INSIDE[0], b"deleted", tries=2, wait=0.5) is None
        assert call(lab, "C", "DELETE", path, headers=headers).status_code == 404
    assert [one.active for one in cf.edge.devices() if one.id == mine.body["id"]] == [False]


@pytest.mark.parametrize("process", [False, True])
def test_an_edge_that_lost_its_session_takes_a_new_handshake(
    lab: Lab, cf: Cloudflare, tunnel: Client, account: Account, process: bool
) -> None:
    cf.edge.restart(process=process)
    assert echo(lab, "H", INSIDE[0], b"lost", wait=0.5) is None
    tunnel.configure(account, f"{account.endpoints[0]}:2408")
    assert echo(lab, "H", INSIDE[0], b"back", tries=10)


def test_a_silent_edge_shakes_hands_but_sends_nothing(
    lab: Lab, cf: Cloudflare, tunnel: Client, account: Account
) -> None:
    cf.edge.silent()
    before = cf.edge.devices()[0].handshake
    tunnel.configure(account, f"{account.endpoints[0]}:2408")
    assert echo(lab, "H", INSIDE[0], b"one way", tries=3, wait=0.5) is None
    assert cf.edge.devices()[0].handshake > before
    assert cf.origin.seen("echo")
    cf.edge.heal()
    assert echo(lab, "H", INSIDE[0], b"healed", tries=5)


def test_a_blocked_port_and_address_and_a_dead_edge(
    lab: Lab, cf: Cloudflare, tunnel: Client, account: Account
) -> None:
    four, six = account.endpoints
    cf.edge.block(ports=[2408], addresses=[six])
    tunnel.configure(account, f"{four}:2408")
    assert echo(lab, "H", INSIDE[0], b"port", wait=0.5) is None
    tunnel.restart()
    tunnel.configure(account, f"[{six}]:500")
    assert echo(lab, "H", INSIDE[0], b"address", wait=0.5) is None
    tunnel.configure(account, f"{four}:500")
    assert echo(lab, "H", INSIDE[0], b"free", tries=10)
    cf.edge.dead()
    assert echo(lab, "H", INSIDE[0], b"dead", wait=0.5) is None
    cf.edge.heal()
    assert echo(lab, "H", INSIDE[0], b"alive", tries=10)


def test_fifty_megabytes_each_way(lab: Lab, tunnel: Client) -> None:
    size = MEGABYTES
    with lab.inside("H"), httpx.Client(trust_env=False, timeout=60.0) as http:
        began = time.monotonic()
        digest = hashlib.sha256()
        with http.stream("GET", f"http://{INSIDE[0]}/bytes/{size}") as answer:
            for chunk in answer.iter_raw(1 << 20):
                digest.update(chunk)
        down = time.monotonic() - began
        assert digest.hexdigest() == bulk_sha256(size)
        began = time.monotonic()
        assert http.post(f"http://[{INSIDE[1]}]/sink", content=bulk(size)).text == bulk_sha256(size)
        up = time.monotonic() - began
    print(f"50 MB down {down:.2f} s, up {up:.2f} s")
    assert down < 30 and up < 30


def test_dns_answers_by_udp_and_tcp(lab: Lab, cf: Cloudflare, tunnel: Client) -> None:
    udp: Callable[..., dns.message.Message] = dns.query.udp
    tcp: Callable[..., dns.message.Message] = dns.query.tcp
    with lab.inside("H"):
        for server, ask in ((INSIDE[0], udp), (INSIDE[1], tcp), (DIRECT[0], udp)):
            for kind, expected in (("A", "104.16.132.229"), ("AAAA", "2606:4700::6810:84e5")):
                reply = ask(dns.message.make_query("www.cloudflare.com", kind), server, timeout=5)
                assert [str(one) for one in reply.answer[0]] == [expected]
    warps = [(one.protocol, one.warp) for one in cf.origin.seen()]
    assert warps == [("dns-udp", "on")] * 2 + [("dns-tcp", "on")] * 2 + [("dns-udp", "off")] * 2


def test_the_observer_sees_a_direct_probe_and_allows_the_rest(lab: Lab, tunnel: Client) -> None:
    config = lab.cloudflare.config
    allowed = [neighbours(), wireguard(EDGE, [2408]), called("api", config.api_addresses, 443)]
    with Wire(lab.name("R"), WIRE, allowed) as wire:
        assert echo(lab, "H", INSIDE[0], b"hidden")
        assert call(lab, "H", "GET", "/v0a2158/client_config").status_code == 200
        assert wire.leaks() == []
        for target in DIRECT:
            assert echo(lab, "H", target, b"in the open")
        leaks = wire.leaks()
    assert [(one.kind, str(one.destination), one.payload) for one in leaks] == [
        ("udp", target, b"in the open") for target in DIRECT
    ]
