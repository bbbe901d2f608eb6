"""examples/sidecar from outside: its sidecar sends all the time what would leak, the bridge is watched."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from docker.models.containers import Container

from tests.conftest import Record
from tests.image.example import Example
from tests.image.internet import NET4, NET6, OUTSIDE, STANDIN, STATION, Internet
from tests.image.sidecar import ENOUGH, by_warp, probed, probes
from tests.lab.product import eventually

PAUSE = 3.0


@pytest.fixture
def control(internet: Internet) -> Iterator[Container]:
    """The sidecar's stand-in with ss-warp's addresses, and no ss-warp."""
    internet.heard()
    with ExitStack() as stack:
        yield internet.run(
            stack,
            command=[*STANDIN, "probe", "8080"],
            environment={"UPLINK": f"{NET4}79"},
            dns=["1.1.1.1"],
            mac_address=f"{STATION}f",
            **internet.placed(79),
        )
    internet.heard()


def test_l01_control_without_ss_warp_every_kind_is_seen(
    internet: Internet, control: Container, record: Record
) -> None:
    """L-01."""
    probed(control, 100)
    seen = internet.heard().leaks
    sent = probes(control)["sent"]
    for kind in ("udp", "tcp", "icmp"):
        assert seen[f"{kind} to 9.9.9.9 {0 if kind == 'icmp' else 9}"] >= 100, seen
    for kind in ("udp", "tcp", "icmp6"):
        assert seen[f"{kind} to 2620:fe::fe {0 if kind == 'icmp6' else 9}"] >= 100, seen
    assert seen["udp to 1.1.1.1 53"] >= 200, seen
    record("seen without ss-warp", f"{sum(seen.values())} frames of {sum(sent.values())} probes")


def test_the_sidecar_comes_out_of_warp_and_its_neighbour_does_not(sidecar: Example) -> None:
    assert by_warp(sidecar.asked("reader"))
    told = sidecar.asked("db")
    assert {warp for _, warp in told.values()} == {"off"}, told


def test_names_of_neighbours_are_known_and_they_are_asked_directly(sidecar: Example) -> None:
    told = sidecar.container("reader").exec_run([*STANDIN, "who", "db", "5432", ""]).output.decode().strip()
    assert told in (sidecar.uplink, f"{NET6}{sidecar.place:x}")


def test_d09_l13_names_from_outside_are_asked_for_by_the_tunnel_alone(
    sidecar: Example, record: Record
) -> None:
    """D-09, L-13: Docker's own resolver asks for its containers, and it does so from inside their network."""
    internet, reader = sidecar.internet, sidecar.container("reader")
    nothing_since(internet)
    internet.cloudflare("DELETE", "/origin/seen")
    probed(reader, 100)
    asked = [one for one in internet.cloudflare("GET", "/origin/seen") if one["protocol"].startswith("dns")]
    heard = internet.heard()
    record("queries at the origin", f"{len(asked)} through WARP, {heard.counts.get('dns', 0)} on the uplink")
    assert len(asked) >= 200
    assert {one["warp"] for one in asked} == {"on"}
    assert heard.leaks == {} and "dns" not in heard.counts


def nothing_since(internet: Internet) -> None:
    """What was heard until now counts too: the sidecar's first frames are among it."""
    assert internet.heard().leaks == {}


def test_d06_the_published_port_answers_and_sees_who_asks(sidecar: Example) -> None:
    """D-06: the tunnel is the default. Docker keeps a client's address, but for one on the host itself."""
    assert sidecar.published(8080) == f"{OUTSIDE}1"
    assert sidecar.published(8080, "127.0.0.1") == f"{NET4}1"


def test_d08_paused_and_back(sidecar: Example, record: Record) -> None:
    """D-08."""
    owner, reader = sidecar.container("ss-warp"), sidecar.container("reader")
    nothing_since(sidecar.internet)
    owner.pause()
    try:
        probed(reader, int(PAUSE * 30))
    finally:
        owner.unpause()
    eventually(lambda: by_warp(sidecar.asked("reader")), "the sidecar is back", 15)
    assert sidecar.internet.heard().leaks == {}


def test_d07_unplugged_and_back(sidecar: Example, record: Record) -> None:
    """D-07: `docker network disconnect` and `connect`."""
    internet, owner, reader = sidecar.internet, sidecar.container("network"), sidecar.container("reader")
    nothing_since(internet)
    internet.network.disconnect(owner)
    probed(reader, 50)
    internet.network.connect(owner, ipv4_address=sidecar.uplink, ipv6_address=f"{NET6}{sidecar.place:x}")
    eventually(lambda: by_warp(sidecar.asked("reader")), "the sidecar is back", 30)
    sidecar.connected()
    assert internet.heard().leaks == {}
    assert sidecar.published(8080) == f"{OUTSIDE}1"


def test_d04_never_in_clear(sidecar: Example, record: Record) -> None:
    """D-04: the sidecar waited for `service_healthy`; none of its packets is in clear, from the first on."""
    reader = sidecar.container("reader")
    eventually(lambda: min(probes(reader)["tried"].values()) >= ENOUGH, "enough probes", 30)
    heard = sidecar.internet.heard()
    record("a sidecar's probes", f"{sum(probes(reader)['tried'].values())}, in clear 0")
    assert heard.leaks == {}
    assert heard.counts["wireguard"] > 0
    assert sidecar.container("ss-warp").attrs["RestartCount"] == 0, "unplugged and paused, it never ended"
