"""ss-warp ends: what becomes of a sidecar, in a network that outlives ss-warp and in one that does not.

examples/sidecar has a third container that owns the network: an upgrade is a pause. In examples/browser
ss-warp owns it: the sidecar keeps the network it joined, which has lost its uplink and stays closed, and a
new ss-warp has another one. Every end leaves such an orphan here, which goes on sending all the time;
test_examples_left_alone.py looks at it again.
"""

import io
import time
from collections.abc import Iterator
from functools import partial

import pytest
from docker import DockerClient
from docker.models.containers import Container

from tests.conftest import Record
from tests.image.compose import IMAGE
from tests.image.example import Example
from tests.image.internet import NET4
from tests.image.made import LABEL
from tests.image.sidecar import Ends, by_warp, probed, probes
from tests.lab.product import eventually

PAUSE = 3.0
"""The quickest of all counts: what else the machine does in those seconds is not ours."""
UNHEALTHY = 30.0
BACK = 10.0


@pytest.fixture
def newer(engine: DockerClient) -> Iterator[str]:
    """Another image: the same, with one more label."""
    text = f"FROM {IMAGE}\nLABEL {LABEL}=newer\n"
    image, _ = engine.images.build(fileobj=io.BytesIO(text.encode()), tag=f"{IMAGE}-newer", rm=True)
    yield image.tags[0]
    engine.images.remove(f"{IMAGE}-newer", force=True)


def test_l25_upgrade_in_the_network_of_a_third(sidecar: Example, newer: str, record: Record) -> None:
    """L-25: a new image and `up ss-warp`, there and back: ss-warp alone is replaced, the sidecar stays."""
    internet, link = sidecar.internet, sidecar.link()
    stay = {name: sidecar.container(name).id for name in ("network", "reader", "db")}
    before, outages, reader = internet.registrations(), list[float](), sidecar.container("reader")
    for image in (newer, IMAGE):
        probed(reader, 50)
        old, known = sidecar.container("ss-warp").id, len(probes(reader)["silences"])
        sidecar.config["services"]["ss-warp"]["image"] = image
        sidecar.up("ss-warp")
        assert sidecar.container("ss-warp").id != old
        sidecar.connected()
        eventually(lambda: by_warp(sidecar.asked("reader")), "the sidecar is back", 10)
        outages.append(max(eventually(partial(silences, reader, known), "it was silent")))
    assert {name: sidecar.container(name).id for name in stay} == stay
    record(
        "silence of a sidecar that pings, by upgrade",
        f"{', '.join(f'{one:.1f}' for one in outages)} s (limit {PAUSE:.0f})",
    )
    assert sidecar.link() == link
    assert internet.registrations() == before
    assert internet.heard().leaks == {}
    assert min(outages) <= PAUSE


def silences(sidecar: Container, known: int) -> list[float]:
    """Return the silences after those that are known."""
    told: list[float] = probes(sidecar)["silences"]
    return told[known:]


def test_the_browser_leaves_by_warp_and_its_page_is_for_this_machine(browser: Example) -> None:
    assert by_warp(browser.asked("browser"))
    assert browser.published(5800, "127.0.0.1") == f"{NET4}1"
    assert "refused" in browser.published(5800)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL", "OOM"])
def test_l23_d02_d05_the_owner_ends_and_the_sidecar_is_alone(
    browser: Example, ends: Ends, record: Record, how: str
) -> None:
    """L-23, D-05; D-02 for SIGTERM."""
    browser.internet.heard()
    record(f"{how}: ended and connected again after", f"{ends.end(how):.1f} s")
    orphan = ends.orphans[-1].sidecar
    orphan.reload()
    assert orphan.status == "running"
    assert "eth0" not in orphan.exec_run(["ip", "-o", "link"]).output.decode()
    told = browser.asked(orphan, timeout=1.5)
    record(f"{how}: what an orphan gets", ", ".join(sorted({word for word, _ in told.values()})))
    assert {word for _, word in told.values()} == {"error"}, told
    assert browser.internet.heard().leaks == {}


def test_d10_docker_is_told_of_a_silent_edge_and_of_its_return(sidecar: Example, record: Record) -> None:
    """D-10: N-03, an edge that shakes hands and carries nothing."""
    owner, internet = sidecar.container("ss-warp"), sidecar.internet

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
