"""examples/fleet: one file from many nodes, those that work first."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from bench.singbox import program
from entrypoint.status.metrics import METRICS
from examples.fleet.fleet import entry
from shadowsocks.credentials import METHODS
from shadowsocks.links import Entry, link
from tests.unit.docs.pages import ROOT

PAGE = """\
# HELP ss_warp_healthy 1 if /healthz answers 200
# TYPE ss_warp_healthy gauge
ss_warp_healthy {healthy}
# TYPE ss_warp_round_trip_seconds gauge
ss_warp_round_trip_seconds {seconds}
"""
KEY = "MDEyMzQ1Njc4OWFiY2RlZg=="


@dataclass(slots=True)
class Told:
    """What a node's metrics say."""

    healthy: float = 1.0
    seconds: float = 0.02


class Node(BaseHTTPRequestHandler):
    """A node's metrics."""

    def do_GET(self) -> None:  # the base class's word
        told: Told = self.server.told  # type: ignore[attr-defined] # put there by `nodes`
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE.format(healthy=told.healthy, seconds=told.seconds).encode())

    def log_message(self, *_: object) -> None:
        pass


@dataclass(slots=True)
class Fleet:
    """Three nodes and the folder that the script writes to."""

    told: dict[str, Told]
    folder: Path

    def run(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                sys.executable,
                str(ROOT / "examples/fleet/fleet.py"),
                str(self.folder / "nodes.json"),
                str(self.folder),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )

    def listed(self, user: str = "all") -> list[str]:
        return [one["remarks"] for one in json.loads((self.folder / f"{user}.json").read_text())["servers"]]


def links(name: str, *users: str) -> list[str]:
    method = METHODS["2022-blake3-aes-128-gcm"]
    return [
        link(Entry(f"ss-warp-{user}" if user else "ss-warp", f"{name}.example.net", 8388, method, KEY))
        for user in users or ("",)
    ]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    told, items = dict[str, Told](), []
    with ExitStack() as stack:
        for name in ("tokyo", "paris", "lima"):
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Node))
            server.told = told[name] = Told()  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
            stack.callback(server.shutdown)
            metrics = f"http://127.0.0.1:{server.server_port}/metrics"
            items.append({"name": name, "links": links(name), "metrics": metrics})
        (tmp_path / "nodes.json").write_text(json.dumps(items))
        yield Fleet(told, tmp_path)


def test_the_quickest_first_and_the_broken_last(fleet: Fleet) -> None:
    fleet.told["tokyo"].seconds, fleet.told["paris"].healthy = 0.25, 0.0
    assert fleet.run().returncode == 0
    assert fleet.listed() == ["lima", "tokyo", "paris"]
    mihomo = yaml.safe_load((fleet.folder / "all.mihomo.yaml").read_text())["proxies"]
    sing_box = json.loads((fleet.folder / "all.sing-box.json").read_text())["outbounds"]
    plain = (fleet.folder / "all.txt").read_text().split()
    assert [one["name"] for one in mihomo] == [one["tag"] for one in sing_box] == fleet.listed()
    assert [one.partition("#")[2] for one in plain] == fleet.listed()
    assert {one["password"] for one in (*mihomo, *sing_box)} == {KEY}
    assert (fleet.folder / "all.json").stat().st_mode & 0o777 == 0o600


def test_sing_box_accepts_its_file(fleet: Fleet) -> None:
    assert fleet.run().returncode == 0
    done = subprocess.run(
        [str(program()), "check", "-c", str(fleet.folder / "all.sing-box.json")],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_would_not_change_is_left_alone(fleet: Fleet) -> None:
    fleet.run()
    file = fleet.folder / "all.json"
    before = file.stat().st_ino
    fleet.told["lima"].seconds = 0.03
    fleet.run()
    assert file.stat().st_ino == before
    fleet.told["tokyo"].seconds = 0.5
    fleet.run()
    assert fleet.listed()[-1] == "tokyo"


def test_if_no_node_works_nothing_is_written(fleet: Fleet) -> None:
    fleet.run()
    before = fleet.listed()
    for one in fleet.told.values():
        one.healthy = 0.0
    done = fleet.run()
    assert (done.returncode, "nothing is written" in done.stderr) == (1, True)
    assert fleet.listed() == before


def test_each_user_has_a_file(fleet: Fleet) -> None:
    items = json.loads((fleet.folder / "nodes.json").read_text())
    items[0]["links"], items[1]["links"] = links("tokyo", "alice", "bob"), links("paris", "bob")
    (fleet.folder / "nodes.json").write_text(json.dumps(items[:2]))
    assert fleet.run().returncode == 0
    assert (fleet.listed("alice"), fleet.listed("bob")) == (["tokyo"], ["tokyo", "paris"])


def test_the_dashboard_shows_metrics_that_exist() -> None:
    text = (ROOT / "examples/fleet/grafana.json").read_text()
    shown = set(re.findall(r"ss_warp_[a-z_]+", text))
    known = {f"{row.name}_total" if row.kind == "counter" else row.name for row in METRICS}
    assert len(shown) > 5
    assert shown <= known


@pytest.mark.parametrize("base64", [False, True])
@pytest.mark.parametrize("method", ["2022-blake3-aes-256-gcm", "chacha20-ietf-poly1305"])
@pytest.mark.parametrize("host", ["node.example.net", "2001:db8::7"])
def test_links_are_read_as_they_are_written(host: str, method: str, base64: bool) -> None:
    one = Entry("ss-warp-zoë", host, 443, METHODS[method], f"{KEY}:{KEY}")
    assert entry(link(one, base64=base64), "ss-warp-zoë") == ("zoë", one)
