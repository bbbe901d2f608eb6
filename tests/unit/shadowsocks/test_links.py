"""The server in each client's own format, by the client itself where it is in the image."""

import json
import os
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

from bench.singbox import program
from entrypoint.commands.cli import command_line
from entrypoint.errors import UsageError
from shadowsocks.credentials import METHODS, MethodKeys, SavedKeys
from shadowsocks.links import CLIENTS, Entry, write_for
from tests.unit.shadowsocks.base64_forms import read_base64

KEY, ALICE = "AAECAwQFBgcICQoLDA0ODw==", "EBESExQVFhcYGRobHB0eHw=="
METHOD = METHODS["2022-blake3-aes-128-gcm"]
OLD = METHODS["chacha20-ietf-poly1305"]
ENTRY = Entry("ss-warp", "vps.example.net", 8388, METHOD, KEY)
ONLY_TCP = Entry("ss-warp", "2001:db8::1", 443, METHOD, KEY, udp=False)
TWO = (Entry("ss-warp-alice", "192.0.2.1", 8388, METHOD, f"{KEY}:{ALICE}"), ENTRY)


def test_surge() -> None:
    line = f'ss-warp = ss, vps.example.net, 8388, encrypt-method={METHOD}, password="{KEY}", udp-relay=true'
    assert write_for("surge", [ENTRY]) == line
    assert write_for("surge", [ONLY_TCP]).endswith(", udp-relay=false")
    assert len(write_for("surge", TWO).splitlines()) == 2
    with pytest.raises(ValueError, match="quotation mark"):
        write_for("surge", [Entry("a", "192.0.2.1", 1, OLD, 'a "q" b, and more')])


def test_mihomo_is_a_list_of_json_which_is_yaml() -> None:
    head, *items = write_for(
        "mihomo", [*TWO, Entry("😀", "192.0.2.1", 1, OLD, "pässwörd-密码-😀")]
    ).splitlines()
    assert head == "proxies:"
    assert all(item.startswith("- ") for item in items)
    proxy = {"name": "ss-warp", "type": "ss", "server": "vps.example.net", "port": 8388}
    assert json.loads(items[1][2:]) == proxy | {"cipher": METHOD.name, "password": KEY, "udp": True}
    assert "\\u" not in items[2], "go-yaml refuses escaped surrogates"


@pytest.mark.parametrize("some", [[ENTRY], [ONLY_TCP], TWO], ids=["one", "only tcp", "two"])
def test_the_real_sing_box_accepts_its_document(tmp_path: Path, some: list[Entry]) -> None:
    (tmp_path / "config.json").write_text(write_for("sing-box", some))
    argv = [str(program()), "check", "-c", str(tmp_path / "config.json")]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [one["tag"] for one in json.loads(write_for("sing-box", some))["outbounds"]] == [
        entry.name for entry in some
    ]


@pytest.mark.parametrize("some", [[ENTRY], [ONLY_TCP], TWO], ids=["one", "only tcp", "two"])
def test_the_real_sslocal_accepts_its_document(tmp_path: Path, some: list[Entry]) -> None:
    config = json.loads(write_for("shadowsocks-rust", some))
    port = 20000 + os.getpid() % 20000
    (tmp_path / "client.json").write_text(json.dumps(config | {"local_port": port}))
    argv = ["sslocal", "-c", str(tmp_path / "client.json")]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        lines = iter(process.stdout.readline, "")
        assert any("listening on" in line for line in lines), "it prints what it rejects, and ends"
        process.kill()


@pytest.mark.parametrize("client", ["android", "shadowrocket", "nekobox", "v2rayn", "outline"])
def test_clients_of_links_get_base64_and_a_name_each(client: str) -> None:
    alice = Entry("ss-warp-alice", "192.0.2.1", 8388, OLD, "a password of alice")
    (uri,) = write_for(client, [alice]).splitlines()
    assert read_base64(uri) == (OLD.name, "a password of alice")
    assert unquote(uri.partition("#")[2]) == "ss-warp-alice"
    assert ("/?outline=1" in uri) == (client == "outline")


@pytest.mark.parametrize(
    ("client", "method"), [("outline", "2022-blake3-aes-128-gcm"), ("surge", "2022-blake3-chacha20-poly1305")]
)
def test_a_method_that_a_client_does_not_have_is_refused(client: str, method: str) -> None:
    with pytest.raises(ValueError, match=f"{client} does not support {method}"):
        write_for(client, [Entry("a", "192.0.2.1", 1, METHODS[method], KEY)])


def test_every_client_says_where_its_document_goes() -> None:
    assert all(re.fullmatch(r"\S.{5,60}", client.use) for client in CLIENTS.values())


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
    saved = SavedKeys(MethodKeys(KEY, (("alice", ALICE), ("bob", KEY))))
    (tmp_path / "shadowsocks.json").write_bytes(saved.to_json())
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
    with pytest.raises(UsageError, match="outline does not support"):
        command_line(["link", "--client", "outline"])
