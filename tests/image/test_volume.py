"""Volumes as users have them: of another owner (C-18), with secrets in files (S-02)."""

import json
from typing import Any

import docker
from docker.models.volumes import Volume

from tests.conftest import Record
from tests.image.compose import restrictions
from tests.image.conftest import Run
from tests.image.stage import STATE

CANARIES = {
    "SHADOWSOCKS_PASSWORD": "Y2FuYXJ5LWNhbmFyeS0hIQ==",
    "WARP_AUTH_CLIENT_SECRET": "canary-of-a-service-token-0123456789",
}
SERVICE = {"WARP_ORG": "acme", "WARP_AUTH_CLIENT_ID": "0123.access"}


def test_c_18_a_volume_of_another_owner_is_explained(run: Run, volume: Volume) -> None:
    bound = {volume.name: {"bind": STATE, "mode": "rw"}}
    give = ["sh", "-c", f"touch {STATE}/account.json && chown -R 1000:1000 {STATE} && chmod 700 {STATE}"]
    image = restrictions()["image"]
    given = run(image=image, entrypoint=give, volumes=bound, network_mode="none", cap_add=["CHOWN"])
    assert given.wait(timeout=30)["StatusCode"] == 0
    bare = restrictions() | {"volumes": bound, "network_mode": "none", "sysctls": {}, "dns": []}
    product = run(**bare)
    assert product.wait(timeout=30)["StatusCode"] == 74
    (line,) = (one for one in product.logs().decode().splitlines() if one.startswith("ss-warp: "))
    assert "permission denied" in line and "chown -R 0" in line
    doctor = run(**bare, command=["doctor"])
    assert doctor.wait(timeout=30)["StatusCode"] != 0
    said = doctor.logs().decode()
    assert "permission denied" in said and "chown -R 0" in said and "Traceback" not in said


def test_s_02_secrets_from_files_are_in_neither_inspect_nor_history_nor_log(
    engine: docker.DockerClient, image: Any, run: Run, volume: Volume, record: Record
) -> None:
    names = " && ".join(f'printf %s "{value}" >/secrets/{name}' for name, value in CANARIES.items())
    bound = {volume.name: {"bind": "/secrets", "mode": "rw"}}
    # The record of this container has them: it stands for the user's own hands, and is removed.
    run(image=image.id, entrypoint=["sh", "-c", names], volumes=bound, network_mode="none").wait(timeout=30)
    given = {f"{name}_FILE": f"/secrets/{name}" for name in CANARIES} | SERVICE
    product = run(
        image=image.id,
        command=["settings"],
        environment=given,
        volumes={volume.name: {"bind": "/secrets", "mode": "ro"}},
        network_mode="none",
    )
    assert product.wait(timeout=30)["StatusCode"] == 0
    said = product.logs().decode()
    assert all(name in said for name in CANARIES), "they were read"
    everywhere = said + json.dumps(engine.api.inspect_container(product.id)) + json.dumps(image.history())
    assert [name for name, value in CANARIES.items() if value in everywhere] == []
    record(f"S-02: {len(CANARIES)} secrets by _FILE", "0 hits in inspect, history and log")
