"""Where a supervisor may be killed: before every system call of its life that changes something.

A life is a start, serving, SIGTERM and the end. strace counts the calls of the main thread, which speaks to
the kernel, to the engine and to the disk, and kills it on entering one: each point shows what is left by all
the calls before it. `nft` is started by other threads: there a script in nft's place kills its parent, and
then either loads the rules all the same or not.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.lab.product import Product, eventually

# linux/rtnetlink.h: NEWLINK, DELLINK, SETLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE, NEWRULE, DELRULE.
CHANGES = frozenset({0x10, 0x11, 0x13, 0x14, 0x15, 0x18, 0x19, 0x20, 0x21})
RULES = frozenset({0x20, 0x21})
NAMES = {"RTM_NEWLINK": 0x10, "RTM_DELLINK": 0x11, "RTM_NEWADDR": 0x14, "RTM_DELADDR": 0x15}
NAMES |= {"RTM_NEWROUTE": 0x18, "RTM_DELROUTE": 0x19, "RTM_NEWRULE": 0x20, "RTM_DELRULE": 0x21}
CALLS = "sendto,sendmsg,ioctl,vfork,clone,unlinkat,fsync,rename,renameat,renameat2,write,ftruncate,pwrite64"
NFT = """#!/bin/sh
[ "$1" = -f ] || exec /run/nft "$@"
n=$(($(cat {count}) + 1)); echo $n >{count}
[ $n = {number} ] && kill -KILL $PPID
[ $n = {number} ] && [ {call} = "nft-not" ] && exit 1
exec /run/nft "$@"
"""


@dataclass(frozen=True, slots=True)
class Point:
    """The `number`th time that it makes this call; `what` it is about."""

    call: str
    number: int
    what: str

    def __str__(self) -> str:
        return f"{self.call} {self.number} ({self.what})"

    def arm(self, product: Product, scratch: Path) -> None:
        """Have the product killed there in its next life."""
        if self.call.startswith("nft"):
            watch_nft(product, scratch, self)
        else:
            inject = f"inject={self.call}:signal=SIGKILL:when={self.number}"
            product.tracer = (*strace("/dev/null", self.call), "-e", inject)


def disarm(product: Product) -> None:
    """Let it live again."""
    product.tracer, product.prelude = (), ""


def strace(log: str, calls: str) -> tuple[str, ...]:
    """Return the strace that runs a program, which keeps its process id, and notes these calls of it."""
    return ("strace", "-D", "-o", log, "-e", f"trace={calls}")


def watch_nft(product: Product, scratch: Path, point: Point) -> Path:
    """Put a script in nft's place that counts what is loaded; return where."""
    count, script = scratch / "count", scratch / "nft"
    count.write_text("0")
    script.write_text(NFT.format(count=count, number=point.number, call=point.call))
    script.chmod(0o755)
    nft = "/usr/sbin/nft"
    product.prelude = f"touch /run/nft && mount --bind {nft} /run/nft && mount --bind {script} {nft}"
    return count


def lived(product: Product) -> int:
    """Let it live: until it serves, then SIGTERM, unless it ends by itself; return its exit code."""
    product.start()
    eventually(lambda: product.process.poll() is not None or serves(product), "it serves, or is dead", 60)
    return stopped(product)


def stopped(product: Product) -> int:
    """Have it end, however long that takes on a busy machine; return its exit code."""
    if product.process.poll() is None:
        product.process.terminate()
    return product.ended(30)


def serves(product: Product) -> bool:
    """Whether it is connected and listens."""
    try:
        status = product.status()
    except (ValueError, OSError):
        return False  # it is just dying
    return status.get("state") == "connected" and bool(status["shadowsocks"]["listening"])


def points(product: Product, scratch: Path) -> list[Point]:
    """Return every point of a life of this product, which has lived before."""
    log = scratch / "trace"
    count = watch_nft(product, scratch, Point("nft", 0, "never"))
    product.tracer = strace(str(log), CALLS)
    assert lived(product) == 0, product.log
    disarm(product)
    loads = range(1, int(count.read_text()) + 1)
    return [
        *changes(log.read_text(errors="replace").splitlines()),
        *(Point(call, number, "the firewall") for number in loads for call in ("nft-not", "nft-yet")),
    ]


def changes(lines: Iterable[str]) -> Iterator[Point]:
    """Yield what the main thread changes."""
    counted: Counter[str] = Counter()
    for line in lines:
        if not (match := re.match(r"(\w+)\(", line)):
            continue
        call = match[1]
        counted[call] += 1
        if what := changed(call, line):
            yield Point(call, counted[call], what)


def changed(call: str, line: str) -> str:
    """Say what this call changes, empty for nothing that lasts."""
    match call:
        case "ioctl":
            return "a TUN" if "TUNSET" in line else ""
        case "sendto" | "sendmsg":
            kind = re.search(r"nlmsg_type=(\w+)", line)
            number = (NAMES.get(kind[1]) or int(kind[1], 16) if kind[1][:2] == "0x" else 0) if kind else 0
            if number in CHANGES:
                return "a rule" if number in RULES else "netlink"
            return "the engine" if '"set=1' in line else ""
        case "vfork" | "clone":
            return "a program"
        case _:
            return "a file"


def sample(every: list[Point], count: int) -> list[Point]:
    """Return `count` of them, evenly spread, and those next to the rules and the firewall."""
    spread = [every[n * len(every) // count] for n in range(count)]
    rules = [one for one in every if one.what == "a rule"]
    firewall = [one for one in every if one.what == "the firewall"]
    # The tunnel rules are the last to come and the first to go; the last table is what is released.
    half = len(rules) // 2
    return list(dict.fromkeys((*spread, *rules[half - 1 : half + 1], firewall[0], firewall[-1])))
