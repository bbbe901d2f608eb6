"""Every way to start it that users copy allows the same, and the build makes nothing else than they need."""

import re
import shlex
import tomllib
from configparser import ConfigParser
from typing import Any

import pytest

from tests.image.compose import composed, parsed, resolved
from tests.unit.docs.pages import ROOT, read, section

ALIKE = ("cap_add", "cap_drop", "devices", "read_only", "restart", "security_opt", "tmpfs")
OWN = ("dns", "sysctls", "logging", "volumes", "ports")
"""What compose.yaml has beside ALIKE, in a network of its own."""

PUBLISHED: str = tomllib.loads(read("pyproject.toml"))["tool"]["ss-warp"]["published"]
IMAGE = "${SS_WARP_IMAGE:-ss-warp}" if not PUBLISHED else f"${{SS_WARP_IMAGE:-{PUBLISHED}:0.1}}"
COPIED = ("compose.yaml", "compose.min.yaml", "examples/host/compose.yaml", "examples/pod/ss-warp.yaml")


def stages() -> dict[str, list[str]]:
    """Return the Dockerfile's stages in order, each with those that it takes from."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in read("Dockerfile").splitlines():
        if match := re.match(r"FROM (\S+)(?: AS (\S+))?", line):
            name = match[2] or ""
            found[name] = [match[1]]
        elif match := re.match(r"COPY --from=(\S+)", line):
            found[name].append(match[1])
    return found


def words(command: str) -> dict[str, list[str]]:
    """Return the options of a `docker run` line, by name."""
    given: dict[str, list[str]] = {}
    rest = iter(shlex.split(command.replace("\\\n", " "))[2:])
    for word in rest:
        if word in ("--detach", "--read-only"):
            given[word] = []
        elif word.startswith("--"):
            given.setdefault(word, []).append(next(rest))
        else:
            given["image"] = [word]
    return given


def docker_run() -> dict[str, list[str]]:
    [command] = re.findall(
        r"^\$ (docker run --detach .*?[^\\])$", read("docs/install.md"), re.DOTALL | re.MULTILINE
    )
    return words(command)


def quadlet() -> dict[str, list[str]]:
    """Return the [Container] section of the quadlet file; keys may repeat there."""
    lines = section_of("Container", read("examples/podman/ss-warp.container"))
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, value = line.partition("=")
        found.setdefault(key, []).append(value)
    return found


def section_of(name: str, unit: str) -> list[str]:
    body = unit.partition(f"[{name}]\n")[2].partition("\n[")[0]
    return [line for line in body.splitlines() if line and not line.startswith("#")]


def strings(ports: list[dict[str, Any]]) -> list[str]:
    return [f"{port['published']}:{port['target']}/{port['protocol']}" for port in ports]


def test_compose_up_builds_nothing_but_what_ships() -> None:
    """The legacy builder makes every stage that stands before the one asked for."""
    order = stages()
    needed, waiting = set[str](), ["runtime"]
    while waiting:
        one = waiting.pop()
        needed.add(one)
        waiting += [other for other in order.get(one, []) if other in order]
    before = list(order)[: list(order).index("runtime") + 1]
    assert {"shadowsocks", "python"} <= needed, "the walk sees stages"
    assert set(before) == needed


def test_what_tests_need_is_built_after_what_ships() -> None:
    shipped = re.sub(r"^#.*", "", read("Dockerfile").partition("AS runtime")[0], flags=re.MULTILINE)
    assert "ssserver" in shipped
    assert not re.findall("sslocal|wireguard-edge|go test|tests/", shipped)


@pytest.mark.parametrize("path", COPIED)
def test_a_compose_file_runs_the_image_that_is_set(path: str) -> None:
    assert f"    image: {IMAGE}\n" in read(path)
    other = resolved(path, environment={"SS_WARP_IMAGE": "registry.example.net/ss-warp:0.1"})
    assert other["services"]["ss-warp"]["image"] == "registry.example.net/ss-warp:0.1"


def test_the_short_compose_file_allows_the_same() -> None:
    service, short = composed(), composed("compose.min.yaml")
    assert len(read("compose.min.yaml").splitlines()) <= 20
    for name in (*ALIKE, *OWN):
        assert short[name] == service[name], name
    assert short["environment"]["NETWORK"] == "own"
    assert "build" not in short
    assert resolved("compose.min.yaml")["volumes"].keys() == resolved("compose.yaml")["volumes"].keys()


def test_docker_run_allows_the_same() -> None:
    service, run = composed(), docker_run()
    assert run["--cap-drop"] == service["cap_drop"]
    assert run["--cap-add"] == service["cap_add"]
    assert run["--security-opt"] == service["security_opt"]
    assert run["--tmpfs"] == service["tmpfs"]
    assert run["--device"] == [device["source"] for device in service["devices"]]
    assert run["--restart"] == [service["restart"]]
    assert run["--dns"] == service["dns"]
    assert run["--sysctl"] == [f"{name}={value}" for name, value in service["sysctls"].items()]
    assert run["--publish"] == strings(service["ports"])
    assert {one.partition(":")[2] for one in run["--volume"]} == {one["target"] for one in service["volumes"]}
    assert (
        run["--log-opt"] == [f"{name}={value}" for name, value in service["logging"]["options"].items()][::-1]
    )
    assert "NETWORK=own" in run["--env"]
    assert {"--read-only", "--detach"} <= set(run)
    assert run["image"] == ([f"{PUBLISHED}:0.1"] if PUBLISHED else ["ss-warp"])


def test_the_quadlet_file_allows_the_same() -> None:
    service, unit = composed(), quadlet()
    assert unit["DropCapability"] == ["all"]
    assert unit["AddCapability"] == [" ".join(service["cap_add"])]
    assert (unit["NoNewPrivileges"], unit["ReadOnly"]) == (["true"], ["true"])
    assert unit["Tmpfs"] == service["tmpfs"]
    assert unit["AddDevice"] == [device["source"] for device in service["devices"]]
    assert unit["DNS"] == service["dns"]
    assert unit["Sysctl"] == [f"{name}={value}" for name, value in service["sysctls"].items()]
    assert unit["PublishPort"] == strings(service["ports"])
    assert [one.partition(":")[2] for one in unit["Volume"]] == [one["target"] for one in service["volumes"]]
    assert "NETWORK=own" in unit["Environment"]
    parser = ConfigParser(strict=False, delimiters="=", comment_prefixes="#", interpolation=None)
    parser.read_string(read("examples/podman/ss-warp.container"))
    assert parser.sections() == ["Unit", "Container", "Service", "Install"]


def test_ipv6_comes_on_top_of_the_compose_file() -> None:
    plain, with6 = resolved("compose.yaml"), resolved("compose.yaml", "compose.ipv6.yaml")
    assert with6["services"] == plain["services"]
    assert with6["networks"]["default"]["enable_ipv6"] is True
    other = resolved(
        "compose.yaml", "compose.ipv6.yaml", environment={"SS_WARP_IPV6_SUBNET": "fd00:1:2:3::/64"}
    )
    assert other["networks"]["default"]["ipam"]["config"] == [{"subnet": "fd00:1:2:3::/64"}]


def test_the_cloud_init_file_builds_what_is_in_the_repository() -> None:
    text = read("examples/cloud-init/user-data.yaml")
    assert text.startswith("#cloud-config\n")
    data = parsed(text)
    assert set(data) == {"package_update", "packages", "write_files", "runcmd"}
    assert {"docker.io", "docker-compose", "git"} <= set(data["packages"])
    [env] = data["write_files"]
    assert env["permissions"] == "0600"
    settings = re.findall(r"^([A-Z_]+)=", env["content"], re.MULTILINE)
    assert set(settings) <= set(composed()["environment"])
    clone = next(command for command in data["runcmd"] if command[:2] == ["git", "clone"])
    assert clone[-2] in read("README.md"), "the address that the README names"
    started = [command for command in data["runcmd"] if command[0] == "docker-compose"]
    assert all(word != "pull" for command in started for word in command)


def test_nothing_claims_an_image_that_is_not_published() -> None:
    """The one variable is `published` in pyproject.toml."""
    ways = section("Ways to get the image", read("docs/install.md"))
    order = re.findall(r"^\*\*\d\. (\w+)", ways, re.MULTILINE)
    if PUBLISHED:
        assert order[0] == "Pull"
        return
    assert order == ["Build", "Load", "Pull"]
    assert ways.startswith("\nNo image is published yet")
    for page in ("README.md", "README.zh-CN.md", "compose.yaml", "compose.min.yaml", "Makefile"):
        assert not re.search(r"ghcr\.io/ss-warp|docker pull (\S+/)?ss-warp|docker\.io/ss-warp", read(page)), (
            page
        )


def test_build_arguments_that_the_page_names_exist() -> None:
    named = re.findall(r"^\| `([A-Z_]+)` \|", section("The build", read("docs/install.md")), re.MULTILINE)
    assert len(named) >= 3
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert not [name for name in named if not re.search(rf"^ARG {name}=", dockerfile, re.MULTILINE)]
