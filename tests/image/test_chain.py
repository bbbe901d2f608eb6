"""The image under compose.yaml's restrictions against the emulated Cloudflare: starts, figures, stop."""

import json
import time
from collections.abc import Iterator
from pathlib import PurePosixPath

import docker
import pytest
from docker.models.containers import Container

from tests.image.stage import Stage
from tests.lab.product import eventually

COLD_START = 3.0
HEALTHCHECK = 0.050
MEMORY_KB = 60 * 1024
IDLE = 0.005
WINDOW = 20.0
"""Seconds over which idleness is measured."""


@pytest.fixture(scope="module")
def stage(engine: docker.DockerClient) -> Iterator[Stage]:
    with Stage(engine, 0) as made:
        yield made


@pytest.fixture
def fresh(engine: docker.DockerClient) -> Iterator[Stage]:
    """A stage without an account."""
    with Stage(engine, 1) as made:
        yield made


@pytest.fixture(scope="module")
def product(stage: Stage) -> Container:
    """A product that stays connected for all tests that only look."""
    return stage.started()


def pids(container: Container, name: str) -> list[int]:
    """Return the pids, inside, of what runs under this name."""
    listed = (
        container.exec_run(["sh", "-c", "grep -l -s -x $0 /proc/[0-9]*/comm", name]).output.decode().split()
    )
    return [int(one.split("/")[2]) for one in listed]


def status(container: Container, pid: int) -> dict[str, str]:
    text = container.exec_run(["cat", f"/proc/{pid}/status"]).output.decode()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def supervisor(container: Container) -> int:
    """Return the supervisor's pid: the only child of PID 1 from the start."""
    return int(container.exec_run(["cat", "/proc/1/task/1/children"]).output.split()[0])


def test_it_says_what_it_does_and_how_to_connect(stage: Stage, product: Container) -> None:
    eventually(lambda: b"terms" in product.logs(), "the last line of the first run")
    log = product.logs().decode()
    assert "warp=on" in log
    assert "ss://" in log
    assert "cloudflare.com/application/terms" in log
    assert "Traceback" not in log


def test_tcp_and_udp_of_both_families_come_out_of_warp(stage: Stage, product: Container) -> None:
    told = stage.ask(product)
    assert len(told.splitlines()) == 7, told
    assert told.count(" ok") == 6, told


def test_docker_calls_it_healthy(product: Container) -> None:
    def healthy() -> bool:
        product.reload()
        return bool(product.attrs["State"]["Health"]["Status"] == "healthy")

    eventually(healthy, "healthy", 15)


def test_the_health_check_is_cheap(product: Container) -> None:
    measure = (
        "import subprocess, sys, time\n"
        "best = 9.0\n"
        "for _ in range(10):\n"
        "    began = time.monotonic()\n"
        "    subprocess.run(sys.argv[1:], check=True)\n"
        "    best = min(best, time.monotonic() - began)\n"
        "print(best)"
    )
    words = product.attrs["Config"]["Healthcheck"]["Test"][1:]
    done = product.exec_run(["/opt/ss-warp/bin/python", "-c", measure, *words])
    assert done.exit_code == 0, done.output
    print(f"{float(done.output.split()[-1]) * 1000:.0f} ms")
    assert float(done.output.split()[-1]) <= HEALTHCHECK


def test_ssserver_can_do_nothing_but_serve(product: Container) -> None:
    [pid] = pids(product, "ssserver")
    facts = status(product, pid)
    assert set(facts["Uid"].split()) == set(facts["Gid"].split()) == {"58388"}
    assert facts["Groups"] == ""
    assert {int(facts[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert facts["NoNewPrivs"] == "1"


def test_ssserver_holds_no_secret_on_its_command_line(product: Container) -> None:
    [pid] = pids(product, "ssserver")
    secrets = json.loads(product.exec_run(["cat", "/var/lib/ss-warp/shadowsocks.json"]).output)
    visible = product.exec_run(["cat", f"/proc/{pid}/cmdline"]).output.decode()
    assert secrets["password"]
    assert secrets["password"] not in visible


def test_what_it_keeps_is_its_own(product: Container) -> None:
    listed = product.exec_run(
        ["find", "/var/lib/ss-warp", "-type", "f", "-printf", "%f %m %U\n"]
    ).output.decode()
    files = {PurePosixPath(line.split()[0]).name: line.split()[1:] for line in listed.splitlines()}
    assert {"account.json", "shadowsocks.json"} <= set(files)
    assert files["account.json"] == files["shadowsocks.json"] == ["600", "0"]


def test_the_supervisor_is_light_and_idle(product: Container) -> None:
    pid = supervisor(product)

    def spent() -> float:
        """Return the CPU seconds of the supervisor alone."""
        fields = product.exec_run(["cat", f"/proc/{pid}/stat"]).output.decode().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    began, before = time.monotonic(), spent()
    eventually(lambda: time.monotonic() - began >= WINDOW, "the window is over", WINDOW + 5)
    share = (spent() - before) / (time.monotonic() - began)
    memory = int(status(product, pid)["VmRSS"].split()[0])
    print(f"{memory / 1024:.1f} MB, {share:.2%} of a core")
    assert memory <= MEMORY_KB
    assert share <= IDLE, f"{share:.2%}"


def test_c03_a_thousand_orphans_are_reaped(product: Container) -> None:
    """Grandchildren whose parent has ended become children of process 1."""
    made = product.exec_run(["sh", "-c", "for n in $(seq 1000); do (sleep 0.1 &) ; done; echo made"])
    assert made.output.split() == [b"made"], made.output

    def zombies() -> list[str]:
        lines = product.exec_run(["sh", "-c", "cat /proc/[0-9]*/stat"]).output.decode().splitlines()
        return [line for line in lines if line.rpartition(")")[2].split()[:1] == ["Z"]]

    ended, begun = eventually(lambda: not pids(product, "sleep"), "all have ended", 20), time.monotonic()
    assert ended
    eventually(lambda: not zombies(), "no zombie is left", 1)
    print(f"1000 orphans, no zombie {time.monotonic() - begun:.2f} s after the last has ended (limit 1)")


def test_ten_starts_on_one_volume_register_once(fresh: Stage) -> None:
    for _ in range(10):
        container = fresh.started()
        assert fresh.stopped(container) == 0
        container.remove()
    assert fresh.registrations() == 1


def test_five_at_once_on_one_volume_register_once(fresh: Stage) -> None:
    five = [fresh.start(host) for host in range(71, 76)]

    def ended() -> list[Container]:
        for one in five:
            one.reload()
        return [one for one in five if one.status == "exited"]

    eventually(lambda: len(ended()) == 4, "four have ended", 20)
    for one in ended():
        assert one.attrs["State"]["ExitCode"] == 75
        [line] = [line for line in one.logs().decode().splitlines() if "in use" in line]
        assert "/var/lib/ss-warp" in line
    [alive] = [one for one in five if one.status == "running"]
    fresh.connected(alive)
    assert fresh.registrations() == 1


def test_from_a_cold_start_to_the_first_byte(fresh: Stage) -> None:
    first = fresh.started()
    link = fresh.link(first)
    fresh.stopped(first)
    first.remove()
    seconds = fresh.first_byte(link, fresh.start)
    print(f"first byte after {seconds:.2f} s")
    assert seconds <= COLD_START, f"{seconds:.2f} s"


@pytest.mark.parametrize("after", [0.0, 0.1, 0.5, 1.0, 2.0])
def test_it_stops_at_any_moment(fresh: Stage, after: float) -> None:
    container = fresh.start()
    # Before tini listens a signal has no receiver: to process 1 the kernel delivers what is handled only.
    eventually(lambda: len(container.top()["Processes"]) > 1, "tini has started the supervisor", 5)
    began = time.monotonic()
    eventually(lambda: time.monotonic() - began >= after, "it is on its way", after + 1)
    assert fresh.stopped(container) == 0, container.logs().decode()
    assert "Traceback" not in container.logs().decode()


def test_a_whole_life_is_told_in_few_lines(fresh: Stage) -> None:
    """D-14."""
    first = fresh.started()
    assert fresh.stopped(first) == 0
    assert "Traceback" not in first.logs().decode()
    first.remove()
    second = fresh.started()
    assert fresh.stopped(second) == 0
    log = second.logs().decode()
    assert "ss://" not in log
    assert "Traceback" not in log
    assert len(log.splitlines()) <= 60
