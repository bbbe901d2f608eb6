"""After the switch: would an answer still leave as before? And which ports listen."""

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from entrypoint.errors import PlatformError
from entrypoint.linux.kernel_objects import MAIN_TABLE, Route, Rule
from entrypoint.linux.proc import read_listening
from entrypoint.routing.lookup import reply_routes, require_unchanged_replies
from tests.fakes.netlink import FakeNetlink

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when\n"
NEAR, FAR = ip_address("203.0.113.7"), ip_address("203.0.113.8")


@pytest.mark.anyio
async def test_k12_an_answer_that_would_leave_elsewhere_is_named() -> None:
    netlink = FakeNetlink()
    netlink.plug("eth0", "203.0.113.7/24", "203.0.113.8/24", kind="")
    netlink.plug("eth1", "198.18.7.7/24", kind="")
    netlink.meddle(Route(ip_network("0.0.0.0/0"), MAIN_TABLE, "eth0"))
    before = await reply_routes(netlink, (NEAR, FAR, ip_address("9.9.9.9")))
    assert before == {NEAR: "eth0", FAR: "eth0", ip_address("9.9.9.9"): None}
    await require_unchanged_replies(netlink, before)
    netlink.meddle(
        Rule(4, 9, 77, source=ip_network("203.0.113.8/32")), Route(ip_network("0.0.0.0/0"), 77, "eth1")
    )
    with pytest.raises(PlatformError, match=r"203\.0\.113\.8 by eth1 instead of eth0"):
        await require_unchanged_replies(netlink, before)
    await require_unchanged_replies(netlink, {NEAR: "eth0"})


def test_listening_ports_of_both_families(tmp_path: Path) -> None:
    (tmp_path / "tcp").write_text(HEAD + "   0: 00000000:0016 00000000:0000 0A 0\n")
    assert read_listening(tmp_path) == {22}
    rows = "   0: 00000000000000000000000000000000:1F90 0:0000 0A 0\n   1: 0:0050 0:C001 01 0\n"
    (tmp_path / "tcp6").write_text(HEAD + rows)
    assert read_listening(tmp_path) == {22, 8080}
