"""Zero Trust end to end, in the lab of topology.py: enrolled by link or by service token.

The edge is in the organisation's ranges: 162.159.193.0/24 and 2606:4700:100::/48.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.lab.product import Product
from tests.lab.topology import Lab

pytestmark = pytest.mark.lab
SERVICE = {
    "WARP_ORG": "acme",
    "WARP_AUTH_CLIENT_ID": "0123456789abcdef.access",
    "WARP_AUTH_CLIENT_SECRET": "the-service-secret",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    state = tmp_path_factory.mktemp("cloudflare")
    four, six = ip_network("162.159.193.0/24"), ip_network("2606:4700:100::/48")
    with Lab(state, endpoints4=four, endpoints6=six) as made:
        made.cloudflare.access(services={SERVICE["WARP_AUTH_CLIENT_ID"]: SERVICE["WARP_AUTH_CLIENT_SECRET"]})
        yield made


@pytest.mark.parametrize("by", ["link", "service token"])
def test_enrolled_once_and_connected(lab: Lab, tmp_path: Path, by: str) -> None:
    cf = lab.cloudflare
    cf.forget_calls()
    link = f"com.cloudflare.warp://acme.cloudflareaccess.com/auth?token={cf.team_token()}"
    how = {"WARP_TEAM_TOKEN": link} if by == "link" else SERVICE
    with Product(lab, tmp_path / "state", environment={"SHADOWSOCKS": "off", **how}) as one:
        seen = one.reached("connected")
        assert (seen["warp"], seen["account"]) == ("plus", {"kind": "team"})
        assert seen["endpoint"].startswith("162.159.193.")
        one.stop()
        one.start().reached("connected")
        assert SERVICE["WARP_AUTH_CLIENT_SECRET"] not in one.log
        assert link.partition("token=")[2] not in one.log
    assert [call.status for call in cf.calls()] == [200]


def test_an_expired_token_says_so_and_ends(lab: Lab, tmp_path: Path) -> None:
    how = {"WARP_TEAM_TOKEN": lab.cloudflare.team_token(lifetime=-5), "SHADOWSOCKS": "off"}
    with Product(lab, tmp_path / "state", environment=how) as one:
        assert one.ended(15) == 69
        assert "the team token expired" in one.log
        assert "log in again and start at once" in one.log
        assert how["WARP_TEAM_TOKEN"] not in one.log
