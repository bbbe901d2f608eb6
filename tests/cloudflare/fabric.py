"""The cables of the emulator: its own namespace in the middle, one inner namespace behind each veth."""

import contextlib
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Network, IPv6Network
from itertools import chain

from tests.cloudflare.config import Address, Config
from tests.cloudflare.devices import addresses
from tests.cloudflare.netns import Namespace
from tests.cloudflare.rules import published_rules

LINKS4, LINKS6 = IPv4Network("198.18.0.0/15"), IPv6Network("fd00:cf::/64")
"""Where the veths' own addresses come from: four for each, by its number."""


class Fabric:
    """Routes between uplink and inner namespaces. `here` is the namespace we were started in."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.here = Namespace.current()
        self.inner: dict[str, Namespace] = {}

    def prepare(self, origin: tuple[Address, ...]) -> None:
        """Make our own namespace forward, hold the API's addresses and swallow what is unclaimed."""
        config = self.config
        self.here.sysctl(
            ipv4__ip_forward=1,
            ipv6__conf__all__disable_ipv6=0,
            ipv6__conf__all__forwarding=1,
            ipv6__conf__default__accept_dad=0,
        )
        self.here.ip(
            *(f"address replace {one} dev lo" for one in config.api_addresses),
            # An address without a device answers nothing, not even an ICMP error.
            f"route replace blackhole {config.endpoints4} metric 9999",
            f"route replace blackhole {config.endpoints6} metric 9999",
        )
        if config.published:
            self.here.nft(published_rules(config, addresses(config, 1), origin))

    def add(
        self, name: str, number: int, reached: Iterable[object], own: Sequence[Address] = ()
    ) -> Namespace:
        """Return a new namespace behind a veth, `uplink` inside and `name` outside; `reached` goes there.

        What chooses no address of its own sends from `own`, one of each family.
        """
        inner = self.inner[name] = Namespace.new()
        inner.sysctl(
            ipv4__ip_forward=1,
            # The edge's engines do not learn of a narrow path: their packets may be cut on the way.
            ipv4__ip_no_pmtu_disc=1,
            # A flood of which pieces were lost would keep the memory for all others' full for half a minute.
            ipv4__ipfrag_time=1,
            ipv4__conf__all__rp_filter=0,
            ipv4__conf__default__rp_filter=0,
            ipv6__conf__all__forwarding=1,
            # Link-local addresses too are usable at once; detection would hold IPv6 up for two seconds.
            ipv6__conf__default__accept_dad=0,
            # wireguard-go answers from the address it was asked at, which is a local route, not an address.
            ipv6__ip_nonlocal_bind=1,
        )
        near4, far4 = LINKS4[4 * number + 1], LINKS4[4 * number + 2]
        near6, far6 = LINKS6[4 * number + 1], LINKS6[4 * number + 2]
        source4, source6 = own or (far4, far6)
        self.here.ip(f"link add {name} type veth peer name uplink netns {inner.path}")
        self.here.ip(
            f"link set dev {name} up",
            f"address add {near4}/30 dev {name}",
            f"address add {near6}/126 dev {name} nodad",
        )
        inner.ip(
            "link set dev uplink up",
            f"address add {far4}/30 dev uplink",
            f"address add {far6}/126 dev uplink nodad",
            # Without `nodad` the route below may come before its source is usable, also on lo.
            *(f"address add {one} dev lo{' nodad' if one.version == 6 else ''}" for one in own),
            f"route add default via {near4} src {source4}",
            f"route add default via {near6} src {source6}",
        )
        routes = ((one, far6 if ":" in str(one) else far4) for one in reached)
        self.here.ip(*(f"route replace {one} via {gateway} metric 10" for one, gateway in routes))
        return inner

    def sweep(self) -> None:
        """Delete the veths that an emulator before us left in this namespace."""
        names = (one.split(":")[1].split("@")[0].strip() for one in self.here.output("ip", "-o", "link"))
        ours = [one for one in names if one == "origin" or one.startswith("device-")]
        for one in ours:
            # The kernel may be taking it down itself, behind a namespace that just ended.
            with contextlib.suppress(RuntimeError):
                self.here.ip(f"link del {one}")

    def close(self) -> None:
        """Delete the veths and let the inner namespaces go."""
        self.sweep()
        for one in chain(self.inner.values(), (self.here,)):
            one.close()
