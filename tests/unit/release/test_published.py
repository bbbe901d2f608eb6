"""`.ci/published NAME` makes every file that users copy name the image."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.unit.docs.pages import ROOT, section

FILES = (
    ".ci/published",
    "README.md",
    "README.zh-CN.md",
    "compose.min.yaml",
    "compose.yaml",
    "docs/install.md",
    "entrypoint/__init__.py",
    "examples/host/compose.yaml",
    "examples/pod/ss-warp.yaml",
    "examples/swarm/stack.yaml",
    "pyproject.toml",
)
COPIED = [path for path in FILES if path.endswith(".yaml")]
NAME = "registry.example.net/someone/ss-warp"


@pytest.fixture
def after(tmp_path: Path) -> Path:
    """A copy of the files, after the script ran there."""
    for path in FILES:
        copy = tmp_path / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, copy)
    script = tmp_path / ".ci/published"
    subprocess.run([script, NAME], check=True, env={"PATH": os.environ["PATH"]})
    return tmp_path


def test_every_compose_file_names_it(after: Path) -> None:
    for path in COPIED:
        assert f"    image: ${{SS_WARP_IMAGE:-{NAME}:0.1}}\n" in (after / path).read_text()
    assert f'published = "{NAME}"\n' in (after / "pyproject.toml").read_text()


def test_pulling_comes_first(after: Path) -> None:
    page = (after / "docs/install.md").read_text()
    ways = section("Ways to get the image", page)
    assert re.findall(r"^\*\*(\d\. \w+)", ways, re.MULTILINE) == ["1. Pull", "2. Build", "3. Load", "4. Pull"]
    assert "No image is published" not in page
    assert f"SHADOWSOCKS_PUBLIC_HOST=vps.example.net {NAME}:0.1\n" in page, "docker run"
    for readme in ("README.md", "README.zh-CN.md"):
        assert f"# pulls {NAME}:0.1\n" in (after / readme).read_text()


def test_it_changes_nothing_the_second_time(after: Path) -> None:
    once = {path: (after / path).read_text() for path in FILES}
    subprocess.run([after / ".ci/published", NAME], check=True, env={"PATH": os.environ["PATH"]})
    assert {path: (after / path).read_text() for path in FILES} == once
