"""One address family in the tunnel, one that may leave directly, and hosts that have only one (L-04)."""

import http.client
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.cloudflare.netns import run
from tests.conftest import Record
from tests.lab.client import Client, Reached, Target
from tests.lab.probes import Prober
from tests.lab.product import Product
from tests.lab.scene import TRACE4, TRACE6, Scene, client_of, exit_of, serving, watched
from tests.lab.senders import ANYBODY, PUBLIC, THE_SERVERS, Kind, seen
from tests.lab.topology import HOST, WIRE, Lab
from tests.lab.visitors import traced
from tests.lab.wire import Wire

pytestmark = pytest.mark.lab

TRACES: dict[int, Target] = {4: TRACE4, 6: TRACE6}
NAMES = {4: "v4.origin.test", 6: "v6.origin.test"}
BOTH = "www.cloudflare.com"
LIMIT = 1.0
PROBES = int(os.environ.get("LAB_PROBES", "1000")) // 4
FLUSH_RULES = (
    "for f in 4 6; do for p in 16 17 18 19 20 32757 32758 32759 32760 32761 32764; do "
    "while ip -$f rule del priority $p 2>/dev/null; do :; done; done; done"
)


def environment(place: str, mode: str, carried: int, direct: str = "none") -> dict[str, str]:
    return {
        "NETWORK": place,
        "ROUTE_MODE": mode,
        "WARP_IP_VERSION": str(carried),
        "DIRECT_IP_VERSION": direct,
    }


def kinds(mode: str, version: int) -> list[Kind]:
    """Return what must not leave by the uplink."""
    everybody = ANYBODY if mode == "full" else ()
    return [one for one in (*everybody, *THE_SERVERS) if one.version == version]


def refused(client: Client, target: Target) -> float:
    """Return the seconds until a request through Shadowsocks has failed."""
    begun = time.monotonic()
    with pytest.raises((OSError, http.client.HTTPException)):
        client.trace(target, timeout=5)
    return time.monotonic() - begun


def refused_here(lab: Lab, version: int) -> float:
    """Return the seconds until a connection that H itself opens has failed."""
    with lab.inside("H"):
        sock = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    with sock:
        sock.settimeout(5)
        begun = time.monotonic()
        with pytest.raises(OSError, match=r".") as failure:
            sock.connect((PUBLIC[version == 6], 80))
        assert not isinstance(failure.value, TimeoutError)
        return time.monotonic() - begun


def echoed(client: Client, target: Target) -> str:
    """Return the address from which a datagram through Shadowsocks came to `target`."""
    with closing(client.udp()) as association:
        association.send(b"hello", target)
        return association.receive()[2].decode().partition("|")[2].split()[0]


def try_all(lab: Lab, which: list[Kind]) -> int:
    """Probe until each kind was tried often; return how many went or were refused."""
    with Prober(lab, which) as prober:
        return prober.probed(PROBES)


@pytest.mark.parametrize("carried", [4, 6])
@pytest.mark.parametrize(("place", "mode"), [("own", "full"), ("host", "full"), ("host", "proxy")])
def test_l04_the_family_without_a_tunnel_is_refused_at_once(
    lab: Lab, tmp_path: Path, place: str, mode: str, carried: int, record: Record
) -> None:
    other = 10 - carried
    with watched(lab, first_run=True), serving(lab, tmp_path, environment(place, mode, carried)) as scene:
        own = Reached(exit_of(lab, TRACES[carried]), "on")
        assert own == scene.client.trace(TRACES[carried]) == scene.client.trace(NAMES[carried])
        assert scene.client.trace(BOTH) == own, "a name of both families"
        took = {str(target): refused(scene.client, target) for target in (TRACES[other], NAMES[other])}
        if mode == "full":
            took["a socket of its own"] = refused_here(lab, other)
        tried = try_all(lab, kinds(mode, other))
        assert scene.product.status()["exit"][f"ipv{other}"] is None
    record(
        f"L-04, {place}, {mode}, IPv{carried} carried: IPv{other} refused after",
        f"{max(took.values()) * 1000:.0f} ms (slowest; limit 1 s), 0 of {tried} probes in clear",
    )
    assert max(took.values()) <= LIMIT, took


@pytest.mark.parametrize(
    ("place", "mode", "carried"),
    [("own", "full", 4), ("own", "full", 6), ("own", "proxy", 4), ("host", "full", 4), ("host", "proxy", 6)],
)
def test_a_family_that_may_leave_directly_does_and_the_other_never(
    lab: Lab, tmp_path: Path, place: str, mode: str, carried: int, record: Record
) -> None:
    direct = 10 - carried
    with serving(lab, tmp_path, environment(place, mode, carried, str(direct))) as scene:
        works(scene, mode, carried)
        assert directly(scene, mode, direct, NAMES[direct])
        (engine,) = scene.product.children("ss-warp-wireguard")
        os.kill(scene.product.pid, signal.SIGSTOP)
        os.kill(engine, signal.SIGKILL)
        loaded = lab.run("H", ["nft", "list", "table", "inet", "ss_warp"]).stdout
        which = kinds(mode, carried)
        with Wire(lab.name("R"), WIRE) as wire:
            tried = try_all(lab, which)
            assert directly(scene, mode, direct, TRACES[direct]), "it needs no tunnel"
            lab.run("H", ["nft", "delete", "table", "inet", "ss_warp"])
            tried += try_all(lab, [one for one in which if not one.bound])
            lab.run("H", ["nft", "-f", "-"], text=loaded)
            lab.run("H", ["sh", "-c", FLUSH_RULES])
            tried += try_all(lab, which)
            assert not seen(wire, which)
            lab.run("H", ["nft", "delete", "table", "inet", "ss_warp"])
            try_all(lab, [one for one in which if not one.bound])
            assert seen(wire, which), "with both gone they are seen"
        os.kill(scene.product.pid, signal.SIGCONT)
    record(
        f"{place}, {mode}, IPv{direct} direct: engine dead, nft gone, rules gone", f"0 of {tried} in clear"
    )


def works(scene: Scene, mode: str, carried: int) -> None:
    target, own = TRACES[carried], exit_of(scene.lab, TRACES[carried])
    assert scene.client.trace(target) == Reached(own, "on")
    assert echoed(scene.client, target) == own
    if mode == "full":
        assert traced(scene.lab, target) == Reached(own, "on")


def directly(scene: Scene, mode: str, direct: int, target: Target) -> bool:
    """Say whether TCP and UDP of this family leave with H's own address."""
    here = str(HOST[direct == 6])
    for found in (scene.client.trace(target), traced(scene.lab, TRACES[direct]) if mode == "full" else None):
        assert found in (None, Reached(here, "off"))
    return echoed(scene.client, TRACES[direct]) == here


@pytest.fixture(autouse=True)
def opened(lab: Lab) -> Iterator[None]:
    """In its own placement it stays closed, which a host's would refuse to take over."""
    yield
    for table in ("inet ss_warp", "arp ss_warp"):
        lab.run("H", ["nft", "delete", "table", *table.split()], check=False)


@pytest.fixture
def half(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lab]:
    """A lab whose host has one family alone."""
    with Lab(tmp_path / "cloudflare") as lab:
        run("ip", "-n", lab.name("H"), f"-{10 - request.param}", "address", "flush", "dev", "eth0")
        yield lab


@pytest.mark.parametrize(("half", "place"), [(4, "own"), (6, "own"), (6, "host")], indirect=["half"])
def test_a_host_with_one_family_gets_both(
    half: Lab, place: str, tmp_path: Path, request: pytest.FixtureRequest, record: Record
) -> None:
    """Where the family is IPv6."""
    has: int = request.node.callspec.params["half"]
    more: Mapping[str, str] = {"NETWORK": place}
    with (
        watched(half, first_run=True),
        Product(half, tmp_path / "state", environment=more) as product,
        client_of(half, product.serving(), tmp_path, HOST[has == 6]) as client,
    ):
        exits = {version: client.trace(target) for version, target in TRACES.items()}
        for version, target in TRACES.items():
            assert exits[version] == Reached(exit_of(half, target), "on")
            assert ip_address(echoed(client, target)) == ip_address(exits[version].ip)
    record(f"IPv{has} alone, {place}: exits", " and ".join(one.ip for one in exits.values()))
