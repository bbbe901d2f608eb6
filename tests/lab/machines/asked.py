"""Brings the product up on a machine, asks every question, and takes it down: a verdict for each."""

import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.lab import namespace
from tests.lab.host_topology import dump
from tests.lab.machines.built import SSH, at, built
from tests.lab.machines.machine import Door, Machine, Mode
from tests.lab.machines.questions import OURS, SERVICES, Visit, connected, control
from tests.lab.machines.shadowsocks import METHOD
from tests.lab.product import Product, eventually
from tests.lab.topology import Lab

WITHIN = 20.0
WARNING = re.compile(r"\bwarning\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of it: a verdict for each question, and for what is no a yes the reasons."""

    verdicts: dict[str, str]
    reasons: dict[str, list[str]]
    log: str

    def told(self) -> str:
        """Return the reasons as lines, and what the product said."""
        lines = [f"{question}: {one}" for question, every in self.reasons.items() for one in every]
        return "\n".join([*lines, *self.log.splitlines()[-8:]])


class OpenSession:
    """An SSH session that is open before the product comes; it must say more, and never break."""

    def __init__(self, visit: Visit, door: Door) -> None:
        place, source = visit.from_outside(door)
        self.name = f"{source} by {door.address}"
        self._socket = connected(visit.lab, place, door.address, SSH, source)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()

    def goes_on(self) -> bool:
        """Read up to the newest word; say whether one came that was said since the last time."""
        try:
            self._socket.setblocking(False)
            while self._lines.readline():
                pass
            self._socket.settimeout(3)
            return bool(self._lines.readline())
        except OSError:
            return False

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def ask(lab: Lab, machine: Machine, mode: Mode, state: Path) -> Answered:
    """Build the machine and return what it answers in this mode."""
    with built(lab, machine), ExitStack() as stack:
        visit = Visit(lab, machine, mode)
        for name in set(machine.asked(mode)) & SERVICES.keys():
            # The first packets of all may be lost while neighbours are looked for.
            eventually(lambda: not SERVICES[name](visit), f"{name} without the product", 10)  # noqa: B023
        control(visit)
        before = surroundings(lab, mode)
        # What a namespace of its own had before is cut on purpose.
        sessions = [] if mode == "own" else opened(stack, visit)
        reasons: dict[str, list[str]] = {}
        product = Product(lab, state, at("M"), environment(machine, mode))
        if machine.resolvers:
            lines = " ".join(f"'nameserver {one}'" for one in machine.resolvers)
            product.prelude = f"printf '%s\\n' {lines} > /run/r; mount --bind /run/r /etc/resolv.conf"
        with product:
            if mode in machine.refused:
                return refused(lab, machine, mode, product, before)
            visit.product = product.serving(WITHIN)
            sessions = sessions or opened(stack, visit)
            if machine.meanwhile:
                lab.run(at("M"), ["sh", "-ec", machine.meanwhile])
            for name, question in {**SERVICES, **OURS}.items():
                if name in machine.asked(mode):
                    reasons[name] = question(visit)
            cut = [one for one in sessions if not one.goes_on()]
            reasons["ssh"] += [f"{one.name}: cut" for one in cut]
            code = product.stop()
        reasons["stop"] = [f"exit code {code}"] if code else []
        after = surroundings(lab, mode)
        reasons["stop"] += sorted(set(before) ^ set(after))
        reasons["stop"] += [f"{one.name}: cut" for one in sessions if one not in cut and not one.goes_on()]
        log = product.log
    verdicts = {name: verdict(machine, mode, name, reasons[name], log) for name in machine.asked(mode)}
    return Answered(verdicts, reasons, log)


def opened(stack: ExitStack, visit: Visit) -> list[OpenSession]:
    """Log in by every door."""
    sessions = [OpenSession(visit, door) for door in visit.machine.doors]
    for one in sessions:
        stack.callback(one.close)
    return sessions


def surroundings(lab: Lab, mode: Mode) -> list[str]:
    """Return what a stop must leave as it was; in a namespace of its own that stays closed."""
    return namespace.dump(lab, at("M")).splitlines() if mode == "own" else dump(lab, at("M"))


def verdict(machine: Machine, mode: Mode, question: str, reasons: list[str], log: str) -> str:
    """Return yes, warned when the row's words about it are in the log, else no."""
    if not reasons:
        return "yes"
    words = machine.warned.get((mode, question))
    return "warned" if words and words in log else "no"


def refused(lab: Lab, machine: Machine, mode: Mode, product: Product, before: list[str]) -> Answered:
    """Return the verdicts of a start that is to be refused by one line, with nothing changed."""
    code = product.ended(WITHIN)
    lines = [line for line in product.lines if line.startswith("ss-warp: ")]
    after = surroundings(lab, mode)
    good = code and len(lines) == 1 and machine.refused[mode] in lines[0] and before == after
    verdicts = dict.fromkeys(machine.asked(mode), "refused" if good else "no")
    return Answered(
        verdicts, {"refused": [f"exit code {code}", *lines, *set(before) ^ set(after)]}, product.log
    )


def environment(machine: Machine, mode: Mode) -> dict[str, str]:
    place = {"NETWORK": "own"} if mode == "own" else {"NETWORK": "host", "ROUTE_MODE": mode}
    return {"SHADOWSOCKS_METHOD": METHOD, "PRINT_LINK": "off", **place, **machine.environment}
