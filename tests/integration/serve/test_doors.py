"""A server that is told to listen on all addresses: nothing else of it does, its sockets are its owner's alone, and
damaged folders do not end it.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

pytestmark = pytest.mark.ray
pytest.importorskip("ray")

from ctxner.demo import World  # noqa: E402
from tests.integration.listening import assert_only_public, connections  # noqa: E402
from tests.integration.reloading import Client, reload  # noqa: E402
from tests.integration.serve.conftest import KEY, Served  # noqa: E402
from tests.serving.damage import Damage, a_pipe, cut, in_brackets, with_field  # noqa: E402

NOBODY = 65534


def test_only_the_chosen_port_is_open_on_addresses_that_others_reach(server: Served) -> None:
    assert_only_public(server.pid, {("0.0.0.0", server.port)})


def test_other_users_of_the_machine_reach_no_socket_and_no_file_of_the_server(server: Served) -> None:
    sockets = {
        Path(connection.laddr)
        for _, connection in connections(server.pid, "unix")
        if isinstance(connection.laddr, str) and connection.laddr.startswith("/")
    }
    sockets = {path for path in sockets if path.exists()}  # HAProxy renames its own
    folders = {path.parent for path in sockets}
    admin = [path for folder in folders for path in folder.glob("admin.sock")]
    assert admin
    assert len(sockets) > 3
    assert stat.S_IMODE(admin[0].stat().st_mode) & 0o077 == 0
    for path in {*sockets, *admin}:
        assert any(stat.S_IMODE(own.stat().st_mode) & 0o077 == 0 for own in path.parents), path
        if os.getuid() == 0:
            assert _connects_as_nobody(path) is False, path


def _connects_as_nobody(path: Path) -> bool:
    code = (
        f"import os, socket, sys; os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "try: socket.socket(socket.AF_UNIX).connect(sys.argv[1])\n"
        "except PermissionError: sys.exit(13)\n"
    )
    return subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, check=False).returncode != 13


DRILLS: tuple[tuple[str, Damage, str], ...] = (
    ("model/config.json", with_field("types", ["person", "place", "extra"]), "config.json"),
    ("model/model.safetensors", cut, "model.safetensors"),
    ("index/CURRENT", in_brackets, "CURRENT"),
    ("index/v000001/manifest.json", with_field("num_shards", 10**9), "manifest.json"),
    ("index/v000001/names/hashes.npy", a_pipe, "hashes.npy"),
)


def test_damaged_folders_are_not_rolled_in_while_a_client_asks(server: Served, world: World, folder: Path) -> None:
    client = Client(server.port, (" ".join(sentence.words) for sentence in world.train), KEY)
    client.start()
    try:
        for name, damage, wanted in DRILLS:
            path, kept = folder / name, folder / "kept"
            shutil.copy(path, kept)
            damage(path)
            try:
                said = reload(server.pid, folder / "serve.log")
            finally:
                path.unlink()
                shutil.move(kept, path)
            assert wanted in said, (name, said)
            assert psutil.pid_exists(server.pid)
        assert "release " in reload(server.pid, folder / "serve.log", "\nrelease ")
    finally:
        client.end()
    assert not client.counts["wrong"] + client.counts["lost"], client.counts
    assert client.counts["right"] > 20


def test_what_is_deployed_without_keys_is_refused_where_serve_is_open_already(folder: Path, tmp_path: Path) -> None:
    """Serve keeps the address of its start, whatever the file says that is deployed later."""
    plan = tmp_path / "serve.yaml"
    command = [sys.executable, "-m", "serving.cli", "serve", "--model", str(folder / "model"), "--write", str(plan)]
    subprocess.run(command, check=True, capture_output=True)
    assert yaml.safe_load(plan.read_text())["http_options"]["host"] == "127.0.0.1"
    with socket.socket() as taker:
        taker.bind(("127.0.0.1", 0))
        port = taker.getsockname()[1]
    code = f"""
import time, yaml, ray
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
serve.start(http_options={{"host": "0.0.0.0", "port": {port}}})
_get_global_client().deploy_apps(ServeDeploySchema.model_validate(yaml.safe_load(open({str(plan)!r}))))
end = time.monotonic() + 180
while time.monotonic() < end:
    application = serve.status().applications.get("ctxner")
    if application and application.status in ("DEPLOY_FAILED", "RUNNING"):
        break
    time.sleep(0.5)
print(application.status.value, application.message)
serve.shutdown()
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=400)
    assert "DEPLOY_FAILED" in ended.stdout, ended.stderr[-2000:]
    assert "host 0.0.0.0 can be reached from other machines and there is no key" in ended.stdout
