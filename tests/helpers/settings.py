"""Configurations of tests, and what became of the records that were logged with them."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from typing import Any

from redislogkit import config
from redislogkit.spool.shipper_end import ShipperEnd, spool_names
from tests.helpers.waiting import wait_until

#: First lines of a program: its only argument is its configuration. At its end its counts have to add up.
CONFIGURED = """\
import json, logging, os, sys
import redislogkit
from tests.helpers import accounts
handle = redislogkit.configure(json.loads(sys.argv[1]))
accounts.check_at_exit(handle.handler)
log = logging.getLogger("app")
"""


def settings(folder: str, stream: str, url: str, /, **sections: Any) -> dict[str, Any]:
    """Return a configuration with one file, ``<folder>/app.log``, of JSON lines. ``sections`` are put over it."""
    tree: dict[str, Any] = {
        "state_dir": folder,
        "redis": {"url": url},
        "stream": {"name": stream},
        "producer": {"shutdown_timeout": 10.0},
        "loggers": {"root": "DEBUG"},
        "writers": {"app": {"type": "file", "path": f"{folder}/app.log", "formatter": "json"}},
    }
    for name, values in sections.items():
        tree[name] = {**tree.get(name, {}), **values}
    return tree


def read(path: str) -> list[dict[str, Any]]:
    """Return the records in a file of JSON lines."""
    with contextlib.suppress(FileNotFoundError), open(path, encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file.read().split("\n") if line]
    return []


def messages(path: str) -> list[str]:
    """Return the messages in a file of JSON lines."""
    return [record["message"] for record in read(path)]


def arrived(path: str, *expected: str) -> list[str]:
    """Wait until the file has these messages, in any order and among others; return all messages."""

    def found() -> list[str]:
        present = messages(path)
        return present if all(message in present for message in expected) else []

    return wait_until(found, what=f"{expected!r} in {path}")


def spooled(tree: dict[str, Any], report: Callable[[str], None] = print) -> list[bytes]:
    """Return the payloads that wait in the spools, those of one producer after those of another."""
    root = os.path.join(config.load(tree).stream_dir, "spool")
    payloads: list[bytes] = []
    for name in spool_names(root):
        end = ShipperEnd(os.path.join(root, name), report)
        payloads += [payload for run in end.read(2**40) for payload in run.payloads]
        end.close()
    return payloads


def toml(tree: dict[str, Any]) -> str:
    """Return ``tree`` as a configuration file."""
    return "".join(f"{name} = {_toml_value(value)}\n" for name, value in tree.items())


def _toml_value(value: Any) -> str:
    if isinstance(value, dict):
        return (
            "{" + ", ".join(f"{json.dumps(name)} = {_toml_value(item)}" for name, item in value.items()) + "}"
        )
    return json.dumps(value)


def timed(ending: str) -> str:
    """A program that logs "second", then prints how long ``ending`` took, and when it was over."""
    return f"""{CONFIGURED}
import logging.config, time
log.info("second")
began = time.monotonic()
{ending}
print(time.monotonic() - began, time.monotonic())
"""
