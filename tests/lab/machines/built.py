"""Builds a machine of the table in network namespaces, beside a lab that is shared by all of them."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_interface
from typing import cast

from tests.cloudflare.netns import Namespace, run
from tests.lab.machines.machine import Container, Machine
from tests.lab.services import Service, served
from tests.lab.topology import Lab, Place

SSH, DNS, WEB = 22, 53, 80
PUBLIC = ("5.9.0.0/16", "2a01:4f8::/32")
R_TO_G = (
    "address add 100.127.0.1/30 dev to-m",
    "address add fd7f::1/64 dev to-m nodad",
    "link set to-m up",
    f"route add {PUBLIC[0]} via 100.127.0.2",
    f"route add {PUBLIC[1]} via fd7f::2",
)
G_TO_R = (
    "link set lo up",
    "address add 100.127.0.2/30 dev uplink",
    "address add fd7f::2/64 dev uplink nodad",
    "link set uplink up",
    "route add default via 100.127.0.1",
    "route add default via fd7f::1",
)
FORWARDING = {"ipv4__ip_forward": 1, "ipv6__conf__all__forwarding": 1}


def ways_back(lab: Lab) -> None:
    """Let F know where the machines are."""
    for network, router in zip(PUBLIC, ("192.0.2.1", "2001:db8:f::1"), strict=True):
        run("ip", "-n", lab.name("F"), "route", "add", network, "via", router)


def at(name: str) -> Place:
    """Return one of our places as the lab takes it."""
    return cast("Place", name)


def ip(lab: Lab, place: str, lines: Sequence[str]) -> None:
    """Run these lines of `ip` there; those of IPv6 begin with -6 where the line alone does not say so."""
    for six, group in itertools.groupby(lines, lambda line: line.startswith("-6 ")):
        text = "\n".join(line.removeprefix("-6 ") for line in group) + "\n"
        run("ip", *(["-6"] if six else []), "-n", lab.name(at(place)), "-batch", "-", text=text)


@contextmanager
def built(lab: Lab, machine: Machine) -> Iterator[None]:
    """Build the machine as M, its provider as G, what is behind it as N1 …; its services run."""
    with ExitStack() as stack:
        for place in ("G", "M", *containers(machine)):
            _place(lab, stack, place)
        _provider(lab, stack, machine)
        lab.sysctl(at("M"), **FORWARDING if machine.containers else {})
        addresses = [
            f"address add {one} dev {cable.name}{' nodad' if ':' in one else ''}"
            for cable in machine.cables
            for one in cable.addresses
        ]
        ip(lab, "M", ["link set lo up", *(f"link set {one.name} up" for one in machine.cables), *addresses])
        ip(lab, "M", [line for line in machine.lines if line.startswith("link add")])
        for number, one in enumerate(machine.containers, 1):
            _container(lab, f"N{number}", one)
        ip(lab, "M", [line for line in machine.lines if not line.startswith("link add")])
        ip(lab, "G", machine.provider)
        for number, one in enumerate(machine.containers, 1):
            ip(lab, f"N{number}", one.routes)
        # Some are of interfaces that are there by now.
        lab.sysctl(at("M"), **machine.sysctls)
        if machine.iptables:
            lab.run(at("M"), ["iptables-restore"], text=machine.iptables)
        if machine.nft:
            lab.run(at("M"), ["nft", "-f", "-"], text=machine.nft)
        if machine.prepare:
            lab.run(at("M"), ["sh", "-ec", machine.prepare])
        stack.enter_context(served(lab, services(machine)))
        yield


def containers(machine: Machine) -> list[str]:
    """Return the places behind the machine."""
    return [f"N{number}" for number in range(1, len(machine.containers) + 1)]


def services(machine: Machine) -> list[Service]:
    """Return who answers where."""
    made = [Service("M", "tcp", SSH)]
    made += [Service("M", "udp", DNS, one.address) for one in machine.published if one.port == DNS]
    for one in machine.far:
        made += [Service("G", "tcp", WEB, one.address), Service("G", "udp", DNS, one.address)]
    for place in containers(machine):
        made += [Service(place, "tcp", WEB), Service(place, "udp", DNS)]
    return made


def _place(lab: Lab, stack: ExitStack, place: str) -> None:
    run("ip", "netns", "add", lab.name(at(place)))
    # Whatever still runs in it dies with the test that started it.
    stack.callback(run, "ip", "netns", "del", lab.name(at(place)))
    lab.sysctl(at(place), ipv6__conf__default__accept_dad=0)


def _provider(lab: Lab, stack: ExitStack, machine: Machine) -> None:
    run(
        "ip",
        "-n",
        lab.name("R"),
        *["link", "add", "to-m", "type", "veth", "peer", "name", "uplink", "netns"],
        lab.name(at("G")),
    )
    # Namespaces end in the background; the next machine needs the name now.
    stack.callback(run, "ip", "-n", lab.name("R"), "link", "del", "to-m")
    ip(lab, "R", R_TO_G)
    ip(lab, "G", G_TO_R)
    lab.sysctl(at("G"), **FORWARDING)
    for cable in machine.cables:
        plug = f"link add p-{cable.name} type veth peer name {cable.name} netns".split()
        run("ip", "-n", lab.name(at("G")), *plug, lab.name(at("M")))
        lines = [f"link set p-{cable.name} up"]
        lines += [
            f"address add {one} dev p-{cable.name}{' nodad' if ':' in one else ''}" for one in cable.provider
        ]
        ip(lab, "G", lines)
    ip(lab, "G", [f"address add {one.address} dev lo" for one in machine.far if one.device == "lo"])
    namespace = Namespace.named(lab.name(at("G")))
    namespace.nft(provider_rules(machine))
    namespace.close()


def provider_rules(machine: Machine) -> str:
    """Return what every provider does: no packets with other sources, and here and there one-to-one NAT."""
    spoofed = []
    for cable in machine.cables:
        for version, word in (4, "ip"), (6, "ip6"):
            own = {
                str(ip_interface(one).ip) for one in cable.addresses if ip_interface(one).version == version
            }
            own |= {one for one in cable.more if ip_interface(one).version == version}
            allowed = (
                f"{word} saddr != {{ {', '.join(sorted(own))} }}" if own else f"meta nfproto ipv{version}"
            )
            spoofed.append(f'iifname "p-{cable.name}" {allowed} counter drop')
    into = [f"ip daddr {public} dnat to {own}" for public, own in machine.nat.items()]
    out = [f'oifname "uplink" ip saddr {own} snat to {public}' for public, own in machine.nat.items()]
    chains = (
        ("forward", "filter hook forward priority 0", spoofed),
        ("into", "nat hook prerouting priority dstnat", into),
        ("out", "nat hook postrouting priority srcnat", out),
    )
    text = "".join(
        f"chain {name} {{ type {hook}; policy accept;\n" + "\n".join(rules) + "\n}\n"
        for name, hook, rules in chains
    )
    return f"table inet provider {{\n{text}}}\n"


def _container(lab: Lab, place: str, container: Container) -> None:
    name, port = lab.name(at(place)), f"v{place.lower()}"
    run("ip", "-n", lab.name(at("M")), *f"link add {port} type veth peer name eth0 netns {name}".split())
    master = f" master {container.bridge}" if container.bridge else ""
    ip(lab, "M", [f"link set {port}{master} up"])
    lines = ["link set lo up", "link set eth0 up"]
    lines += [f"address add {one} dev eth0{' nodad' if ':' in one else ''}" for one in container.addresses]
    ip(lab, place, lines)
