"""The kill switch as text: which packets, in which order. The real nftables: tests/lab/test_killswitch.py."""

import subprocess
import sys
from dataclasses import replace
from ipaddress import IPv4Address, ip_address

import pytest

from entrypoint.addresses import Destination, Ports
from entrypoint.firewall.policy import Closed, FullTunnel, HostFull, Policy, ProxyTunnel
from entrypoint.firewall.ruleset import ruleset
from entrypoint.linux.kernel_objects import TunnelPeer
from tests.unit.firewall.policies import FULL, HOST, PROXY, TUNNEL, chain

API = Destination(ip_address("104.16.0.1"), 443, "tcp")
type Open = FullTunnel | ProxyTunnel | HostFull
POLICIES: tuple[Policy, ...] = (Closed(), Closed(holes=frozenset({API})), FULL, PROXY, HOST)


def test_full_asks_in_this_order() -> None:
    refuse = "goto refuse"
    assert chain(ruleset(FULL), "output") == [
        "type filter hook output priority filter; policy drop;",
        "meta mark & 0x10ff == 0x1000 ip daddr . meta l4proto . th dport "
        "{ 162.159.192.1 . udp . 2408 } accept",
        "meta mark & 0x10ff == 0x1000 ip6 daddr . meta l4proto . th dport "
        "{ 2606:4700:d0::a29f:c001 . udp . 500 } accept",
        "meta skuid 58388 ct direction reply accept",
        "meta skuid 58388 goto ssserver",
        *errors,
        'oifname "lo" accept',
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, "
        "mld-listener-report, mld-listener-done, mld2-listener-report } accept",
        "ct direction reply accept",
        'oifname "wg0" accept',
        "ip daddr { 172.18.0.0/16, 224.0.0.0/24, 255.255.255.255/32 } accept",
        "ip6 daddr { fe80::/10, ff02::/16 } accept",
        refuse,
    ]
    assert chain(ruleset(FULL), "ssserver")[-2:] == ['oifname "wg0" accept', refuse]


def test_full_lets_in_what_was_asked_for() -> None:
    rules = chain(ruleset(FULL), "input")
    assert rules[0].endswith("policy drop;")
    assert rules.index('iifname "wg0" drop') < rules.index("icmp type echo-request accept")
    assert rules[-3:] == [
        'udp dport { 8388-8388 } ct timeout set "shadowsocks"',
        "tcp dport { 8388-8388, 80-90 } accept",
        "udp dport { 8388-8388 } accept",
    ]
    assert chain(ruleset(FULL), "forward") == ["type filter hook forward priority filter; policy drop;"]


def test_closed_has_no_device_and_no_clients() -> None:
    text = ruleset(Closed())
    assert "wg0" not in text
    assert "8388-" not in text
    assert "mark" not in text
    assert "104.16.0.1 . tcp . 443" in ruleset(Closed(holes=frozenset({API})))
    assert "tcp dport { 80-90 } accept" in ruleset(Closed(input_ports=(Ports(80, 90, "tcp"),)))


def test_proxy_polices_ssserver_and_the_tunnels_addresses_alone() -> None:
    text = ruleset(PROXY)
    assert "policy drop" not in text
    assert chain(text, "output")[-3:] == [
        'oifname { "lo", "wg0" } accept',
        "ip saddr 172.16.0.2 goto refuse",
        "ip6 saddr 2606:4700:110::2 goto refuse",
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_ssserver_is_judged_before_anything_is_allowed_but_what_it_cannot_mark(policy: Policy) -> None:
    """Kernel WireGuard's packets keep the socket, and with it the user, of what they carry."""
    rules = chain(ruleset(policy), "output")[1:]
    judged = rules.index("meta skuid 58388 goto ssserver")
    first = [rule for rule in rules[:judged] if not rule.startswith("meta skuid 58388 ")]
    assert first == [rule for rule in rules if rule.startswith("meta mark & 0x10ff == 0x1000 ")]
    assert bool(first) is (policy != Closed())
    never = " ".join(chain(ruleset(policy), "ssserver"))
    for place in ("127.0.0.0/8", "10.0.0.0/8", "169.254.0.0/16", "100.64.0.0/10", "fc00::/7", "local"):
        assert place in never


@pytest.mark.parametrize("policy", POLICIES)
def test_nothing_trusts_a_connection_for_being_old_on_output(policy: Policy) -> None:
    assert "established" not in " ".join(chain(ruleset(policy), "output"))
    assert "flush" not in ruleset(policy)


errors = (
    'oifname "wg0" icmp type { redirect, time-exceeded } drop',
    'oifname "wg0" icmpv6 type { nd-redirect, time-exceeded } drop',
)


def test_a_hosts_own_packets_alone_are_policed_and_only_on_uplinks() -> None:
    text = ruleset(HOST)
    assert chain(text, "output") == [
        "type filter hook output priority filter; policy accept;",
        "meta mark & 0x10ff == 0x1000 ip daddr . meta l4proto . th dport "
        "{ 162.159.192.1 . udp . 2408 } accept",
        "meta skuid 58388 ct direction reply accept",
        "meta skuid 58388 goto ssserver",
        *errors,
        'oifname != { "eth0", "eth1", "ssw-null" } accept',
        "ct direction reply accept",
        "meta mark & 0xff0000 == 0x80000 accept",
        "meta l4proto igmp ip daddr 224.0.0.0/4 accept",
        "icmpv6 type { nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-query, "
        "mld-listener-report, mld-listener-done, mld2-listener-report } accept",
        "ip daddr { 169.254.0.0/16, 172.17.0.0/16, 224.0.0.0/24, 255.255.255.255/32 } accept",
        "ip6 daddr { fe80::/10, ff02::/16 } accept",
        "tcp sport { 22, 443 } tcp flags & (syn | ack) != syn ct direction original accept",
        "tcp sport { 22, 443 } tcp flags & (syn | ack) != syn ct state untracked accept",
        "ct state untracked udp sport { 53-53 } accept",
        "tcp flags & (syn | ack) == syn counter reject with tcp reset",
        "counter drop",
    ]


@pytest.mark.parametrize("policy", [PROXY, HOST])
def test_nothing_comes_out_of_the_tunnel_unasked(policy: Policy) -> None:
    unasked = 'iifname "wg0" ct state { new, invalid, untracked } drop'
    for name in ("input", "forward"):
        first, *rules = chain(ruleset(policy), name)
        assert first.endswith("policy accept;")
        assert rules[0] == unasked


@pytest.mark.parametrize("policy", POLICIES)
def test_connection_tracking_remembers_a_udp_client_for_as_long_as_ssserver(policy: Policy) -> None:
    udp = not isinstance(policy, Closed)
    assert ("policy = { unreplied : 300, replied : 300 };" in ruleset(policy)) is udp
    assert (
        ('ct timeout set "shadowsocks"' in " ".join(chain(ruleset(policy), "input"))) is udp if udp else True
    )


@pytest.mark.parametrize("policed", [True, False])
@pytest.mark.parametrize("policy", [FULL, PROXY, HOST])
def test_an_address_that_is_taken_here_is_translated(policy: Open, policed: bool) -> None:
    moved = replace(policy, addresses=(ip_address("192.0.0.2"), TUNNEL[1]), outer=IPv4Address("172.16.0.2"))
    assert chain(ruleset(moved, policed=policed), "translate") == [
        "type nat hook postrouting priority srcnat; policy accept;",
        'oifname "wg0" ip saddr != 172.16.0.2 snat ip to 172.16.0.2',
    ]
    assert "daddr 172.16.0.2" not in ruleset(moved)


def test_outer_packets_of_the_hosts_own_tunnels_leave_to_their_far_ends_alone() -> None:
    far, hurricane = TunnelPeer(ip_address("5.9.111.20"), 17, 8472), TunnelPeer(ip_address("5.9.1.1"), 41)
    rules = chain(ruleset(replace(HOST, peers=(far, hurricane))), "output")
    assert "ip daddr 5.9.111.20 udp dport 8472 accept" in rules
    assert "ip daddr 5.9.1.1 meta l4proto 41 accept" in rules


def test_an_answer_on_its_way_into_the_tunnel_is_turned_round() -> None:
    assert chain(ruleset(HOST), "answers") == [
        "type route hook output priority mangle; policy accept;",
        'oifname != { "wg0", "ssw-null" } accept',
        "ct direction reply ip saddr != { 172.16.0.2 } meta mark set meta mark & 0xffffef00 | 0x1000",
        "ct direction reply ip6 saddr != { 2606:4700:110::2 } meta mark set meta mark & 0xffffef00 | 0x1000",
    ]
    only4 = HostFull(device="wg0", null_device="ssw-null", addresses=TUNNEL[:1], uplinks=("eth0",))
    assert chain(ruleset(only4), "answers")[-1].startswith("ct direction reply meta nfproto ipv6 meta mark")


@pytest.mark.parametrize("policy", [FULL, PROXY, HOST])
def test_nobody_asks_for_the_tunnels_address_from_outside(policy: Policy) -> None:
    text = ruleset(policy)
    assert 'iifname != { "lo", "wg0" } ip daddr 172.16.0.2 drop' in text
    assert 'iifname != { "lo", "wg0" } ip6 daddr 2606:4700:110::2 drop' in text
    assert 'iifname != "wg0" arp daddr ip 172.16.0.2 drop' in text.split("table arp ss_warp {")[1]


@pytest.mark.parametrize("policy", [FULL, PROXY, HOST])
def test_l_04_a_family_that_the_tunnel_has_not_is_refused_even_to_what_is_bound_to_it(policy: Open) -> None:
    rules = chain(ruleset(replace(policy, addresses=TUNNEL[:1])), "ssserver")
    assert rules[-3:] == [
        'oifname "wg0" meta nfproto ipv6 goto refuse',
        'oifname "wg0" accept',
        "goto refuse",
    ]
    assert chain(ruleset(policy), "ssserver")[-2:] == ['oifname "wg0" accept', "goto refuse"]


@pytest.mark.parametrize("policy", [FULL, PROXY, HOST])
def test_a_family_that_may_leave_directly_may_after_what_nobody_may(policy: Open) -> None:
    text = ruleset(replace(policy, addresses=TUNNEL[:1], direct=6))
    directly = "meta nfproto ipv6 accept"
    assert chain(text, "ssserver")[-2:] == [directly, "goto refuse"]
    output = chain(text, "output")
    assert (directly in output) == (policy is not PROXY), "there everybody else is left alone anyway"
    if directly in output:
        assert output.index("meta skuid 58388 goto ssserver") < output.index(directly)
    assert "meta nfproto ipv4 accept" not in text
    assert directly not in ruleset(policy)


def test_it_is_light_to_import() -> None:
    code = (
        "import sys; from entrypoint.firewall.ruleset import Closed, ruleset; ruleset(Closed());"
        "import entrypoint.early.placement;"
        "print([m for m in ('anyio', 'asyncio', 'pyroute2', 'httpx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
