"""Everything that can be seen of a namespace's network, as text to compare."""

import difflib
import re

from tests.lab.topology import Lab, Place

OURS = ("inet ss_warp", "arp ss_warp")
COMMANDS = (
    "ip -d rule",
    "ip -6 -d rule",
    "ip -d route show table all",
    "ip -6 -d route show table all",
    "ip -d link",
    "ip -d address",
    "nft -s list ruleset",
)
OTHERS = """
table inet neighbour {
    set friends { type ipv4_addr; elements = { 192.0.2.77 } }
    chain out { type filter hook output priority 5; policy accept; ip daddr @friends counter drop; }
}
table ip neighbour_nat {
    chain post { type nat hook postrouting priority srcnat; oifname "other0" masquerade; }
}
"""
"""What other programs have there, before us and after us."""
OTHERS_LINES = (
    "link add other0 type veth peer name other1",
    "link set other1 up",
    "address add 10.77.0.1/24 dev other0",
    "address add fd77::1/64 dev other0 nodad",
    "link set other0 up",
    "route add 10.88.0.0/16 dev other0 table 77",
    "route add fd88::/16 dev other0 table 77",
    "rule add priority 100 to 10.88.0.0/16 lookup 77",
    "rule add priority 5210 fwmark 0x80000/0xff0000 lookup main",
    "-6 rule add priority 100 to fd88::/16 lookup 77",
)


def furnish(lab: Lab, place: Place = "H") -> None:
    """Put other programs' links, routes, rules and tables there."""
    for line in OTHERS_LINES:
        lab.run(place, ["ip", *line.split()])
    lab.run(place, ["nft", "-f", "-"], text=OTHERS)


def dump(lab: Lab, place: Place = "H") -> str:
    """Return everything but our own nftables tables."""
    parts = [f"# {command}\n{lab.run(place, command.split()).stdout}" for command in COMMANDS]
    text = "\n".join(parts)
    for table in OURS:
        text = re.sub(rf"^table {table} {{\n.*?^}}\n", "", text, flags=re.MULTILINE | re.DOTALL)
    return text


def differences(before: str, after: str) -> list[str]:
    """Return the lines that changed."""
    return [
        line
        for line in difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
        if not line.startswith(("---", "+++", "@@"))
    ]


def closed(lab: Lab, place: Place = "H") -> bool:
    """Say whether our table is there, and lets nothing out."""
    found = lab.run(place, ["nft", "-s", "list", "table", "inet", "ss_warp"], check=False)
    return (
        found.returncode == 0 and "policy drop" in found.stdout and 'oifname "wg0" accept' not in found.stdout
    )
