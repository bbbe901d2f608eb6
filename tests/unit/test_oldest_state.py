"""An upgrade keeps the account and every password: the oldest files that any version wrote, read by this one.

tests/unit/golden/state-0.1 never changes. A new format gets a folder beside it
and a row in docs/upgrade.md.
"""

import json
import shutil
from pathlib import Path

import pytest

from entrypoint.addresses import Mark
from entrypoint.client_details import load_or_generate
from entrypoint.routing.plan import OurIds, decode, encode
from entrypoint.settings import load
from tests.fakes.box import Box
from tests.unit.docs.pages import ROOT, read

OLDEST = ROOT / "tests/unit/golden/state-0.1"


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A volume as the oldest version left it."""
    for file in OLDEST.iterdir():
        Path(shutil.copy(file, tmp_path)).chmod(0o600)
    return tmp_path


def kept(path: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(path.read_text())
    return found


@pytest.mark.anyio
async def test_the_account_is_kept_and_nothing_is_registered(state: Path) -> None:
    before = kept(state / "account.json")
    box = Box(state)
    account = await box.start()
    assert (account.kind, account.license_key) == ("free", "Ab12Cd34-Ef56Gh78-Ij90Kl12")
    assert {str(one.ip) for one in account.addresses} == {
        "172.16.0.2",
        "2606:4700:110:8a36:df92:102a:9602:fa18",
    }
    assert not box.site.calls
    assert kept(state / "account.json") == before, (
        "a start that changes nothing leaves it for the older version"
    )


def test_passwords_and_keys_are_kept(state: Path) -> None:
    settings = load({"WARP_STATE_DIR": str(state), "SHADOWSOCKS_USERS": "alice"})
    secrets = load_or_generate(settings)
    before = kept(state / "shadowsocks.json")
    assert secrets.credentials.password == before["password"] == "MDEyMzQ1Njc4OWFiY2RlZg=="
    assert [(user.name, user.key) for user in secrets.credentials.users] == [
        ("alice", "ZmVkY2JhOTg3NjU0MzIxMA==")
    ]
    assert before.items() >= {"version": 1, "users": {"alice": "ZmVkY2JhOTg3NjU0MzIxMA=="}}.items(), (
        "what an older version reads stays where it reads it"
    )


def test_what_was_ours_in_the_kernel_is_still_known(state: Path) -> None:
    content = (state / "network.json").read_bytes()
    assert decode(content) == (OurIds(mark=Mark(0x1000, 0x1000)),), "the mark it was recorded with"
    assert encode(decode(content)) == content


def test_the_page_names_every_file_and_its_format() -> None:
    page = read("docs/upgrade.md")
    for name in ("account.json", "shadowsocks.json", "network.json"):
        assert f"| `{name}` |" in page
        assert (OLDEST / name).exists()
