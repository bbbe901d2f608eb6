"""What the pages say of the code is what the code says."""

import re

import pytest

from entrypoint import errors
from entrypoint.settings import VARIABLES
from tests.image.compose import composed, resolved
from tests.unit.docs.pages import FOR_READERS, GENERATED, ROOT, read, regenerated, section

PREFIXES = "SHADOWSOCKS|WARP|FIREWALL|WIREGUARD|HEALTH|DNS|LOG|ROUTE|DIRECT"
ARCHITECTURE = "docs/architecture.md"


def test_generated_parts_are_those_of_the_code() -> None:
    stale = [page for page in GENERATED if regenerated(page, read(page)) != read(page)]
    assert not stale, "run `make docs`"


def test_a_stale_part_is_noticed() -> None:
    page = read("docs/settings.md")
    stale = page.replace("| `LOG_LEVEL` |", "| `LOG_LEVELS` |")
    assert stale != page
    assert regenerated("docs/settings.md", stale) == regenerated("docs/settings.md", page)


def test_readme_is_short() -> None:
    assert len(read("README.md").splitlines()) <= 200


@pytest.mark.parametrize("page", FOR_READERS)
def test_links_within_the_repository_lead_somewhere(page: str) -> None:
    folder = (ROOT / page).parent
    targets = re.findall(r"\]\((?!http)([^)\s]+)\)", read(page))
    targets += re.findall(r"(?:src|srcset)=\"(?!http)([^\"]+)\"", read(page))
    for target in targets:
        path, _, anchor = target.partition("#")
        file = (folder / path).resolve() if path else ROOT / page
        assert file.exists(), target
        if anchor:
            assert anchor in anchors(file.read_text()), target


def anchors(page: str) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", FOR_READERS)
def test_settings_it_mentions_exist(page: str) -> None:
    text = read(page)
    if page == "docs/migrate.md":
        text = re.sub(r"^\|[^|]*", "", text, flags=re.MULTILINE)  # the names that other projects use
    mentioned = set(re.findall(rf"\b((?:{PREFIXES})_[A-Z_]+[A-Z])\b", text))
    names = {name.removesuffix("_FILE") if name not in VARIABLES else name for name in mentioned}
    aliases = {alias for variable in VARIABLES.values() for alias in variable.aliases}
    built_with = set(re.findall(r"^ARG (\w+)", read("Dockerfile"), re.MULTILINE))
    assert names <= set(VARIABLES) | aliases | built_with


@pytest.mark.parametrize("page", FOR_READERS)
def test_files_it_names_exist(page: str) -> None:
    """A file of the product may be named without its `entrypoint/`."""
    named = re.findall(r"`([\w.-]+/[\w/.-]*(?:\.py|\.nft|/)|\w+\.py)`", read(page))
    assert not [
        path for path in named if not (ROOT / path).exists() and not (ROOT / "entrypoint" / path).exists()
    ]


def test_code_that_the_architecture_names_exists() -> None:
    product = "\n".join(
        path.read_text() for folder in ("entrypoint", "shadowsocks") for path in (ROOT / folder).rglob("*.py")
    )
    names = set(
        re.findall(r"`((?:[A-Z][a-z]+\w*|_?[a-z]+_[a-z_]+)(?:\.\w+)*)(?:\(\w*\))?`", read(ARCHITECTURE))
    )
    parts = {part for name in names for part in name.split(".")}
    assert len(parts) > 20
    assert not [part for part in parts if not re.search(rf"\b{part}\b", product)]


@pytest.mark.parametrize("page", FOR_READERS)
def test_every_make_target_it_names_exists(page: str) -> None:
    targets = set(re.findall(r"(?:`|\$ )make ([a-z0-9-]+)", read(page)))
    makefile = read("Makefile")
    assert not [target for target in targets if not re.search(rf"^{target}:", makefile, re.MULTILINE)]


def test_exit_codes_are_those_of_the_errors() -> None:
    rows = re.findall(r"^\| (\d+) \|", section("Exit codes", read("docs/troubleshooting.md")), re.MULTILINE)
    classes: list[type[errors.Error]] = [errors.Error, *errors.Error.__subclasses__()]
    assert set(map(int, rows)) == {0, *(one.exit_code for one in classes)} | {64}


@pytest.mark.parametrize("path", ["compose.yaml", "examples/host/compose.yaml"])
def test_compose_passes_every_setting(path: str) -> None:
    passed = composed(path)["environment"]
    assert {name for name in passed if not name.endswith("_FILE") or name in VARIABLES} == set(VARIABLES)
    assert {f"{name}_FILE" for name, one in VARIABLES.items() if one.secret} <= set(passed)
    given = {name: "1" for name in passed if name != "NETWORK"}
    assert resolved(path, environment=given)["services"]["ss-warp"]["environment"].items() >= given.items()


def test_compose_publishes_the_port_that_is_set() -> None:
    ports = resolved("compose.yaml", environment={"SHADOWSOCKS_PORT": "443"})["services"]["ss-warp"]["ports"]
    assert {(port["published"], port["target"], port["protocol"]) for port in ports} == {
        ("443", 443, "tcp"),
        ("443", 443, "udp"),
    }


def test_env_example_names_every_setting_it_can_change() -> None:
    example = read(".env.example")
    offered = set(re.findall(r"^#?([A-Z0-9_]+)=", example, re.MULTILINE))
    assert offered == set(VARIABLES) - {"NETWORK"}
    assert not re.search(r"^[A-Z]", example, re.MULTILINE), "all commented out"
