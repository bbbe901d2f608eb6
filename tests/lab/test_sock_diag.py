"""Closing connections for real: both transports and families; what came from outside lives."""

import socket
from ipaddress import IPv4Address, IPv6Address

import pytest

from entrypoint.linux.sock_diag import close_outgoing
from tests.cloudflare.netns import Namespace

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("address", ["198.51.100.9", "2001:db8:9::9"])
def test_the_end_that_began_is_closed_and_the_other_is_not(address: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    seen: list[tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]] = []

    def allowed(
        local: IPv4Address | IPv6Address, remote: IPv4Address | IPv6Address, spare: bool = False
    ) -> bool:
        seen.append((local, remote))
        return spare

    namespace = Namespace.new()
    namespace.ip("link set lo up", f"address add {address} dev lo{' nodad' if ':' in address else ''}")
    try:
        with namespace.entered():
            server = socket.create_server((address, 5000), family=family)
            client = socket.create_connection((address, 5000))
            inside, _ = server.accept()
            datagrams = socket.socket(family, socket.SOCK_DGRAM)
            datagrams.connect((address, 4500))
            marked = socket.socket(family, socket.SOCK_DGRAM)
            marked.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, 0x1000)
            marked.connect((address, 4501))
            assert close_outgoing(lambda local, remote: allowed(local, remote, spare=True)) == 0
            assert client.send(b"still open") == 10
            assert close_outgoing(allowed) == 2
            for ended in (client, datagrams):
                with pytest.raises(OSError, match=r"abort|Destination address"):
                    ended.send(b"x")
            assert marked.send(b"x") == 1
            assert inside.fileno() >= 0
            for one in (server, client, inside, datagrams, marked):
                one.close()
    finally:
        namespace.close()
    assert {str(remote) for _, remote in seen} == {address}
