"""C-16: a first start is killed at each line of the code that changes the account's file."""

from pathlib import Path

from tests.fakes.deaths import outcomes

KILLED = """
import json, sys
from pathlib import Path
import anyio
from entrypoint.account import registration, store
from entrypoint.account.model import public_key
from entrypoint.linux import state_dir
from tests.fakes.box import Box
from tests.fakes.deaths import killed_at
from tests.fakes.warp_api import device_object

when = 0
while True:
    when += 3
    directory = Path(sys.argv[1]) / str(when)
    directory.mkdir()
    sent = directory / "sent"
    mortal = Box(directory)
    mortal.site.on_call = lambda request: (mortal.look(request), sent.write_bytes(request.content))
    status = killed_at(when, (state_dir, store, registration), lambda: anyio.run(mortal.start))
    kept = json.loads(state_dir.read(directory / "account.json") or b"{}")
    before = (kept.get("pending") or kept.get("account") or {}).get("private_key")
    box = Box(directory)
    registered = (kept.get("pending") or {}).get("device")
    if registered:  # the API lives on
        device = device_object(public_key(before)) | registered
        box.site.devices[device["id"]] = device
    account = anyio.run(box.start)
    if sent.exists():  # the key that the API knows was never lost
        assert before and json.loads(sent.read_bytes())["key"] == public_key(account.private_key)
    assert before in (None, account.private_key)
    assert [method for method, _ in box.site.calls] == (
        [] if "account" in kept else ["GET"] if registered else ["POST"]
    ), "what is registered is never registered again"
    assert set(box.files()) - {"sent"} == {"account.json"}
    print(status, *kept)
    if status == 0:
        break
"""


def test_c_16_killed_at_any_line_the_next_start_finds_its_key(tmp_path: Path) -> None:
    printed = outcomes(KILLED, tmp_path, timeout=110)
    assert printed[-1] == "0 format account"
    assert {"9", "9 format pending", "9 format account"} <= set(printed)
