"""Settings of routing, firewall and DNS."""

from typing import Literal

from entrypoint.network.plan import Address, Network, Ports
from entrypoint.settings.addresses import ADDRESSES, PORTS, SUBNETS
from entrypoint.settings.forms import SWITCH, choice, number
from entrypoint.settings.variable import Group, variable


class Routing(Group):
    """Routing."""

    network: Literal["auto", "own", "host"] = variable(
        "NETWORK",
        choice("auto", "own", "host"),
        "auto",
        "Whose network namespace this is: the container's own or the host's",
        "own",
    )
    mode: Literal["full", "proxy"] | None = variable(
        "ROUTE_MODE",
        choice("full", "proxy"),
        None,
        "full: all that starts in this namespace uses the tunnel; proxy: Shadowsocks alone",
        "proxy",
        shown="full in own, proxy in host",
    )
    # Two rules stand before it, two after; 32764 is the last row of mode full.
    rule_priority: int | None = variable(
        "ROUTE_RULE_PRIORITY",
        number(3, 32761),
        None,
        "Priority of the rules that keep answers on the uplink; their neighbours follow",
        "18",
        shown="18 in own, 32759 in host",
    )
    table: int = variable(
        "ROUTE_TABLE",
        number(1, 4294967294, besides=(253, 254, 255)),
        "51820",
        "Routing table of the tunnel",
        "51820",
    )


class Firewall(Group):
    """Firewall."""

    on: bool = variable(
        "FIREWALL", SWITCH, "on", "The kill switch: what should use the tunnel never leaves without it", "on"
    )
    input_ports: tuple[Ports, ...] = variable(
        "FIREWALL_INPUT_PORTS",
        PORTS,
        None,
        "Ports of other services here that may be reached by the uplink",
        "8080/tcp,5000-5010/udp",
        shown="none",
    )
    outbound_subnets: tuple[Network, ...] = variable(
        "FIREWALL_OUTBOUND_SUBNETS",
        SUBNETS,
        None,
        "Networks that are reached by the uplink instead of the tunnel",
        "192.168.0.0/16",
        shown="none",
    )


class Dns(Group):
    """DNS."""

    addresses: tuple[Address, ...] = variable(
        "DNS_ADDRESSES",
        ADDRESSES,
        "1.1.1.1,1.0.0.1,2606:4700:4700::1111,2606:4700:4700::1001",
        "Resolvers, asked through the tunnel",
        "9.9.9.9,2620:fe::fe",
    )
