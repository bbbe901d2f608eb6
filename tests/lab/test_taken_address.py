"""172.16.0.2 is the address of every consumer device, and of many a network: whoever has it keeps it.

H  eth0 172.16.0.5/24 as well ── R 172.16.0.2, which answers on UDP 53 (AWS's resolver in a VPC 172.16.0.0/16)
"""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.host_topology import host_lab
from tests.lab.product import Product
from tests.lab.scene import TRACE4
from tests.lab.topology import WIRE, Lab
from tests.lab.visitors import traced

pytestmark = pytest.mark.lab
TAKEN = "172.16.0.2"


@contextmanager
def resolver(lab: Lab) -> Iterator[None]:
    lab.run("R", ["ip", "address", "add", f"{TAKEN}/24", "dev", WIRE])
    with lab.inside("R"):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((TAKEN, 53))

    def answer() -> None:
        while (asked := sock.recvfrom(100))[0] != b"stop":
            sock.sendto(b"resolver", asked[1])

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield
    finally:
        with lab.inside("R"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stop:
            stop.sendto(b"stop", (TAKEN, 53))
        thread.join(5)
        sock.close()


def answers(lab: Lab) -> bool:
    with lab.inside("H"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(2)
        sock.sendto(b"who", (TAKEN, 53))
        return sock.recv(100) == b"resolver"


@pytest.mark.parametrize("mode", ["proxy", "full"])
def test_a_host_still_reaches_whoever_has_the_address(tmp_path: Path, mode: str) -> None:
    with host_lab(tmp_path / "cloudflare", containers=False) as lab, resolver(lab):
        lab.run("H", ["ip", "address", "add", "172.16.0.5/24", "dev", "eth0"])
        assert answers(lab)
        with Product(lab, tmp_path / "state", environment={"NETWORK": "host", "ROUTE_MODE": mode}) as product:
            product.serving()
            assert answers(lab), product.log
            assert "translating it" in product.log
            if mode == "full":
                assert traced(lab, TRACE4), "through the tunnel, by IPv4"
        assert answers(lab)


def test_a_container_that_has_the_address_serves(tmp_path: Path) -> None:
    with Lab(tmp_path / "cloudflare") as lab:
        lab.run("H", ["ip", "address", "add", f"{TAKEN}/24", "dev", "eth0"])
        with Product(lab, tmp_path / "state") as product:
            product.serving()
            assert traced(lab, TRACE4), "through the tunnel, by IPv4"
            with lab.inside("C"), socket.socket() as client:
                client.settimeout(5)
                client.connect(("203.0.113.7", 8388))
