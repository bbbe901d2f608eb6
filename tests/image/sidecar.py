"""What a sidecar tells, and what becomes of it when the owner of its network ends."""

import json
import time
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from docker.models.containers import Container

from tests.cloudflare.config import EXITS4, EXITS6
from tests.image.example import Example
from tests.image.internet import STANDIN
from tests.lab.product import eventually

STOP = 5.0
ENOUGH = 1000
"""Probes of each kind."""
FILL = "import os; open('/proc/{0}/oom_score_adj', 'w').write('1000'); held = bytearray(1 << 30)"
"""Makes the supervisor the one to be taken first, then takes all memory there is."""


def probes(container: Container) -> dict[str, Any]:
    """Return what a probing stand-in has done so far."""

    def told() -> dict[str, Any]:
        done = container.exec_run(["cat", "/tmp/probes.json"])
        # On a busy machine the engine may lose what a short program printed.
        return json.loads(done.output) if done.output and done.exit_code == 0 else {}

    return eventually(told, "it probes", 10)


def probed(container: Container, more: int) -> None:
    """Wait until it has tried `more` of each kind."""
    first = probes(container)["tried"]

    def enough() -> bool:
        tried = probes(container)["tried"]
        return all(tried[one] - first[one] >= more for one in first)

    eventually(enough, f"{more} probes of each kind", 60)


def by_warp(told: dict[str, list[str]]) -> bool:
    """Say whether the origin saw the edge's addresses, whatever it was asked by."""
    return all(
        warp == "on" and ip_address(address) in (EXITS6 if ":" in address else EXITS4)
        for address, warp in told.values()
    )


@dataclass(frozen=True, slots=True)
class Orphan:
    """A sidecar whose owner has ended: how, when, and what it had told by then."""

    how: str
    sidecar: Container
    since: float
    told: dict[str, Any]


class Ends:
    """Owners end one after the other; whoever shared their network goes on."""

    def __init__(self, example: Example, stack: ExitStack) -> None:
        self.example, self._stack = example, stack
        self.orphans: list[Orphan] = []
        self._sidecar = example.container("browser")

    def end(self, how: str) -> float:
        """End the owner and see that it is back; return the seconds that took."""
        example, sidecar, owner = self.example, self._sidecar, self.example.container("ss-warp")
        began, before = time.monotonic(), owner.attrs["State"]["StartedAt"]
        match how:
            case "SIGTERM":
                owner.stop(timeout=10)
                owner.reload()
                assert owner.attrs["State"]["ExitCode"] == 0
                assert time.monotonic() - began <= STOP
                owner.start()
            case "SIGKILL":
                owner.exec_run(["sh", "-c", f"kill -9 {supervisor(owner)}"])
            case "OOM":
                fill = ["/opt/ss-warp/bin/python", "-c", FILL.format(supervisor(owner))]
                assert owner.exec_run(fill).exit_code == 137

        def restarted() -> bool:
            owner.reload()
            return bool(owner.attrs["State"]["StartedAt"] != before and owner.status == "running")

        eventually(restarted, "the owner runs again", 20)
        self.orphans.append(Orphan(how, sidecar, time.monotonic(), probes(sidecar)))
        example.connected()
        took = time.monotonic() - began
        self._sidecar = example.beside(self._stack, *STANDIN, "probe", "8081")
        return took


def supervisor(owner: Container) -> int:
    """Return the supervisor's pid inside: tini's only child."""
    return int(owner.exec_run(["cat", "/proc/1/task/1/children"]).output.split()[0])
