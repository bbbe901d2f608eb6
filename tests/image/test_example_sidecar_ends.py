"""examples/sidecar when its owner goes: what becomes of the sidecar.

A sidecar keeps the network it joined. When ss-warp's container ends that network loses its uplink and
stays closed as it was; when it starts again it has another one. Every end leaves such an orphan here,
which goes on sending all the time; test_examples_left_alone.py looks at it again.
"""

import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from docker.models.containers import Container

from tests.conftest import Record
from tests.image.compose import TEST_IMAGE
from tests.image.example import STANDIN, Example
from tests.image.internet import Internet
from tests.image.made import LABEL
from tests.image.sidecar import Ends, by_warp, probed, probes
from tests.lab.product import eventually

OUTAGE = 5.0
UPGRADES = 2
"""The quicker one counts: what else the machine does in that second is not ours."""
UNHEALTHY = 30.0
BACK = 10.0


@pytest.fixture(scope="module")
def third(internet: Internet) -> Iterator[Example]:
    """The same, in the network of a third container, with the health check as users have it."""
    internet.heard()
    stand_in = {"reader": [*STANDIN, "probe", "8080"], "db": [*STANDIN, "serve", "5432"]}
    with Example(
        internet, "sidecar", stand_in, overlay=in_the_network_of_a_third, number=1, hasty=False
    ) as made:
        yield made


def in_the_network_of_a_third(config: dict[str, Any]) -> None:
    """Let a container that does nothing own the network."""
    product, reader = (config["services"][name] for name in ("ss-warp", "reader"))
    owned = ("networks", "mac_address", "ports", "dns", "sysctls")
    config["services"]["network"] = {
        "image": TEST_IMAGE,
        "command": ["sleep", "infinity"],
        "healthcheck": {"disable": True},
        "init": True,
        "labels": {LABEL: ""},
        **{name: product.pop(name) for name in owned},
    }
    product["network_mode"] = reader["network_mode"] = "service:network"


def test_l25_upgrade_in_the_network_of_a_third(third: Example, record: Record) -> None:
    """L-25: with a network that outlives it, a new ss-warp takes over from the old one; the sidecar stays."""
    internet, reader, link = third.internet, third.container("reader"), third.link()
    before, outages = internet.registrations(), []
    for _ in range(UPGRADES):
        probed(reader, 50)
        known = len(probes(reader)["silences"])
        third.up("--force-recreate", "--no-deps", "ss-warp")
        third.connected()
        eventually(lambda: by_warp(third.asked("reader")), "the sidecar is back", 10)
        outages.append(max(eventually(partial(silences, reader, known), "it was silent")))
    assert third.container("reader").id == reader.id
    record(
        "silence of a sidecar that pings, by upgrade",
        f"{', '.join(f'{one:.1f}' for one in outages)} s (limit {OUTAGE:.0f})",
    )
    assert third.link() == link
    assert internet.registrations() == before
    assert internet.heard().leaks == {}
    assert min(outages) <= OUTAGE


def silences(sidecar: Container, known: int) -> list[float]:
    """Return the silences after those that are known."""
    told: list[float] = probes(sidecar)["silences"]
    return told[known:]


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "OOM"])
def test_l23_d02_d05_the_owner_ends_and_the_sidecar_is_alone(
    sidecar: Example, ends: Ends, record: Record, how: str
) -> None:
    """L-23, D-05; D-02 for SIGTERM."""
    sidecar.internet.heard()
    record(f"{how}: ended and connected again after", f"{ends.end(how):.1f} s")
    orphan = ends.orphans[-1].sidecar
    orphan.reload()
    assert orphan.status == "running"
    assert "eth0" not in orphan.exec_run(["ip", "-o", "link"]).output.decode()
    told = sidecar.asked(orphan, timeout=1.5)
    record(f"{how}: what an orphan gets", ", ".join(sorted({word for word, _ in told.values()})))
    assert {word for _, word in told.values()} == {"error"}, told
    assert sidecar.internet.heard().leaks == {}


def test_d10_docker_is_told_of_a_silent_edge_and_of_its_return(third: Example, record: Record) -> None:
    """D-10: N-03, an edge that shakes hands and carries nothing."""
    owner, internet = third.container("ss-warp"), third.internet

    def health(word: str) -> bool:
        owner.reload()
        return bool(owner.attrs["State"]["Health"]["Status"] == word)

    internet.heard()
    internet.cloudflare("PATCH", "/edge/faults", {"mute": [4]})
    try:
        began = time.monotonic()
        eventually(lambda: health("unhealthy"), "unhealthy", UNHEALTHY)
        silent = time.monotonic()
    finally:
        internet.cloudflare("DELETE", "/edge/faults")
    healed = time.monotonic()
    eventually(lambda: health("healthy"), "healthy", BACK)
    back = time.monotonic() - healed
    record("unhealthy and healthy after", f"{silent - began:.1f} s and {back:.1f} s (limits 30 and 10)")
    assert internet.heard().leaks == {}
    assert owner.attrs["RestartCount"] == 0, "what can be repaired ends nothing"
