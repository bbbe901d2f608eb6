"""A host whose networking is restarted, whose addresses and filters change (K-05, K-09, K-16, K-17)."""

import itertools
import re
import socket
import time
from contextlib import suppress
from ipaddress import ip_address

import pytest

from tests.conftest import Record
from tests.lab.client import Client
from tests.lab.host_running import SERVER, again, client, kernel, lab, logged_in, mode, product, settled
from tests.lab.host_topology import ADDRESSES, DOCKERS, SECOND_NIC, SSH, TCP_PUBLISHED, UDP
from tests.lab.probes import Pinger
from tests.lab.product import Product, eventually
from tests.lab.scene import TRACE4, Scene
from tests.lab.topology import Lab
from tests.lab.visitors import echoes, greeted, traced
from tests.pace import longer

__all__ = ["client", "lab", "mode", "product"]  # fixtures

pytestmark = pytest.mark.lab

METADATA = ip_address("169.254.169.254")

NETWORKING = (
    "ip link set eth0 down; ip address flush dev eth0; ip link set eth0 up; "
    "ip address add 203.0.113.7/24 dev eth0; ip address add 203.0.113.8/24 dev eth0; "
    "ip address add 2001:db8:7::7/64 dev eth0 nodad; ip address add 2001:db8:7::8/64 dev eth0 nodad; "
    "ip route add default via 203.0.113.1; ip -6 route add default via 2001:db8:7::1"
)
DOCKER = (
    "iptables -t nat -F; iptables -t nat -X DOCKER; ip link set docker0 down; ip link set docker0 up; "
    "iptables-restore <<'END'\n" + DOCKERS + "END\n"
)
UFW = "iptables -F; iptables -A INPUT -i eth0 -p tcp --dport 22 -j ACCEPT; ip6tables -F; iptables -F INPUT"


@pytest.mark.parametrize("what", ["docker", "ufw", "networking"])
def test_k16_restarted_by_others(
    lab: Lab, mode: str, product: Product, client: Client, what: str, record: Record
) -> None:
    scene = Scene(lab, product, client)
    with logged_in(lab) as sessions:
        lab.run("H", ["sh", "-c", {"docker": DOCKER, "ufw": UFW, "networking": NETWORKING}[what]])
        took = again(lambda: scene.reaches(TRACE4), "the chain works", 10)
        for address in ADDRESSES:
            assert greeted(lab, address, SSH), address
        assert greeted(lab, SERVER, TCP_PUBLISHED)
        longest = max(one.longest for one in sessions)
    record(
        f"K-16, {mode}: {what} restarted",
        f"0 of {len(ADDRESSES)} sessions lost, longest silence {longest * 1000:.0f} ms; "
        f"the chain works after {took:.2f} s",
    )


CELLS = [*({"all": a, "eth0": e, "wg0": w} for a, e, w in itertools.product((0, 1, 2), repeat=3))]
VARIANTS = (("arp_filter", 1), ("accept_local", 1), ("arp_ignore", 2), ("src_valid_mark", 1))


def test_k09_whatever_the_kernel_filters(
    lab: Lab, mode: str, product: Product, client: Client, record: Record
) -> None:
    scene, cells = Scene(lab, product, client), 0

    def works(cell: object) -> None:
        for address in ADDRESSES:
            assert greeted(lab, address, SSH), (cell, address)
        assert greeted(lab, SERVER, TCP_PUBLISHED), cell
        assert echoes(lab, ADDRESSES[0], UDP), cell
        eventually(lambda: scene.reaches(TRACE4), f"{cell}: the chain works")
        out = traced(lab, TRACE4)
        assert out is not None, cell
        assert out.warp == ("on" if mode == "full" else "off"), cell

    before = sysctls(lab)
    try:
        for cell in CELLS:
            for where, value in cell.items():
                sysctl(lab, f"net.ipv4.conf.{where}.rp_filter", value)
            works(cell)
            cells += 1
        for name, value in VARIANTS:
            for where in "all", "eth0":
                sysctl(lab, f"net.ipv4.conf.{where}.{name}", value)
            works((name, value))
            cells += 1
    finally:
        for line in before:
            name, _, number = line.partition(" = ")
            sysctl(lab, name, int(number))
    record(f"K-09, {mode}: rp_filter, arp_filter, accept_local", f"{cells} of {cells} cells work")


def sysctl(lab: Lab, name: str, value: int) -> None:
    lab.sysctl("H", **{name.removeprefix("net.").replace(".", "__"): value})


def sysctls(lab: Lab) -> list[str]:
    names = "rp_filter|arp_filter|accept_local|arp_ignore|src_valid_mark"
    text = lab.run(
        "H", ["sh", "-c", f"sysctl -a 2>/dev/null | grep -E '^net.ipv4.conf.(all|eth0|wg0).({names}) '"]
    )
    return text.stdout.splitlines()


def test_k17_metadata_for_the_host_alone(
    lab: Lab, mode: str, product: Product, client: Client, record: Record
) -> None:
    """R plays the cloud: it has 169.254.169.254."""
    tries = 5
    lab.run("R", ["ip", "address", "add", "169.254.169.254/32", "dev", "lo"])
    try:
        with lab.inside("R"):
            server = socket.create_server(("169.254.169.254", 80))
        with server:
            server.settimeout(3)
            for _ in range(tries):
                with lab.inside("H"):
                    caller = socket.create_connection(("169.254.169.254", 80), 3)
                asked, (whom, _) = server.accept()
                assert whom == "203.0.113.7"
                caller.close()
                asked.close()
            for _ in range(tries):
                # The SOCKS side says yes before anybody has been asked.
                with suppress(ConnectionError), client.tcp(METADATA, 80, 3) as asking:
                    assert asking.recv(1) == b""
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
    finally:
        lab.run("R", ["ip", "address", "del", "169.254.169.254/32", "dev", "lo"])
    record(f"K-17, {mode}: the cloud's metadata", f"host {tries} of {tries}, clients 0 of {tries}")


@pytest.mark.vm
def test_k05_addresses_change(lab: Lab, mode: str, product: Product, client: Client, record: Record) -> None:
    """A lease is renewed: the new address comes, five seconds later at the latest the old one goes."""
    new, old = "203.0.113.77", "203.0.113.7"

    def listens(address: str) -> bool:
        return any(f"tcp {address}:8388" in one for one in product.status()["shadowsocks"]["listening"])

    def ruled(address: str) -> bool:
        return mode == "proxy" or any(f"from {address} lookup" in line for line in kernel(lab))

    with logged_in(lab, SERVER, SECOND_NIC), Pinger(client, TRACE4) as pinger:
        pinger.again(time.monotonic(), 5)
        lab.run("H", ["ip", "address", "add", f"{new}/24", "dev", "eth0"])
        followed = again(lambda: ruled(new) and listens(new), "rules and listeners follow", 10)
        assert greeted(lab, new, SSH)
        pinger.again(time.monotonic(), 5)
        lab.run("H", ["ip", "address", "del", f"{old}/24", "dev", "eth0"])
        removed = time.monotonic()
        left = again(lambda: mode == "proxy" or not ruled(old), "the old rule goes", 10)
        traffic = pinger.again(removed, 10)
    with logged_in(lab, SERVER):
        lab.run("H", ["ip", "address", "add", f"{old}/24", "dev", "eth0"])
        back = again(lambda: ruled(old) and listens(old), "the old address is back", 10)
        lab.run("H", ["ip", "address", "del", f"{new}/24", "dev", "eth0"])
        eventually(lambda: mode == "proxy" or not ruled(new), "as before")
    record(
        f"K-05, {mode}: another address",
        f"rule and listeners after {followed:.2f} s, again {back:.2f} s; the old rule gone {left:.2f} s; "
        f"traffic {traffic:.2f} s after the old address went (limits 2 s)",
    )
    assert max(followed, left, traffic, back) <= longer(2)


def test_all_that_was_done_to_it_left_it_whole(lab: Lab, product: Product) -> None:
    """And a stop is as clean as ever."""
    settled(lab, product)
    assert product.stop() == 0, product.log
    assert "Traceback" not in product.log
    left = [line for line in kernel(lab) if re.search(r"ss_warp|51820|3275\d:|3276[014]:|ssw-null", line)]
    assert not left
