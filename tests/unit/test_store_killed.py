"""C-16: a first start is killed at each line of the code that changes the account's file."""

import subprocess
import sys
from pathlib import Path

KILLED = """
import json, os, sys
from pathlib import Path
import anyio
from entrypoint import files
from entrypoint.warp import registration, store
from entrypoint.warp.account import public_key
from tests.fakes.box import Box

watched = {files.__file__, store.__file__, registration.__file__}
when = 0
while True:
    when += 1
    directory = Path(sys.argv[1]) / str(when)
    directory.mkdir()
    sent = directory / "sent"
    child = os.fork()
    if not child:
        box = Box(directory)
        box.site.on_call = lambda request: (box.look(request), sent.write_bytes(request.content))
        seen = 0
        def local(frame, event, argument):
            global seen
            seen += event == "line"
            if seen == when:
                os._exit(9)
            return local
        sys.settrace(lambda frame, event, argument: local if frame.f_code.co_filename in watched else None)
        anyio.run(box.start)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    kept = json.loads(files.read(directory / "account.json") or b"{}")
    before = (kept.get("pending") or kept.get("account") or {}).get("private_key")
    box = Box(directory)
    account = anyio.run(box.start)
    if sent.exists():  # the key that the API knows was never lost
        assert before and json.loads(sent.read_bytes())["key"] == public_key(account.private_key)
    assert before in (None, account.private_key)
    assert len(box.site.calls) == (0 if "account" in kept else 1)
    assert set(box.files()) - {"sent"} == {"account.json"}
    print(status, *kept)
    if status == 0:
        break
"""


def test_c_16_killed_at_any_line_the_next_start_finds_its_key(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert run.returncode == 0, run.stderr
    outcomes = run.stdout.splitlines()
    assert outcomes[-1] == "0 format account"
    assert {"9", "9 format pending", "9 format account"} <= set(outcomes)
