"""The house rules that a program can check, on the source itself."""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import entrypoint
from tests.image.compose import composed

ROOT = Path(__file__).parents[2]
LONGEST = 250

ONLY_IN = {
    "pyroute2": {"entrypoint/pyroute.py"},
    "entrypoint.pyroute": {"entrypoint/network/netlink.py", "entrypoint/wireguard/kernel.py"},
    "httpx": {"entrypoint/warp/api.py", "entrypoint/health/checks.py", "entrypoint/https.py"},
    "httpcore": {"entrypoint/https.py"},
    "subprocess": {"entrypoint/process.py", "entrypoint/children.py"},
    "multiprocessing": set[str](),
    "asyncio": set[str](),  # anyio, whose cancellation is level-triggered
    "requests": set[str](),
}
"""Module → the product's files that may import it when they run."""

STARTERS = {"open_process", "run_process", "Popen", "system", "popen", "fork", "posix_spawn", "posix_spawnp"}
"""Names by which programs are started."""

PURE = {"os", "socket", "pathlib", "io", "anyio", "tempfile", "time", "logging", "entrypoint"}
"""What `shadowsocks` may not import: it does no I/O and knows nothing of Linux or WARP."""


def python_files(*folders: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for folder in folders for path in (ROOT / folder).rglob("*.py"))


PRODUCT = python_files("entrypoint", "shadowsocks")
SOURCES = [*PRODUCT, *python_files("tests", "examples", "bench")]


@cache
def tree(path: str) -> ast.Module:
    return ast.parse((ROOT / path).read_text(), path)


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Yield every node except what only the type checker sees."""
    yield node
    for child in ast.iter_child_nodes(node):
        typing = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not typing:
            yield from running(child)


def imports(path: str) -> set[str]:
    """Return the modules a file imports, as full dotted names."""
    found = set[str]()
    for node in running(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            found.add(node.module or "")
    return found


def roots(path: str) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def test_the_walk_sees_what_it_should() -> None:
    assert "subprocess" in roots("entrypoint/process.py")
    assert "httpx" not in roots("entrypoint/ports.py"), "for the type checker only"
    assert "httpx" in ast.dump(tree("entrypoint/ports.py"))


@pytest.mark.parametrize("module", ONLY_IN)
def test_imported_only_where_it_may_be(module: str) -> None:
    assert {path for path in PRODUCT if module in roots(path) | imports(path)} <= ONLY_IN[module]


def test_only_the_doors_start_programs() -> None:
    starting = {
        path
        for path in PRODUCT
        for node in running(tree(path))
        if isinstance(node, ast.Attribute)
        and (node.attr in STARTERS or node.attr.startswith(("exec", "spawn")))
    }
    assert starting <= ONLY_IN["subprocess"]


@pytest.mark.parametrize("path", [path for path in PRODUCT if path.startswith("shadowsocks/")])
def test_shadowsocks_is_pure(path: str) -> None:
    assert not roots(path) & PURE


@pytest.mark.parametrize("path", PRODUCT)
def test_the_product_does_not_import_its_tests(path: str) -> None:
    assert "tests" not in roots(path)


def test_only_main_exits() -> None:
    exits = {
        path
        for path in PRODUCT
        for node in running(tree(path))
        if (isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.exit", "os._exit"))
        or (isinstance(node, ast.Name) and node.id == "SystemExit" and isinstance(node.ctx, ast.Load))
    }
    assert exits <= {"entrypoint/__main__.py"}


@pytest.mark.parametrize("path", [path for path in SOURCES if path.startswith("tests/")])
def test_tests_use_behaving_fakes(path: str) -> None:
    assert "unittest" not in roots(path)
    patched = [n for n in running(tree(path)) if isinstance(n, ast.Attribute) and n.attr == "setattr"]
    assert not patched, "monkeypatch.setattr"


@pytest.mark.parametrize("path", SOURCES)
def test_files_are_small(path: str) -> None:
    assert len((ROOT / path).read_text().splitlines()) <= LONGEST, "split it by reason to change"


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


def test_one_version_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["version"] == entrypoint.__version__
    assert f"ARG VERSION={entrypoint.__version__}\n" in (ROOT / "Dockerfile").read_text()


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
    assert service["dns"] == ["1.1.1.1", "1.0.0.1"]
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
