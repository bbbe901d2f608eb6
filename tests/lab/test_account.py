"""Accounts end to end: licence, key, departure; against the emulated Cloudflare, in topology.py's lab."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloudflare.client import Cloudflare
from tests.cloudflare.faults import created_but_500, hang, reset, status
from tests.lab.product import Product
from tests.lab.topology import Lab, Place

pytestmark = pytest.mark.lab
LICENCE = "Ab12Cd34-Ef56Gh78-Ij90Kl12"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cloudflare")) as made:
        yield made


@pytest.fixture
def cf(lab: Lab) -> Iterator[Cloudflare]:
    lab.cloudflare.forget_calls()
    yield lab.cloudflare
    lab.cloudflare.heal()
    lab.cloudflare.limit(None)


def product(lab: Lab, state: Path, **environment: str) -> Product:
    return Product(lab, state, environment={"SHADOWSOCKS": "off", **environment})


def command(lab: Lab, product: Product, *words: str, code: int = 0, place: Place = "H") -> str:
    """Run `ss-warp account …` beside it, as docker exec does; elsewhere, as docker run does."""
    done = lab.run(
        place,
        [sys.executable, "-m", "entrypoint", "account", *words],
        environment={"WARP_STATE_DIR": str(product.state), "WARP_API_CA_FILE": str(lab.cloudflare.ca_file)},
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def methods(cf: Cloudflare) -> list[str]:
    return [f"{one.method} {one.status}" for one in cf.calls()]


def test_a_licence_within_a_budget_of_three_calls(lab: Lab, cf: Cloudflare, tmp_path: Path) -> None:
    """A-13: the second start does not ask at all."""
    cf.limit(3)
    cf.sell(LICENCE)
    with product(lab, tmp_path / "state", WARP_LICENSE_KEY=LICENCE) as one:
        seen = one.reached("connected")
        assert (seen["warp"], seen["account"]) == ("plus", {"kind": "plus"})
        assert methods(cf) == ["POST 200", "PUT 200", "GET 200"]
        assert one.stop() == 0
        one.start()
        assert one.reached("connected")["warp"] == "plus"
    assert len(cf.calls()) == 3
    assert LICENCE not in one.log


def test_a_refused_licence_leaves_the_free_tier(lab: Lab, cf: Cloudflare, tmp_path: Path) -> None:
    with product(lab, tmp_path / "state", WARP_LICENSE_KEY="nonsense-key") as one:
        assert one.reached("connected")["warp"] == "on"
        assert "is not valid" in one.said("the licence key")
        assert "WARP_LICENSE_KEY" not in command(lab, one, "show")


def test_a_licence_by_command_is_bound_at_the_next_start(lab: Lab, cf: Cloudflare, tmp_path: Path) -> None:
    cf.sell(LICENCE)
    with product(lab, tmp_path / "state") as one:
        one.reached("connected")
        assert "saved: ss-warp will bind the licence key when it next starts" in command(
            lab, one, "license", LICENCE
        )
        assert "bind another licence key on the next start" in command(lab, one, "show")
        one.stop()
        one.start()
        assert one.reached("connected")["account"] == {"kind": "plus"}
        assert "kind        plus" in command(lab, one, "show")


def gone(cf: Cloudflare) -> bool:
    return not cf.edge.devices()[-1].active


def test_unregistered_on_exit(lab: Lab, cf: Cloudflare, tmp_path: Path) -> None:
    with product(lab, tmp_path / "state", WARP_UNREGISTER_ON_EXIT="on") as one:
        one.reached("connected")
        assert one.stop() == 0
        assert gone(cf)
        assert not (one.state / "account.json").exists()
        one.start().reached("connected")
    assert len(cf.registrations()) == 2


def test_deleted_by_command_when_it_stops(lab: Lab, cf: Cloudflare, tmp_path: Path) -> None:
    with product(lab, tmp_path / "state") as one:
        one.reached("connected")
        assert "add --yes" in command(lab, one, "delete", code=64)
        assert "when it next stops" in command(lab, one, "delete", "--yes")
        assert not gone(cf), "the tunnel still runs on it"
        assert one.stop() == 0
    assert gone(cf)
    assert "there is no account" in command(lab, one, "show", code=74)


def test_at_once_when_nobody_runs(lab: Lab, cf: Cloudflare, tmp_path: Path) -> None:
    cf.sell(LICENCE)
    with product(lab, tmp_path / "state") as one:
        one.reached("connected")
    before = cf.edge.devices()[-1].key
    assert "changed the key" in command(lab, one, "rotate-key", place="C")
    assert cf.edge.devices()[-1].key != before
    assert "this is a WARP+ account" in command(lab, one, "license", LICENCE, place="C")
    cf.fault(status(500))
    said = command(lab, one, "delete", "--yes", code=69, place="C")
    assert "saved, but not applied yet" in said
    assert not gone(cf)
    assert "unregistered the device" in command(lab, one, "delete", "--yes", place="C")
    assert gone(cf)


def test_the_api_is_gone_when_it_stops(lab: Lab, cf: Cloudflare, tmp_path: Path) -> None:
    with product(lab, tmp_path / "state", WARP_UNREGISTER_ON_EXIT="on") as one:
        one.reached("connected")
        cf.fault(hang())
        assert one.stop() == 0
        assert "cannot unregister the device: no answer within 3 s" in one.log
        assert (one.state / "account.json").exists()


ROTATIONS = {
    "answered": (),
    "only by PATCH": (status(404, "404 page not found").only("PUT"),),
    "500 before": (status(500).only("PUT"),),
    "500 after": (created_but_500().only("PUT"),),
    "answer lost, and the question after it": (reset().only("PUT"), status(500).only("GET")),
    "not done, and nothing can be asked": (status(500).only("PUT"), status(500).only("GET")),
}


@pytest.mark.parametrize("how", [pytest.param("answered", marks=pytest.mark.vm), *list(ROTATIONS)[1:]])
def test_a_rotated_key_connects_whatever_became_of_the_answer(
    lab: Lab, cf: Cloudflare, tmp_path: Path, how: str
) -> None:
    """The device is the same, one key is left, and it is the one at the edge."""
    with product(lab, tmp_path / "state") as one:
        one.reached("connected")
        before = cf.edge.devices()[-1]
        assert "saved: ss-warp will replace the key when it next starts" in command(lab, one, "rotate-key")
        one.stop()
        cf.fault(*ROTATIONS[how])
        one.start().reached("connected")
        after = cf.edge.devices()[-1]
        assert after.id == before.id
        assert (after.key == before.key) is (how in ("500 before", "not done, and nothing can be asked"))
        assert f"public key  {after.key}" in command(lab, one, "show")
        kept = json.loads((one.state / "account.json").read_text())
        assert set(kept) == {"format", "account"}
    assert len(cf.registrations()) == 1


@pytest.mark.parametrize("form", ["wireguard", "wgcf"])
def test_what_is_exported_is_imported_and_connects(
    lab: Lab, cf: Cloudflare, tmp_path: Path, form: str
) -> None:
    with product(lab, tmp_path / "first") as one:
        one.reached("connected")
        (tmp_path / "account").write_text(command(lab, one, "export", "--format", form))
    cf.forget_calls()
    with product(lab, tmp_path / "second", WARP_IMPORT_FILE=str(tmp_path / "account")) as two:
        assert two.reached("connected")["warp"] == "on"
        assert methods(cf) == (["GET 200"] if form == "wgcf" else [])
        assert (
            command(lab, two, "export").partition("[Peer]")[0]
            == (command(lab, one, "export").partition("[Peer]")[0])
        )
