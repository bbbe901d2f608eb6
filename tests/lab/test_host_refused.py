"""A start on a host that cannot succeed, and a second one beside the first (K-11, K-14)."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Record
from tests.lab.host_running import refused, settled
from tests.lab.host_topology import ADDRESSES, SSH, dump, host_lab
from tests.lab.hosts import on_host
from tests.lab.kill_points import Point, points, strace
from tests.lab.scene import TRACE4, Scene, client_of
from tests.lab.senders import SSSERVER, owned
from tests.lab.topology import HOST, Lab
from tests.lab.visitors import Session, greeted

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with host_lab(tmp_path_factory.mktemp("cloudflare")) as lab:
        yield lab


@pytest.fixture(scope="module")
def state(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with an account."""
    directory = tmp_path_factory.mktemp("kept") / "state"
    with on_host(lab, directory, "full") as product:
        product.serving()
    return directory


def refusing(point: Point, code: str) -> tuple[str, ...]:
    """Return what has the kernel refuse this call."""
    inject = f"inject={point.call}:error={code}:when={point.number}"
    return (*strace("/dev/null", point.call), "-e", inject)


def test_k11_whatever_is_not_permitted_all_is_as_before(
    lab: Lab, state: Path, tmp_path: Path, record: Record
) -> None:
    """The first device, a rule for answers, the tunnel's rule, and a TUN: each is refused once."""
    before = dump(lab)
    product = on_host(lab, state, "full")
    every = points(product, tmp_path)
    rules = [one for one in every if one.what == "a rule"]
    first = next(one for one in every if one.what == "netlink")
    tun = next(one for one in every if one.what == "a TUN")
    half = len(rules) // 2
    session = Session(lab, HOST[0])
    for point in first, tun, rules[0], rules[4], rules[half - 1]:
        product.tracer = refusing(point, "EPERM")
        refused(product, 77, "NET_ADMIN")
        assert dump(lab) == before, point
    assert not session.broken
    record(
        "K-11: EPERM at five steps",
        f"exit 77, one line, nothing left; {session.longest * 1000:.0f} ms silence",
    )
    session.close()


def test_k10_ssservers_user_is_taken(lab: Lab, state: Path, tmp_path: Path) -> None:
    """Its packets would be taken for ssserver's, and a host's user of that number would lose its network."""
    with lab.inside("H"), owned(SSSERVER):
        theirs = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        theirs.bind(("127.0.0.1", 0))
    with theirs:
        before = dump(lab)
        for mode in "full", "proxy":
            refused(on_host(lab, tmp_path / mode, mode), 78, "user 58388: another program has sockets")
        assert dump(lab) == before
    with on_host(lab, state, "proxy") as product:
        product.serving()


def test_k11_a_read_only_proc_sys_is_no_matter(lab: Lab, state: Path) -> None:
    before = dump(lab)
    product = on_host(lab, state, "full")
    product.prelude = "mount --bind -o ro /proc/sys /proc/sys"
    with product:
        product.serving()
        for address in ADDRESSES:
            assert greeted(lab, address, SSH), address
    assert dump(lab) == before


def test_k14_a_second_one_is_refused_and_the_first_does_not_notice(
    lab: Lab, state: Path, tmp_path: Path, record: Record
) -> None:
    before = dump(lab)
    with on_host(lab, state, "full") as first:
        good = settled(lab, first.serving())
        with client_of(lab, first, tmp_path) as client:
            scene = Scene(lab, first, client)
            same = on_host(lab, state, "full", HEALTH_SERVER_ADDRESS="127.0.0.1:9998")
            refused(same, 75, "is in use by", str(state))
            names = {"WIREGUARD_INTERFACE": "wg7", "ROUTE_TABLE": "51877", "SHADOWSOCKS_PORT": "8399"}
            names["HEALTH_SERVER_ADDRESS"] = "127.0.0.1:9998"
            for mode in "full", "proxy":
                other = on_host(lab, tmp_path / f"other-{mode}", mode, **names)
                with other:
                    assert other.ended(10) == 78, other.log
                assert "inet ss_warp exists and is not on record" in other.log
                assert "Traceback" not in other.log
            assert settled(lab, first) == good
            assert scene.reaches(TRACE4)
        assert first.stop() == 0
    assert dump(lab) == before
    record(
        "K-14: a second ss-warp", "same volume: 75; another name: 78; the first serves on, and stops clean"
    )
