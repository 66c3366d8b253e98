"""Every file in configs/ is loaded and run: what is logged with it arrives in its files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from stress.processes import children
from tests.helpers import processes
from tests.helpers.scripts import ROOT
from tests.helpers.waiting import wait_until

#: What they go through is covered elsewhere; without it they take two thirds of the time.
pytestmark = pytest.mark.usefixtures("uncovered")

CONFIGS = sorted((ROOT / "configs").glob("*.toml"))

PROGRAM = """
    import json, logging, sys
    import redislogkit

    handle = redislogkit.configure(sys.argv[1], **json.loads(sys.argv[2]))
    for name in ("my.app", "my.other"):
        for number in range(100):
            logging.getLogger(name).warning("number %d of %s", number, name, extra={"request_id": number})
    print(handle.flush(30))
"""


def overrides(path: Path, folder: str, server_url: str, stream_name: str) -> dict[str, object]:
    """What a test can not leave as it is in a file: places, and a server elsewhere."""
    tree = tomli.loads(path.read_text())
    changed: dict[str, object] = {"state_dir": folder}
    if "metrics" in tree:
        changed["metrics.listen"] = "127.0.0.1:0"
    if not tree.get("redis", {}).get("url", "embedded://").startswith("embedded://"):
        changed |= {"redis.url": server_url, "stream.name": stream_name}
    for name, writer in tree["writers"].items():
        if os.path.isabs(writer.get("path", "")):
            changed[f"writers.{name}.path"] = os.path.join(folder, os.path.basename(writer["path"]))
    return changed


def files(path: Path, folder: str) -> dict[str, Path]:
    """Where each file writer of a configuration writes."""
    writers = tomli.loads(path.read_text())["writers"]
    return {
        name: Path(folder, os.path.basename(writer["path"]))
        for name, writer in writers.items()
        if writer["type"] == "file"
    }


#: Those with which an application starts what it needs.
AUTOSTARTED = [
    path for path in CONFIGS if tomli.loads(path.read_text()).get("supervisor", {}).get("autostart", True)
]


@pytest.mark.parametrize("path", AUTOSTARTED, ids=lambda path: path.stem)
def test_records_arrive_in_the_files_of_the_configuration(path, state_dir, scripts, server_url, stream_name):
    copy = shutil.copy(path, state_dir)  # relative paths start at the folder of the file
    changed = overrides(path, state_dir, server_url, stream_name)
    finished = scripts.run(PROGRAM, copy, json.dumps(changed), env={"REDIS_PASSWORD": ""})
    assert (finished.out, finished.err) == ("True\n", "")
    for name, file in files(path, state_dir).items():
        section = tomli.loads(path.read_text())["writers"][name]
        wanted = 100 if section.get("loggers") else 200
        lines = file.read_text().splitlines()
        assert len(lines) == wanted
        assert [line for line in lines if "number 99 of my.app" in line]
        if section.get("formatter") == "json":
            assert json.loads(lines[0])["message"] == "number 0 of my.app"
        if path.stem == "full":
            assert lines[99].endswith("number 99 of my.app - request_id: 99")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_supervisor_in_the_foreground_takes_the_file(path, state_dir, reaped, monkeypatch):
    # Where the file names a server elsewhere there is none here: it waits for one, and ends when told to.
    monkeypatch.setenv("REDIS_HOST", "127.0.0.1")
    text = path.read_text().replace("/var/log", state_dir).replace(":6379", ":1").replace(":9464", ":0")
    state = f'state_dir = "{state_dir}"\n'
    elsewhere = ("state_dir", "log = ")  # what the supervisor says is read here
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith(elsewhere)]
    copy = Path(state_dir, path.name)
    copy.write_text(state + "".join(lines))
    with subprocess.Popen(
        [sys.executable, "-m", "redislogkit.supervise", str(copy)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        tree = tomli.loads(path.read_text())
        assert f"writers: {', '.join(tree['writers'])}" in process.stdout.readline()
        wait_until(lambda: children(process.pid), what="it listens to signals")
        wait_until(lambda: all(file.exists() for file in files(path, state_dir).values()), what="the files")
        # Without its server it can not know that all is written, and says so.
        assert processes.stop(process) == (0 if "embedded" in copy.read_text() or "url" not in text else 3)
