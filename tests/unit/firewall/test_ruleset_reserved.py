"""The reserved bytes: which, and who writes them. On the wire: tests/lab/test_reserved.py."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.addresses import Destination
from entrypoint.desired import DesiredState, choose_ids, reserved
from entrypoint.errors import SettingsError
from entrypoint.firewall.killswitch import kill_switch
from entrypoint.firewall.policy import Closed, FullTunnel, HostFull, Policy, ProxyTunnel
from entrypoint.firewall.ruleset import release, reserved_chains, ruleset
from entrypoint.linux.kernel_objects import Guise
from entrypoint.settings import load
from entrypoint.wireguard.device import Implementation
from tests.fakes.bench import CONFIG, bench_in
from tests.fakes.nft import FakeNft
from tests.fakes.world import FakeWorld
from tests.unit.firewall.policies import FULL, HOST, PROXY, chain
from tests.unit.surroundings import ACCOUNT, ENDPOINTS, UPLINKS

BYTES = b"\xc1\x1d\x07"
HAS = replace(ACCOUNT, client_id=BYTES)
PLACES = frozenset(
    {
        Destination(ip_address("162.159.192.1"), 2408, "udp"),
        Destination(ip_address("2606:4700:d0::a29f:c001"), 500, "udp"),
    }
)
POLICIES = [replace(one, endpoints=PLACES) for one in (FULL, PROXY, HOST)]


@pytest.mark.parametrize(
    ("text", "account", "octets"),
    [
        ("", HAS, BYTES),
        ("auto", HAS, BYTES),
        ("auto", ACCOUNT, bytes(3)),
        ("ON", HAS, BYTES),
        ("off", HAS, bytes(3)),
        ("1, 2,255", HAS, b"\x01\x02\xff"),
        ("1,2,3", ACCOUNT, b"\x01\x02\x03"),
    ],
)
def test_the_users_else_the_accounts_else_none(text: str, account: object, octets: bytes) -> None:
    """A profile that wgcf made has no client_id: `auto` leaves zeros, three bytes are taken."""
    assert reserved(load({"WARP_RESERVED": text}), account) == octets  # type: ignore[arg-type]


def test_asked_for_but_not_known_is_told() -> None:
    with pytest.raises(SettingsError, match="WARP_RESERVED=on: this account has no client_id"):
        reserved(load({"WARP_RESERVED": "on"}), ACCOUNT)


@pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "1,2,300", "-1,2,3", "AQI=", "onn", "1,,3"])
def test_b26_what_is_not_three_bytes_is_refused(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"WARP_RESERVED": text})
    (line,) = caught.value.problems
    assert line.startswith("WARP_RESERVED: ")
    assert "expected auto, on, off, or three bytes" in line


def test_the_kernel_gets_rules_for_both_families_and_nobody_else_is_touched() -> None:
    text = ruleset(replace(FULL, endpoints=PLACES, reserved=BYTES))
    assert chain(text, "write_reserved") == [
        "type filter hook output priority mangle; policy accept;",
        "meta mark & 0x10ff == 0x1000 ip daddr . meta l4proto . th dport "
        "{ 162.159.192.1 . udp . 2408 } @th,72,24 set 0xc11d07",
        "meta mark & 0x10ff == 0x1000 ip6 daddr . meta l4proto . th dport "
        "{ 2606:4700:d0::a29f:c001 . udp . 500 } @th,72,24 set 0xc11d07",
    ]
    assert chain(text, "clear_reserved") == [
        "type filter hook input priority mangle; policy accept;",
        "ct state invalid accept",
        "ip saddr . meta l4proto . th sport { 162.159.192.1 . udp . 2408 } @th,72,24 set 0",
        "ip6 saddr . meta l4proto . th sport { 2606:4700:d0::a29f:c001 . udp . 500 } @th,72,24 set 0",
    ]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_every_policy_can_carry_them_and_is_otherwise_the_same(
    policy: FullTunnel | ProxyTunnel | HostFull,
) -> None:
    written = "".join(f"{line}\n" for line in reserved_chains(BYTES, policy.mark, policy.endpoints))
    text = ruleset(replace(policy, reserved=BYTES))
    assert text.replace(written, "", 1) == ruleset(policy)
    alone = ruleset(replace(policy, reserved=BYTES), policed=False)
    assert alone == f"{release()}table inet ss_warp {{\n{written}}}\ntable arp ss_warp {{\n}}\n"
    assert ruleset(policy, policed=False) == release()


def rules_of(implementation: Implementation, environ: dict[str, str], network: str = "own") -> bytes:
    settings = load({"NETWORK": network, **environ})
    account = replace(ACCOUNT, client_id=BYTES)
    wanted = DesiredState(settings, choose_ids(settings), account, ENDPOINTS)
    assert wanted.device().guise.reserved == (bytes(3) if environ.get("WARP_RESERVED") == "off" else BYTES)
    policy: Policy = replace(wanted, engine=implementation).policy(UPLINKS)
    assert not isinstance(policy, Closed)
    return policy.reserved


@pytest.mark.parametrize(("network", "mode"), [("own", "full"), ("own", "proxy"), ("host", "full")])
def test_only_for_the_kernel_the_firewall_writes_them(network: str, mode: str) -> None:
    environ = {"ROUTE_MODE": mode}
    assert rules_of("kernel", environ, network) == BYTES
    assert rules_of("userspace", environ, network) == b""
    assert rules_of("kernel", environ | {"WARP_RESERVED": "off"}, network) == b""


@pytest.mark.anyio
async def test_without_firewall_they_alone_are_loaded_guarded_and_taken_back() -> None:
    nft = FakeNft()
    async with kill_switch(nft, on=False) as switch:
        await switch.set(replace(FULL, reserved=BYTES))
        loaded = str(nft)
        assert "write_reserved" in loaded
        assert "output {" not in loaded
        assert await switch.intact()
        nft.flush()
        assert not await switch.intact()
        await switch.restore()
        assert str(nft) == loaded
    assert nft.tables == {}


@pytest.mark.anyio
async def test_an_engine_with_other_bytes_is_a_new_one(tmp_path: Path) -> None:
    bench = bench_in(tmp_path)
    async with bench.kept() as device:
        for octets, engines in ((BYTES, 2), (BYTES, 2), (bytes(3), 3)):
            await device.configure(replace(CONFIG, guise=Guise(octets)))
            await bench.clock.sleep(0.1)
            assert len(bench.processes.children) == engines
            environment = bench.engine().program.environment
            assert environment["WG_RESERVED"] == (",".join(map(str, octets)) if any(octets) else "")


@pytest.mark.anyio
@pytest.mark.parametrize("firewall", ["on", "off"])
async def test_the_chain_gives_them_to_whoever_carries_the_packets(tmp_path: Path, firewall: str) -> None:
    for name in ("userspace", "kernel"):
        (tmp_path / name).mkdir()
    userspace = FakeWorld(tmp_path / "userspace")
    kernel = FakeWorld(tmp_path / "kernel", has_wireguard=True)
    async with userspace.serving(FIREWALL=firewall) as board:
        assert board.status.guise == Guise(b"\x01\x02\x03")
        assert "set 0x010203" not in str(userspace)
        (engine,) = [one for one in userspace.processes.children if one.program.name == "ss-warp-wireguard"]
        assert engine.program.environment["WG_RESERVED"] == "1,2,3"
    async with kernel.serving(FIREWALL=firewall):
        assert str(kernel).count("@th,72,24 set 0x010203") == 2
        assert str(kernel).count("@th,72,24 set 0\n") == 2
    assert "@th" not in str(kernel)
    async with kernel.serving(FIREWALL=firewall, WARP_RESERVED="off"):
        assert "@th" not in str(kernel)
