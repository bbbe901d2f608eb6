"""Closed first: before the settings are read, whatever they are; and as before when they are wrong."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from entrypoint.early.close import CLOSED_RULESET, close_firewall, load_settings_closed, require_own_namespace
from entrypoint.errors import PlatformError, SettingsError
from entrypoint.firewall.policy import Closed, FullTunnel
from entrypoint.firewall.ruleset import TABLES, ruleset
from tests.fakes.nft import FakeNft

OURS = set(TABLES)
ROOT = Path(__file__).parents[3]


def test_what_is_loaded_first_is_what_the_kill_switch_says() -> None:
    """If it differs, write the file from `ruleset(Closed())`."""
    assert Path(CLOSED_RULESET).read_text() == ruleset(Closed())


def test_nothing_big_is_imported_before_it_is_closed() -> None:
    """Each of these takes longer to import than nftables to load the table."""
    asked = (
        "import sys; sys.path.insert(0, '');"
        "from entrypoint import __main__; from entrypoint.early import close, preflight;"
        "preflight.read_privileges(); close._placement('own');"
        "print(*sorted({'dataclasses', 'typing', 'pathlib', 'inspect', 'traceback'} & set(sys.modules)))"
    )
    argv = [sys.executable, "-S", "-c", asked]
    done = subprocess.run(argv, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "\n"


class Machine:
    """`nft -f -` as a program that runs to its end."""

    def __init__(self, *, denied: bool = False) -> None:
        self.nft = FakeNft(denied=denied)
        self.nft.tables["ip others"] = ""

    def run(self, argv: Sequence[str], text: str = "") -> str:
        assert argv == ("nft", "-f", "-")
        anyio.run(self.nft.load, text)
        return ""

    @property
    def tables(self) -> set[str]:
        assert "ip others" in self.nft.tables
        return set(self.nft.tables) - {"ip others"}


@pytest.fixture
def machine() -> Machine:
    return Machine()


def leave_a_predecessors(machine: Machine) -> None:
    text = ruleset(FullTunnel(device="wg0"))
    machine.run(("nft", "-f", "-"), text)


@pytest.mark.parametrize("firewall", ["", "on", "of", "rubbish", "OFFF"])
def test_it_closes_unless_it_is_plainly_told_not_to(machine: Machine, firewall: str) -> None:
    early = close_firewall({"NETWORK": "own", "FIREWALL": firewall}, machine.run)
    assert (early.placement, early.closed, early.existed) == ("own", True, False)
    assert machine.tables == OURS
    assert 'oifname "wg0"' not in machine.nft.tables["inet ss_warp"]


@pytest.mark.parametrize("quote", ['"', "'"])
def test_it_reads_quoted_words_as_the_settings_do(machine: Machine, quote: str) -> None:
    def quoted(word: str) -> str:
        return f" {quote}{word}{quote} "

    close_firewall({"NETWORK": quoted("own"), "FIREWALL": quoted("off")}, machine.run)
    assert machine.tables == set()
    close_firewall({"NETWORK": quoted("own")}, machine.run)
    assert machine.tables == OURS


def test_what_a_predecessor_left_is_replaced_and_remembered(machine: Machine) -> None:
    leave_a_predecessors(machine)
    assert 'oifname "wg0"' in machine.nft.tables["inet ss_warp"]
    early = close_firewall({"NETWORK": "own"}, machine.run)
    assert (early.placement, early.closed, early.existed) == ("own", True, True)
    assert 'oifname "wg0"' not in machine.nft.tables["inet ss_warp"]
    closed = dict(machine.nft.tables)
    early.release(machine.run)
    assert machine.nft.tables == closed


def test_releasing_takes_back_what_this_start_did(machine: Machine) -> None:
    close_firewall({"NETWORK": "own"}, machine.run).release(machine.run)
    assert machine.tables == set()


@pytest.mark.parametrize(
    "environ",
    [
        {"NETWORK": "host"},
        {"NETWORK": "rubbish"},
        {"NETWORK": "own", "FIREWALL": "off"},
        {"NETWORK": "own", "FIREWALL": " False "},
        {"NETWORK": "own", "FIREWALL": "0"},
    ],
)
def test_it_touches_nothing_on_a_host_or_when_told(machine: Machine, environ: dict[str, str]) -> None:
    early = close_firewall(environ, machine.run)
    early.release(machine.run)
    assert (early.closed, machine.nft.count) == (False, 0)


@pytest.mark.parametrize("predecessor", [False, True])
def test_wrong_settings_are_all_told_and_leave_everything_as_it_was(
    machine: Machine, predecessor: bool
) -> None:
    if predecessor:
        leave_a_predecessors(machine)
    environ = {"NETWORK": "own", "SHADOWSOCKS_PORT": "0", "WARP_STATE_DIR": "here", "FIREWAL": "on"}
    with pytest.raises(SettingsError) as caught:
        load_settings_closed(environ, machine.run)
    named = {problem.partition(":")[0] for problem in caught.value.problems}
    assert {"SHADOWSOCKS_PORT", "WARP_STATE_DIR", "FIREWAL"} <= named
    assert machine.tables == (OURS if predecessor else set())


def test_good_settings_stay_behind_it(machine: Machine) -> None:
    settings = load_settings_closed({"NETWORK": "own", "SHADOWSOCKS_PORT": "8389"}, machine.run)
    assert settings.shadowsocks.port == 8389
    assert machine.tables == OURS


@pytest.mark.parametrize("predecessor", [False, True])
def test_a_host_is_left_as_it_is(machine: Machine, predecessor: bool) -> None:
    if predecessor:
        leave_a_predecessors(machine)
    before, count = dict(machine.nft.tables), machine.nft.count
    settings = load_settings_closed({"NETWORK": "host"}, machine.run)
    assert settings.routing.network == "host"
    assert (machine.nft.tables, machine.nft.count) == (before, count)


def test_a_guess_is_never_left_open(machine: Machine) -> None:
    assert load_settings_closed({}, machine.run).routing.network in ("own", "host")


def test_a_file_that_names_the_host_opens_again(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "network").write_text("host")
    early = load_settings_closed({"NETWORK_FILE": str(tmp_path / "network")}, machine.run)
    assert early.routing.network == "host"
    assert machine.tables == set()


def test_an_nft_that_refuses_is_one_sentence() -> None:
    machine = Machine(denied=True)
    with pytest.raises(PlatformError) as caught:
        load_settings_closed({"NETWORK": "own"}, machine.run)
    assert caught.value.message == "cannot load the firewall: nft: Operation not permitted"
    assert caught.value.hint


def test_own_in_the_hosts_namespace_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    initial = tmp_path / "dev_weight"
    require_own_namespace(str(initial))
    initial.touch()
    with pytest.raises(PlatformError) as refused:
        require_own_namespace(str(initial))
    assert "network_mode: host" in refused.value.hint


@pytest.mark.parametrize("lacks", ["fib daddr", "table arp"])
def test_a_kernel_that_lacks_an_optional_piece_is_closed_all_the_same(machine: Machine, lacks: str) -> None:
    machine.nft.lacks = lacks
    assert close_firewall({"NETWORK": "own"}, machine.run).closed
    assert "policy drop" in machine.nft.tables["inet ss_warp"]
