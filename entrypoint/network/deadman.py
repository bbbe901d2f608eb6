"""The dead-man's check: after the switch, would an answer still leave as before? The kernel is asked."""

from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from entrypoint.errors import PlatformError
from entrypoint.network.plan import Address, Family
from entrypoint.network.walk import Flow
from entrypoint.ports import Netlink

SOMEBODY: Final[dict[Family, Address]] = {4: IPv4Address("192.0.2.1"), 6: IPv6Address("2001:db8::1")}
"""Somebody far away; nothing is sent to them."""


async def answer_ways(netlink: Netlink, addresses: Iterable[Address]) -> dict[Address, str | None]:
    """Ask by which device an answer from each address would leave, None for none. Raises OSError."""
    return {one: await netlink.way(Flow(SOMEBODY[one.version], one)) for one in addresses}


async def require_ways(netlink: Netlink, before: Mapping[Address, str | None]) -> None:
    """Raise PlatformError when an answer from any of the addresses would no longer leave as before."""
    after = await answer_ways(netlink, before)
    if changed := [one for one in before if after[one] != before[one]]:
        wrong = ", ".join(f"{one} by {after[one]} instead of {before[one]}" for one in changed)
        raise PlatformError(
            f"answers would leave from {wrong}: all is taken back, this host stays reachable",
            "somebody else's rules are in the way, see `ip rule`; ROUTE_MODE=proxy touches less",
        )
