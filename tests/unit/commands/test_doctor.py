"""`ss-warp doctor`: a line each for what is wrong, with the remedy, and an exit code."""

import json
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from entrypoint.addresses import Ports
from entrypoint.commands import doctor, machine
from entrypoint.commands.cli import command_line
from entrypoint.commands.doctor import unlisted_ports
from entrypoint.errors import SettingsError
from entrypoint.health.diagnosis import Cause, Diagnosis
from entrypoint.linux.kernel_objects import Snapshot
from entrypoint.linux.proc import read_wildcards
from entrypoint.linux.state_dir import lock
from entrypoint.routing.uplinks import find_uplinks
from entrypoint.settings import load
from tests.fakes.http import FakeHttp
from tests.fakes.netlink import FakeNetlink
from tests.fakes.world import FakeWorld

pytestmark = pytest.mark.anyio
DAY = 86400.0
ROW = "  {n}: {local} {remote} 07 00000000:00000000 00:00000000 00000000 0 0 {inode} 2 0 0"
WELL = {
    "health": "connected",
    "healthy": True,
    "cause": None,
    "warp": "on",
    "exit": {"ipv4": "104.28.0.1", "ipv6": None},
}
ILL = WELL | {"health": "healing", "healthy": False, "reason": "no answer"}
NOBODY4, NOBODY6 = "00000000:0000", f"{'0' * 32}:0000"


def proc(path: Path, *rows: tuple[str, str, int]) -> Path:
    """A /proc with these UDP sockets (local, remote, inode), IPv6 where the address is long."""
    net = path / "thread-self/net"
    net.mkdir(parents=True)
    for name, long in (("udp", False), ("udp6", True)):
        lines = [
            ROW.format(n=n, local=local, remote=remote, inode=inode)
            for n, (local, remote, inode) in enumerate(rows)
            if (len(local) > 13) == long
        ]
        (net / name).write_text("\n".join(["  sl  local_address rem_address", *lines]) + "\n")
    return path


def test_wildcard_servers_are_found_and_nobody_else(tmp_path: Path) -> None:
    engine = tmp_path / "7/fd"
    engine.mkdir(parents=True)
    (tmp_path / "7/comm").write_text("ss-warp-wiregua\n")
    (engine / "5").symlink_to("socket:[500]")
    found = read_wildcards(
        proc(
            tmp_path,
            ("00000000:0035", NOBODY4, 100),
            (f"{'0' * 32}:EA60", NOBODY6, 101),
            ("077100CB:0050", NOBODY4, 102),  # bound to an address
            ("00000000:C001", "01010101:0035", 103),  # connected: a client
            ("00000000:12B5", NOBODY4, 0),  # the kernel's
            ("00000000:1000", NOBODY4, 500),  # ours
        )
    )
    assert found == {53, 60000}


def test_ports_that_are_named_and_leases_need_nothing() -> None:
    named = (Ports(60000, 60010, "udp"), Ports(53, 53, "tcp"))
    assert unlisted_ports({68, 546, 60000, 60010, 60011, 53}, named) == [53, 60011]


@pytest.mark.parametrize(
    ("now", "level"), [(0.0, "ok"), (-2 * DAY, "FAIL"), (DAY * 365 * 3, "ok"), (DAY * 365 * 11, "FAIL")]
)
def test_a_clock_that_cannot_be_right_is_told(now: float, level: str) -> None:
    assert doctor.clock(1_790_000_000 + now, 1_790_000_000).level == level


@pytest.mark.parametrize(
    ("wish", "kernel", "line"),
    [
        ("auto", True, "ok   WireGuard: the kernel's"),
        ("kernel", True, "ok   WireGuard: the kernel's"),
        ("auto", False, "note WireGuard: ss-warp-wireguard: the kernel is faster: on the host: modprobe "
         "wireguard"),
        ("userspace", True, "ok   WireGuard: ss-warp-wireguard"),
        ("kernel", False, "FAIL this kernel has no WireGuard: WIREGUARD_IMPLEMENTATION=auto, or on the host: "
         "modprobe wireguard"),
    ],
)  # fmt: skip
def test_who_carries_wireguard(wish: str, kernel: bool, line: str) -> None:
    assert str(doctor.engine(wish, in_kernel=kernel)) == line


async def lines(netlink: FakeNetlink, wildcards: set[int], **environ: str) -> list[str]:
    settings = load({"NETWORK": "own", **environ})
    return [str(one) for one in doctor.surroundings(settings, await netlink.snapshot(), frozenset(wildcards))]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"NETWORK": "host", "ROUTE_MODE": "full"}, ["53 (domain)", "60000"]),
        ({"NETWORK": "host", "ROUTE_MODE": "full", "FIREWALL_INPUT_PORTS": "53/udp"}, ["60000"]),
        ({"NETWORK": "host"}, []),
        ({"NETWORK": "own"}, []),
    ],
)
async def test_servers_that_would_break_are_named_where_they_would(
    environ: dict[str, str], told: list[str]
) -> None:
    wrong = [line for line in await lines(FakeNetlink.container(), {53, 60000}, **environ) if "FAIL" in line]
    assert wrong == [
        f"FAIL the server on UDP port {port} replies through WARP: it is bound to no address: "
        f"FIREWALL_INPUT_PORTS={port.split()[0]}/udp, or ROUTE_MODE=proxy"
        for port in told
    ]


async def test_what_is_missing_around_is_told() -> None:
    netlink = FakeNetlink.container()
    assert await lines(netlink, set()) == ["ok   own network, ROUTE_MODE=full, uplink eth0"]
    netlink.addresses = [one for one in netlink.addresses if one.address.version == 4]
    assert "note no IPv6 on this server: sysctls:" in (await lines(netlink, set()))[1]
    assert len(await lines(netlink, set(), WARP_IP_VERSION="4")) == 1
    netlink.routes = []
    assert "FAIL this host has no default route" in (await lines(netlink, set(), NETWORK="host"))[0]


@pytest.mark.parametrize(
    ("status", "line", "code"),
    [
        ({}, "note ss-warp is not running here", 0),
        (WELL, "ok   connected: warp=on from 104.28.0.1", 0),
        (WELL | {"health": "foreign", "reason": "warp=off"}, "note foreign: warp=off", 0),
        (ILL | {"health": "unserved", "reason": "not listening"}, "FAIL unserved: not listening", 69),
        (ILL | {"health": "stale", "reason": "no beat"}, "FAIL stale: no beat", 69),
        (ILL, "FAIL healing: no answer", 69),
    ],
)
def test_what_the_supervisor_says_of_itself(status: dict[str, object], line: str, code: int) -> None:
    found = doctor.supervisor(status)
    assert str(found) == line if not status else str(found).startswith(line)
    assert (found.code, found.remedy) == (code, "")


@pytest.mark.parametrize("cause", Cause)
def test_the_supervisors_cause_comes_with_its_own_remedy(cause: Cause) -> None:
    found = Diagnosis(cause, "what is wrong")
    shown = {"sentence": found.sentence, "remedy": found.remedy}
    line = doctor.supervisor(ILL | {"cause": shown})
    assert (line.text, line.remedy, line.code) == ("healing: what is wrong", cause.value, 69)


@pytest.mark.parametrize("state", ["registering", "starting", "connecting", "stopping"])
def test_without_a_cause_no_remedy_is_guessed(state: str) -> None:
    """A refused certificate or HTTP 429 is no reason to try other ports."""
    assert doctor.supervisor(ILL | {"health": state, "reason": "the API answered 429"}).remedy == ""


@pytest.mark.parametrize(
    ("environ", "loaded", "running", "level"),
    [
        ({"FIREWALL": "off"}, False, True, "note"),
        ({}, True, True, "ok"),
        ({}, False, True, "FAIL"),
        ({}, False, False, "ok"),
    ],
)
def test_a_kill_switch_that_is_off_is_never_ok(
    environ: dict[str, str], loaded: bool, running: bool, level: str
) -> None:
    assert doctor.kill_switch(load(environ), loaded=loaded, running=running).level == level


def test_what_bypasses_the_tunnel_by_setting_is_named() -> None:
    assert not list(doctor.openings(load({})))
    found = [
        str(one)
        for one in doctor.openings(
            load(
                {
                    "WARP_IP_VERSION": "4",
                    "DIRECT_IP_VERSION": "6",
                    "FIREWALL_OUTBOUND_SUBNETS": "192.168.0.0/16",
                }
            )
        )
    ]
    assert "IPv6 bypasses the tunnel" in found[0]
    assert "192.168.0.0/16" in found[1]


async def seen_outside(world: FakeWorld) -> machine.Finding:
    """What doctor finds outside the tunnel while nothing runs."""
    settings = world.settings(WARP_ENDPOINTS="162.159.192.1")
    snapshot = await world.netlink.snapshot()
    (endpoint, *_) = doctor.endpoints(settings, snapshot)
    uplinks = find_uplinks(snapshot, frozenset())
    return await doctor.outside(settings, world.doors, uplinks, endpoint)


@pytest.mark.parametrize(
    ("illness", "cause"),
    [
        ("none", None),
        ("UDP rejected", Cause.UDP_BLOCKED),
        ("UDP dropped", Cause.UDP_BLOCKED),
        ("no way out", Cause.UPLINK_GONE),
        ("clock", Cause.CLOCK_WRONG),
    ],
)
async def test_before_a_start_the_same_causes_are_found_outside(
    tmp_path: Path, anyio_backend: str, illness: str, cause: Cause | None
) -> None:
    world = FakeWorld(tmp_path)
    match illness:
        case "UDP rejected":
            world.http.rejected[ip_address("162.159.192.1")] = OSError(113, "No route to host")
        case "UDP dropped":
            world.http.dns.clear()
        case "no way out":
            world.http.dns.clear()
            world.http.sites.clear()
        case "clock":
            world.http.ahead = 100.0
    found = await seen_outside(world)
    assert found.level == ("FAIL" if cause else "ok")
    assert found.remedy == (cause.value if cause else "")


async def test_a_direct_packet_must_be_rejected(tmp_path: Path, anyio_backend: str) -> None:
    world = FakeWorld(tmp_path)
    settings = world.settings()
    leaks = replace(world.doors, http=FakeHttp({}, {server: {} for server in settings.dns.addresses}))
    answered = await doctor.direct(settings, leaks, "eth0")
    assert (answered.level, answered.code) == ("FAIL", 70)
    assert (await doctor.direct(settings, replace(leaks, http=FakeHttp({})), "eth0")).level == "ok"


@pytest.mark.parametrize(
    ("meminfo", "limit", "level"),
    [
        ("MemAvailable:  500000 kB", "max", "ok"),
        ("MemAvailable:  500000 kB", "67108864\n", "note"),
        ("MemAvailable:  90000 kB", "max", "note"),
        ("", "", "ok"),
    ],
)
def test_memory_is_judged_by_the_smaller_limit(meminfo: str, limit: str, level: str) -> None:
    assert machine.memory(meminfo, limit).level == level


def test_a_rootless_engine_is_noticed() -> None:
    assert machine.container_kind("         0          0 4294967295\n").level == "ok"
    assert machine.container_kind("         0     100000      65536\n").level == "note"


def test_nftables_is_asked_to_check_a_whole_ruleset() -> None:
    asked: list[str] = []

    def run(argv: Sequence[str], text: str) -> str:
        asked.append(text)
        if len(asked) > 1:
            raise OSError("Could not process rule: No such file or directory")
        return ""

    assert machine.nftables(run).level == "ok"
    assert "table inet ss_warp" in asked[0]
    assert (machine.nftables(run).level, machine.nftables(run).code) == ("FAIL", 77)


async def test_before_the_first_start_nothing_of_a_volume_is_judged(
    tmp_path: Path, anyio_backend: str
) -> None:
    world = FakeWorld(tmp_path)
    found = [str(one) async for one in machine.look_before(world.settings(), world.doors)]
    assert not any("port 8388" in line for line in found)
    assert (await machine.look_up(world.settings(), world.doors)).level == "ok"
    world.http.dns.clear()
    assert "(tried IPv4 and IPv6)" in (await machine.look_up(world.settings(), world.doors)).text
    world.netlink.addresses = [one for one in world.netlink.addresses if one.address.version == 4]
    lost = await machine.look_up(world.settings(), world.doors)
    assert (lost.level, lost.code) == ("FAIL", 69)
    assert "no way out in any family (tried IPv4)" in lost.text
    assert "compose.ipv6.yaml" in lost.remedy
    on_host = await machine.look_up(world.settings(NETWORK="host"), world.doors)
    assert "compose.ipv6.yaml" not in on_host.remedy, "there the server's own families count"
    world.netlink.listeners = frozenset({8388})
    found = [str(one) async for one in machine.look_before(world.settings(), world.doors)]
    assert any("port 8388 is in use" in line for line in found)


def test_the_volume_and_who_runs_on_it(tmp_path: Path) -> None:
    found, held = doctor.volume(tmp_path)
    assert (found.level, held) == ("ok", False)
    assert "no usable account yet" in found.text
    pending = {"format": 2, "pending": {"private_key": "AAAA", "api": "https://x", "due": 0}}
    (tmp_path / "account.json").write_text(json.dumps(pending))
    assert "no usable account yet" in doctor.volume(tmp_path)[0].text, "a pending one is none"
    with lock(tmp_path):
        assert doctor.volume(tmp_path)[1]
    missing, _ = doctor.volume(tmp_path / "none")
    assert (missing.level, missing.code) == ("FAIL", 74)


async def test_the_first_endpoint_of_each_family_that_can_be_reached(
    tmp_path: Path, anyio_backend: str
) -> None:
    world = FakeWorld(tmp_path)
    snapshot = await world.netlink.snapshot()
    assert doctor.endpoints(world.settings(), snapshot) == []
    named = "162.159.192.1:500,162.159.192.2,[2606:4700:d0::1]:500,engage.example"
    found = doctor.endpoints(world.settings(WARP_ENDPOINTS=named), snapshot)
    assert [str(one.address) for one in found] == ["2606:4700:d0::1", "162.159.192.1"]
    async with world.serving():
        pass
    assert {one.address for one in doctor.endpoints(world.settings(), snapshot)} == {
        ip_address("162.159.192.6"),
        ip_address("2606:4700:d0::a29f:c006"),
    }
    assert doctor.endpoints(world.settings(), Snapshot()) == []


def test_wrong_settings_are_the_first_thing_it_tells(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ROUTE_MODE", "sideways")
    (tmp_path / "status.json").write_text(json.dumps({}))
    with pytest.raises(SettingsError, match="ROUTE_MODE"):
        command_line(["doctor"], tmp_path)
