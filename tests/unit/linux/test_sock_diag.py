"""Which sockets are outgoing connections, and closing them for real."""

import socket
import struct
from ipaddress import ip_address

import pytest

from entrypoint.linux.sock_diag import LISTEN, OpenSocket, outgoing

ESTABLISHED, TCP, UDP = 1, socket.IPPROTO_TCP, socket.IPPROTO_UDP
HERE, FAR = "203.0.113.7", "9.9.9.9"


def opened(
    here: int, there: int, far: str = FAR, *, state: int = ESTABLISHED, protocol: int = TCP, mark: int = 0
) -> OpenSocket:
    ends = b"".join(ip_address(one).packed.ljust(16, b"\0") for one in (HERE, far))
    identity = struct.pack("!HH", here, there) + ends + bytes(12)
    return OpenSocket(socket.AF_INET, protocol, state, identity, mark)


def closed(*sockets: OpenSocket) -> list[int]:
    return [one.local_port for one in outgoing(sockets, lambda _local, _remote: False)]


def test_what_nothing_listens_for_began_here() -> None:
    server = opened(8443, 0, state=LISTEN)
    assert closed(server, opened(8443, 50000), opened(40001, 443)) == [40001]
    bound = opened(53, 0, protocol=UDP, state=7)
    assert closed(bound, opened(53, 50000, protocol=UDP), opened(40002, 443, protocol=UDP)) == [40002]


def test_ssh_lives_although_sshd_restarts() -> None:
    assert closed(opened(22, 50000)) == []


@pytest.mark.parametrize("far", ["127.0.0.1", "10.0.0.7", "172.17.0.2", "169.254.169.254"])
def test_private_neighbours_stay_connected(far: str) -> None:
    assert closed(opened(40003, 5432, far)) == []


def test_marked_and_allowed_ones_stay() -> None:
    assert closed(opened(40004, 443, mark=0x80000)) == []
    kept = outgoing([opened(40005, 443)], lambda local, remote: (str(local), str(remote)) == (HERE, FAR))
    assert list(kept) == []
