"""The server as each client's configuration writes it."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from entrypoint.commands.cli import command_line
from entrypoint.errors import UsageError
from shadowsocks.credentials import SavedKeys
from shadowsocks.links import CLIENTS, Entry

KEY, ALICE = "AAECAwQFBgcICQoLDA0ODw==", "EBESExQVFhcYGRobHB0eHw=="
METHOD = "2022-blake3-aes-128-gcm"
ENTRY = Entry("ss-warp", "vps.example.net", 8388, METHOD, KEY)
ONLY_TCP = Entry("ss-warp", "2001:db8::1", 443, METHOD, KEY, udp=False)


def test_surge() -> None:
    line = f'ss-warp = ss, vps.example.net, 8388, encrypt-method={METHOD}, password="{KEY}", udp-relay=true'
    assert CLIENTS["surge"](ENTRY) == line
    assert CLIENTS["surge"](ONLY_TCP).endswith(", udp-relay=false")


def test_mihomo_takes_json_in_a_list_of_yaml() -> None:
    dash, _, flow = CLIENTS["mihomo"](ENTRY).partition(" ")
    assert dash == "-"
    proxy = {"name": "ss-warp", "type": "ss", "server": "vps.example.net", "port": 8388}
    assert json.loads(flow) == proxy | {"cipher": METHOD, "password": KEY, "udp": True}


def test_sing_box_takes_it_as_an_outbound(tmp_path: Path) -> None:
    outbound = json.loads(CLIENTS["sing-box"](ENTRY))
    assert (outbound["type"], outbound["server_port"], outbound["method"]) == ("shadowsocks", 8388, METHOD)
    assert "network" not in outbound, "both"
    assert json.loads(CLIENTS["sing-box"](ONLY_TCP))["network"] == "tcp"


@pytest.mark.parametrize("entry", [ENTRY, ONLY_TCP])
def test_the_real_sslocal_takes_its_own(tmp_path: Path, entry: Entry) -> None:
    config = json.loads(CLIENTS["shadowsocks-rust"](entry))
    assert config["mode"] == ("tcp_and_udp" if entry.udp else "tcp_only")
    port = 20000 + os.getpid() % 20000
    (tmp_path / "client.json").write_text(json.dumps(config | {"local_port": port}))
    argv = ["sslocal", "-c", str(tmp_path / "client.json")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        assert any("listening on" in line for line in lines), "it says what it does not take, and ends"
        process.kill()


def test_the_password_is_not_in_what_python_prints_of_it() -> None:
    assert KEY not in repr(ENTRY)


def test_by_the_command_for_one_user_or_all(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "WARP_STATE_DIR": str(tmp_path),
        "SHADOWSOCKS_USERS": "alice,bob",
        "SHADOWSOCKS_PUBLIC_HOST": "2001:db8::1",
        "SHADOWSOCKS_PUBLIC_PORT": "443",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "shadowsocks.json").write_bytes(SavedKeys(KEY, (("alice", ALICE), ("bob", KEY))).to_json())
    assert command_line(["link", "--client", "surge"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"ss-warp-alice = ss, 2001:db8::1, 443, encrypt-method={METHOD}, "
        f'password="{KEY}:{ALICE}", udp-relay=true'
    )
    assert command_line(["link", "--client", "surge", "--user", "bob"]) == 0
    assert capsys.readouterr().out.splitlines() == [second]
    with pytest.raises(UsageError, match="invalid choice"):
        command_line(["link", "--client", "telegraph"])
