"""The house rules that a program can check, on the source itself."""

import ast
import importlib
import json
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import entrypoint
from tests.image.compose import composed

ROOT = Path(__file__).parents[2]
FLOORS = (
    "__main__ | commands | supervisor | ssserver | network_watch | desired discovery | client_details"
    " | account | status | health | wireguard | routing | firewall | early | linux settings"
    " | unwind retry | strict_json | addresses log errors"
)
"""Each room of entrypoint/ imports only what stands to its right; shadowsocks/ is open to all."""

ONLY_IN = {
    "pyroute2": {"entrypoint/linux/netlink.py"},
    "httpx": {"entrypoint/account/api.py", "entrypoint/health/probe.py", "entrypoint/linux/http.py"},
    "httpcore": {"entrypoint/linux/http.py"},
    "dns": {"entrypoint/linux/http.py"},
    "subprocess": {"entrypoint/linux/run.py", "entrypoint/linux/processes.py"},
    "prometheus_client": {"entrypoint/status/metrics.py"},
    "multiprocessing": set[str](),
    "asyncio": set[str](),  # anyio, whose cancellation is level-triggered
    "requests": set[str](),
}
"""Module → the product's files that may import it."""

LIGHT = (
    "entrypoint/__main__.py",
    "entrypoint/errors.py",
    "entrypoint/early/close.py",
    "entrypoint/early/optional.py",
    "entrypoint/early/preflight.py",
    "entrypoint/linux/run.py",
    "entrypoint/status/heartbeat.py",
)
HEAVY = {"dataclasses", "typing", "pathlib", "logging", "anyio", "enum", "ipaddress"}
"""What no LIGHT file imports at its top: it runs before the firewall is closed, or every few seconds."""

STARTERS = {"open_process", "run_process", "Popen", "system", "popen", "fork", "posix_spawn", "posix_spawnp"}
"""Names by which programs are started."""

PURE = {"os", "socket", "pathlib", "io", "anyio", "tempfile", "time", "logging", "entrypoint"}
"""What `shadowsocks` may not import: it does no I/O and knows nothing of Linux or WARP."""

LONGEST = 400
SHORTEST = 60
SHORT = {
    "entrypoint/early/optional.py": "light: the early path and the kill switch leave out the same pieces",
    "entrypoint/early/preflight.py": "light: runs before the firewall is closed",
    "entrypoint/health/observer.py": "what the monitor reports and needs; its users import no more",
    "entrypoint/linux/run.py": "light: the early path starts nft with it",
    "entrypoint/linux/this_machine.py": "the only place that builds the real World",
    "entrypoint/status/heartbeat.py": "light: `healthcheck` starts a new Python every few seconds",
}
"""Why a product file may be shorter than SHORTEST lines."""

MOST_IMPORTS = 0.066
"""Share of the product's lines that may be imports."""


def python_files(*folders: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py"))


PRODUCT = python_files("entrypoint", "shadowsocks")
SOURCES = [*PRODUCT, *python_files("tests", "examples", "bench", "release")]


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), path)


@cache
def text(path: str) -> str:
    return (ROOT / path).read_text()


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node except what only the type checker sees."""
    yield node
    for child in ast.iter_child_nodes(node):
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not typing:
            yield from running(child)


def imports(path: str, nodes: Iterable[ast.AST] | None = None) -> set[str]:
    """Return the modules a file imports when it runs, as full dotted names."""
    found = set[str]()
    for node in running(tree(path)) if nodes is None else nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & MODULES or {node.module or ""}
    return found


MODULES = {path.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for path in SOURCES}


def roots(path: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def graph() -> dict[str, set[str]]:
    """Return which of the product's modules import which, the type checker's imports included."""
    return {
        path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): imports(
            path, ast.walk(tree(path))
        )
        for path in PRODUCT
    }


def test_each_floor_imports_only_what_stands_right_of_it() -> None:
    level = {room: n for n, floor in enumerate(FLOORS.split(" | ")) for room in floor.split()}
    named = {path.split("/")[1].removesuffix(".py") for path in PRODUCT if path.startswith("entrypoint/")}
    assert named - {"__init__"} == set(level), "a room without a floor"

    def room(module: str) -> str:
        return module.partition(".")[2].partition(".")[0]

    upwards = [
        f"{one} -> {other}"
        for one, others in graph().items()
        for other in others
        if one.startswith("entrypoint.") and other.startswith("entrypoint.")
        if room(one) != room(other) and level[room(one)] >= level[room(other)]
    ]
    assert not upwards


def test_no_circles() -> None:
    known = graph()
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()
    TopologicalSorter({one: others & known.keys() - {one} for one, others in known.items()}).prepare()


def test_walls() -> None:
    assert "subprocess" in roots("entrypoint/linux/run.py"), "the walk sees imports"
    for module, allowed in ONLY_IN.items():
        assert {path for path in PRODUCT if module in roots(path)} <= allowed, module
    starting = {
        path
        for path in PRODUCT
        for node in running(tree(path))
        if isinstance(node, ast.Attribute)
        and (node.attr in STARTERS or node.attr.startswith(("exec", "spawn")))
    }
    assert starting <= ONLY_IN["subprocess"]
    assert not [path for path in PRODUCT if path.startswith("shadowsocks/") and roots(path) & PURE]
    assert not [path for path in PRODUCT if "tests" in roots(path)]
    for path in LIGHT:
        assert not {name.partition(".")[0] for name in imports(path, tree(path).body)} & HEAVY, path
    early = {name for name in imports("entrypoint/early/close.py", tree("entrypoint/early/close.py").body)}
    assert {name for name in early if name.startswith("entrypoint")} <= {
        "entrypoint.early.optional",
        "entrypoint.errors",
        "entrypoint.linux.run",
    }


def test_only_main_exits() -> None:
    exits = {
        path
        for path in PRODUCT
        for node in running(tree(path))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.exit", "os._exit"))
        or (isinstance(node, ast.Name) and node.id == "SystemExit" and isinstance(node.ctx, ast.Load))
    }
    assert exits <= {"entrypoint/__main__.py"}


def test_tests_use_behaving_fakes() -> None:
    tests = [path for path in SOURCES if path.startswith("tests/")]
    assert not [path for path in tests if "unittest" in roots(path)]
    patched = [
        f"{path}:{node.lineno}"
        for path in tests
        for node in running(tree(path))
        if isinstance(node, ast.Attribute) and node.attr == "setattr"
    ]
    assert not patched, "monkeypatch.setattr"


def test_shared_code_of_tests_is_in_no_test() -> None:
    borrowed = [
        f"{path} imports {name}"
        for path in SOURCES
        for name in imports(path)
        if name.startswith("tests.") and name.rpartition(".")[2].startswith("test_")
    ]
    assert not borrowed


def test_programs_given_as_text_import_what_exists() -> None:
    """Type checker and linter do not see them, so a move would break them unnoticed."""
    given = [
        (path, module, name.strip())
        for path in SOURCES
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for module, names in re.findall(
            r"^\s*from ((?:entrypoint|shadowsocks|tests)[\w.]*) import ([\w, ]+)$", node.value, re.MULTILINE
        )
        for name in names.split(",")
    ]
    assert given
    assert not [
        one
        for one in given
        if not hasattr(importlib.import_module(one[1]), one[2]) and ".".join(one[1:]) not in MODULES
    ]


def test_files_have_the_size_of_a_reason() -> None:
    lines = {path: len(text(path).splitlines()) for path in SOURCES}
    assert not {path: count for path, count in lines.items() if count > LONGEST}, (
        "split it by reason to change"
    )
    short = {path for path in PRODUCT if lines[path] < SHORTEST and not path.endswith("__init__.py")}
    assert short == SHORT.keys()


def test_imports_are_a_small_part_of_the_product() -> None:
    importing = sum(
        (node.end_lineno or node.lineno) - node.lineno + 1
        for path in PRODUCT
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Import | ast.ImportFrom)
    )
    assert importing <= MOST_IMPORTS * sum(len(text(path).splitlines()) for path in PRODUCT)


def test_names_say_what_a_file_is_for() -> None:
    vague = re.compile(r"(^|_)(util|helper|manager|handler|common|misc)s?($|_)")
    assert not [path for path in SOURCES if vague.search(Path(path).stem)]
    named = [
        f"{path}: {node.name}"
        for path in PRODUCT
        for node in running(tree(path))
        if isinstance(node, ast.ClassDef) and re.search(r"(Util|Helper|Manager|Handler)s?$", node.name)
    ]
    assert not named


def test_the_version_stands_in_one_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    holding = [
        path for path in ("Dockerfile", "Makefile", "compose.yaml") if entrypoint.__version__ in text(path)
    ]
    assert not holding, "entrypoint/__init__.py holds it"


def test_no_buildkit_only_syntax() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert not re.search(r"^# *syntax=|--mount=|--chmod|--link|<<[A-Z]|\$\{TARGET", dockerfile, re.MULTILINE)
    assert not re.search(r"^ADD ", dockerfile, re.MULTILINE), "COPY; nothing is fetched by URL"
    assert dockerfile.rstrip().endswith("FROM runtime"), "a build without a target must make what ships"


def test_compose_gives_what_is_needed_and_no_more() -> None:
    service = composed()
    assert service["cap_drop"] == ["ALL"]
    assert sorted(service["cap_add"]) == ["KILL", "NET_ADMIN", "SETGID", "SETUID"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is True
    assert service["tmpfs"] == ["/run"]
    assert [volume["target"] for volume in service["volumes"]] == ["/var/lib/ss-warp"]
    assert not service.get("privileged")
    assert "network_mode" not in service


def test_the_hosts_example_differs_only_where_the_network_is_meant() -> None:
    service, host = composed(), composed("examples/host/compose.yaml")
    for name in (
        "cap_drop",
        "cap_add",
        "security_opt",
        "read_only",
        "tmpfs",
        "devices",
        "restart",
        "healthcheck",
    ):
        assert host[name] == service[name], name
    assert host["network_mode"] == "host"
    assert (host["environment"]["NETWORK"], host["environment"]["ROUTE_MODE"]) == ("host", "proxy")
    assert not {"ports", "sysctls", "dns", "build"} & set(host)


def test_compose_serves_shadowsocks_both_ways() -> None:
    published = {(port["published"], port["target"], port["protocol"]) for port in composed()["ports"]}
    assert published == {("8388", 8388, "tcp"), ("8388", 8388, "udp")}


def test_compose_keeps_it_running_and_ends_it_in_order() -> None:
    service = composed()
    assert service["restart"] == "unless-stopped"
    assert service["stop_grace_period"] == "10s"
    assert service["dns"] == ["1.1.1.1", "2606:4700:4700::1111", "1.0.0.1"], "Docker's resolver asks three"
    assert service["sysctls"] == {"net.ipv6.conf.all.disable_ipv6": "0"}
    assert service["environment"]["NETWORK"] == "own"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}


def test_compose_asks_health_as_the_image_does() -> None:
    words = re.search(r"HEALTHCHECK .* CMD (\[.*\])", (ROOT / "Dockerfile").read_text())
    assert words
    assert composed()["healthcheck"]["test"] == ["CMD", *json.loads(words[1])]


def test_compose_is_plain_enough_for_docker_compose_1_29() -> None:
    text = (ROOT / "compose.yaml").read_text()
    assert not re.search(r"^name:|start_interval|!reset|!override", text, re.MULTILINE)


def test_the_same_python_everywhere() -> None:
    assert sys.version_info[:2] == (3, 13)
