"""What a kernel's nftables may lack without making the kill switch useless; light to import.

Vendor kernels leave pieces out. One refused line refuses the whole ruleset, so what is missing is found
by a table of its own and left out of the text, with a line that says which promise is smaller.
"""

OPTIONAL = (
    (
        "fib",
        "chain one { fib daddr type local accept; }",
        "ssserver could reach this server's public addresses from inside",
    ),
    (
        "ct timeout",
        "ct timeout one { protocol udp; l3proto inet; policy = { unreplied : 300 }; }",
        "UDP clients of Shadowsocks that are silent for 30 s get no more replies",
    ),
    ("arp", "", "neighbours may learn the tunnel's address by ARP"),
)
"""Piece, what to try, and what is lost without it. Everything else is mandatory."""


def attempt(piece: str, tried: str) -> str:
    """Return a transaction that changes nothing and is refused where the kernel lacks the piece."""
    table = f"{'arp' if piece == 'arp' else 'inet'} ss_warp_try"
    return f"table {table} {{\n{tried}\n}}\ndelete table {table}\n"


def leave_out(text: str, missing: "set[str]") -> str:
    """Return the ruleset without the lines that need what is missing."""
    kept = []
    inside = ""
    for line in text.splitlines(keepends=True):
        words = line.strip()
        if words.startswith("table arp") and "arp" in missing:
            inside = "}\n" if words.endswith("{") else ""
            continue
        if words.startswith("ct timeout shadowsocks {") and "ct timeout" in missing:
            inside = "\t}\n"
            continue
        if inside:
            inside = "" if line in {inside, inside.rstrip("\n")} else inside
            continue
        lacks_arp = words.startswith("delete table arp") and "arp" in missing
        lacks_fib = words.startswith("fib ") and "fib" in missing
        lacks_timeout = "ct timeout set" in words and "ct timeout" in missing
        if not (lacks_arp or lacks_fib or lacks_timeout):
            kept.append(line)
    return "".join(kept)
