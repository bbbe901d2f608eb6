"""What GitHub runs: every action pinned to a commit, no more rights than needed, targets that exist."""

import re
from functools import cache
from typing import Any

import pytest

from tests.image.compose import parsed
from tests.unit.docs.pages import ROOT, read

NAMES = sorted(path.name for path in (ROOT / ".github/workflows").iterdir())
PUBLISHES = {"contents", "packages", "id-token", "attestations"}


@cache
def workflow(name: str) -> dict[str, Any]:
    found: dict[str, Any] = parsed(read(f".github/workflows/{name}"))
    return found


def steps(name: str) -> list[dict[str, Any]]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


def test_there_are_three() -> None:
    assert NAMES == ["release.yml", "tests.yml", "weekly.yml"]


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_keys_that_github_knows(name: str) -> None:
    assert set(workflow(name)) <= {"name", "on", "permissions", "concurrency", "jobs"}
    jobs = workflow(name)["jobs"]
    for job in jobs.values():
        assert set(job) <= {"runs-on", "needs", "timeout-minutes", "permissions", "env", "steps"}
        assert set(job.get("needs", [])) <= set(jobs)
        assert job["timeout-minutes"] <= 90
    for step in steps(name):
        assert set(step) <= {"name", "uses", "with", "run", "env"}
        assert ("uses" in step) != ("run" in step)


@pytest.mark.parametrize("name", NAMES)
def test_every_action_is_pinned_to_a_commit_and_says_its_version(name: str) -> None:
    lines = re.findall(r"uses: (.*)", read(f".github/workflows/{name}"))
    assert lines
    assert not [
        line for line in lines if not re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)
    ]


@pytest.mark.parametrize("name", NAMES)
def test_only_the_release_may_write(name: str) -> None:
    assert workflow(name)["permissions"] == {"contents": "read"}
    rights = {job: set(about.get("permissions", {})) for job, about in workflow(name)["jobs"].items()}
    assert {job: have for job, have in rights.items() if have} == (
        {"publish": PUBLISHES} if name == "release.yml" else {}
    )
    checkouts = [step for step in steps(name) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_from_outside_is_put_into_a_script(name: str) -> None:
    """An expression inside `run` is pasted into the shell: the name of a branch could be a command."""
    assert not [step["run"] for step in steps(name) if "${{" in step.get("run", "")]


@pytest.mark.parametrize("name", NAMES)
def test_what_it_runs_is_here(name: str) -> None:
    commands = "\n".join(step.get("run", "") for step in steps(name))
    targets = {
        word
        for words in re.findall(r"\bmake ((?:--silent )?[a-z-]+(?: [a-z-]+)*)", commands)
        for word in words.split()
        if not word.startswith("--")
    }
    assert targets or ".ci/run" in commands
    assert all((ROOT / path).exists() for path in re.findall(r"--requirement (\S+)", commands))
    assert not [target for target in targets if not re.search(rf"^{target}:", read("Makefile"), re.MULTILINE)]
    assert all((ROOT / path).exists() for path in re.findall(r"\.ci/\w+", commands))


def test_a_release_is_tested_on_both_processors_before_it_is_published() -> None:
    jobs = workflow("release.yml")["jobs"]
    assert set(jobs["publish"]["needs"]) == {"tests", "arm64"}
    assert jobs["arm64"]["runs-on"].endswith("-arm")
    assert any("gh release create" in step.get("run", "") for step in jobs["publish"]["steps"])
    uses = [step.get("uses", "").partition("@")[0] for step in jobs["publish"]["steps"]]
    assert "actions/attest-build-provenance" in uses
