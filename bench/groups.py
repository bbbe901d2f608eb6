"""What is measured, a group after the other; in each, the contestants take turns."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench import processes
from bench.lanes import CHAINS, DIRECT, OURS, PROXIES, TUNNELS, WIREGUARD, Lane, lane, lanes
from bench.samples import Notes, Samples
from bench.share import share_of

STREAMS = (1, 8)
WORKERS = 16
PINGS, PINGS_BESIDE = 1000, 300
SIZE = 1200
HELD = 9_920
"""Both ends of each in one process: 20,000 descriptors, which is what many machines allow."""
IDLE = 20.0
SETTLED = 2.0
"""Seconds of silence before memory is read."""
SHARE = 0.4
"""Of a processor, for one contestant: little enough that client, edge and sink are never what is short."""
STABLE = 2
"""Rounds at most of what hardly differs from round to round, and takes long."""


def turns(contestants: Sequence[Lane], number: int) -> Iterator[Lane]:
    """Yield each once; who begins changes from round to round."""
    first = number % len(contestants)
    yield from (*contestants[first:], *contestants[:first])


def throughput(
    directory: Path,
    rounds: int,
    seconds: float,
    names: tuple[str, ...] = TUNNELS,
    abreast: tuple[int, ...] = STREAMS,
) -> Samples:
    """Measure bytes both ways, by one stream and by several, and what they cost the contestant."""
    notes = Notes()
    with lanes(names, directory) as contestants:
        for number in range(rounds):
            for way, title in (("down", "download"), ("up", "upload")):
                for streams in abreast:
                    figure = f"{title}, {streams} stream{'s' * (streams > 1)}"
                    for one in turns(contestants, number):
                        pids = one.pids()
                        before = processes.seconds(pids)
                        report = one.measure(way, streams=streams, seconds=seconds)
                        took = processes.seconds(pids) - before
                        notes.add(figure, one.name, report["rate"] * 8 / 1e6)
                        notes.add(f"processor: {figure}", one.name, took / (report["total"] / 1e9))
    return notes.done()


def small(directory: Path, rounds: int, seconds: float) -> Samples:
    """Measure new connections, datagrams, and how long a byte takes there and back."""
    notes = Notes()
    with lanes((*CHAINS, WIREGUARD, DIRECT), directory) as contestants:
        chains = contestants[: len(CHAINS)]
        for number in range(rounds):
            for one in turns(contestants, number):
                trips = one.measure("latency", count=PINGS)["seconds"]
                notes.add("latency p50", one.name, trips[len(trips) // 2] * 1e3)
                notes.add("latency p99", one.name, trips[len(trips) * 99 // 100] * 1e3)
            for one in turns(chains, number):
                notes.add("latency p99 beside a download", one.name, _beside_a_download(one))
            for one in turns(chains, number):
                report = one.measure("datagrams", size=SIZE, seconds=seconds)
                notes.add("datagrams", one.name, report["rate"])
            for one in turns(chains, number):
                pids = one.pids()
                before = processes.seconds(pids)
                rate = one.measure("connect", workers=WORKERS, seconds=seconds)["rate"]
                took = processes.seconds(pids) - before
                notes.add("connections", one.name, rate)
                notes.add("processor: connections", one.name, 1e6 * took / (rate * seconds))
    return notes.done()


def _beside_a_download(one: Lane) -> float:
    """Return the 99th percentile of round trips, in milliseconds, while a download takes what it can."""
    loading = one.start("down", streams=1, seconds=60)
    try:
        time.sleep(SETTLED / 4)
        trips = one.measure("latency", count=PINGS_BESIDE)["seconds"]
        if loading.poll() is not None:
            raise RuntimeError(f"{one.name}: the download ended")
    finally:
        loading.kill()
        loading.communicate()
    return float(trips[len(trips) * 99 // 100] * 1e3)


def limited(directory: Path, rounds: int, seconds: float) -> Samples:
    """Measure uploads of contestants that have SHARE of a processor each, to an edge that takes UDP_GRO."""
    notes = Notes()
    with lanes(CHAINS, directory, gro=True) as contestants, ExitStack() as shares:
        for one in contestants:
            shares.enter_context(share_of(one.pids(), SHARE))
        for number in range(rounds):
            for streams in STREAMS:
                figure = f"upload, {streams} stream{'s' * (streams > 1)}, {SHARE} of a processor"
                for one in turns(contestants, number):
                    report = one.measure("up", streams=streams, seconds=seconds)
                    notes.add(figure, one.name, report["rate"] * 8 / 1e6)
    return notes.done()


def held(directory: Path, rounds: int, seconds: float) -> Samples:
    """Measure the memory of a fresh contestant, and with many connections on which nothing happens."""
    notes = Notes()
    for number in range(min(rounds, STABLE)):
        for name in (*PROXIES[number % len(PROXIES) :], *PROXIES[: number % len(PROXIES)]):
            with lane(name, directory / str(number)) as one:
                pids = one.pids()
                notes.add("memory, fresh", name, processes.megabytes(pids))
                holding = one.start("hold", count=HELD, workers=WORKERS)
                try:
                    assert holding.stdout is not None
                    if f'"held": {HELD}'.encode() not in holding.stdout.readline():
                        raise RuntimeError(f"{name}: the connections were not opened")
                    time.sleep(SETTLED)
                    notes.add("memory, 9,920 idle connections", name, processes.megabytes(pids))
                finally:
                    holding.kill()
                    holding.communicate()
    return notes.done()


def idle(directory: Path, rounds: int, seconds: float) -> Samples:
    """Measure all contestants at the same time while they are idle."""
    notes = Notes()
    with lanes(PROXIES, directory) as contestants:
        for _ in range(min(rounds, STABLE)):
            everybody = {one.name: one.pids() for one in contestants}
            ours = [processes.supervisor(everybody[OURS])]
            watched = {**everybody, "supervisor": ours}
            before = {name: processes.seconds(pids) for name, pids in watched.items()}
            begun = time.monotonic()
            time.sleep(IDLE)
            for name, pids in watched.items():
                share = 100 * (processes.seconds(pids) - before[name]) / (time.monotonic() - begun)
                figure = "supervisor" if name == "supervisor" else "all processes"
                contestant = OURS if name == "supervisor" else name
                notes.add(f"idle: {figure}", contestant, share)
                notes.add(f"memory: {figure}", contestant, processes.megabytes(pids))
    return notes.done()
