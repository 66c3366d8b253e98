"""Code is named where it can be, carried where it can not, and compared by what it does."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from redislogkit import callables, config
from redislogkit.config_values import Code
from redislogkit.errors import ConfigError
from tests.helpers.scripts import ROOT


def importable(records):
    return records


class Importable:
    def method(self):
        pass


def make(url):
    return lambda records: (url, records)


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (json.dumps, "json:dumps"),
        (importable, f"{__name__}:importable"),
        (Importable, f"{__name__}:Importable"),
        (Importable.method, f"{__name__}:Importable.method"),
        (print, "builtins:print"),
    ],
)
def test_what_can_be_imported_is_carried_by_its_name(target, name):
    assert callables.carry(target) == name
    assert callables.find(name, "writers.w.target") is target


def test_a_closure_is_carried_with_what_it_refers_to():
    carried = callables.carry(make("http://here"))
    assert isinstance(carried, Code)
    assert callables.find(carried, "writers.w.target")([1]) == ("http://here", [1])


def test_what_holds_something_that_lives_here_can_not_be_carried():
    lines = (line for line in "ab")
    with pytest.raises(
        ConfigError, match=r"writers\.w\.target: must be something that can be taken to another process"
    ):
        config.load({"writers": {"w": {"type": "custom", "target": lambda records: lines}}})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (make("a"), make("a"), True),
        (make("a"), make("b"), False),
        (lambda r: r, lambda r: r, True),
        (lambda r: r, lambda r: [r], False),
        (lambda r, n=1: n, lambda r, n=2: n, False),
        (functools.partial(make, "a"), functools.partial(make, "a"), True),
        (functools.partial(make, "a"), functools.partial(make, "b"), False),
        (lambda r: r in {3, 1, 2}, lambda r: r in {1, 2, 3}, True),
        (lambda r: json.dumps, lambda r: sys.path, False),
    ],
)
def test_code_is_compared_by_what_it_does(one, other, same):
    assert (callables.fingerprint(one) == callables.fingerprint(other)) is same


PROGRAM = """
import json
from redislogkit import config, launch
URL, NAMES = "http://here", {"x", "y", "zeta", "alpha"}
class Sender:
    "Sends."
    def __init__(self, **options):
        self.options = options
    def __call__(self, records):
        return (URL, [n for n in NAMES], helper(records))
def helper(records):
    return json.dumps(sorted(NAMES))
tree = {"writers": {"a": Sender, "b": lambda records: helper(NAMES), "c": Sender(url=URL)}}
print(launch.shared_digest(config.load(tree)))
"""


def test_processes_with_the_same_code_have_the_same_configuration(tmp_path: Path):
    printed = set()
    for seed in ("1", "2"):
        path = tmp_path / f"program{seed}.py"
        path.write_text("\n" * int(seed) + PROGRAM)
        env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)}
        env.pop("COVERAGE_PROCESS_CONFIG", None)
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, env=env, check=True)
        printed.add(done.stdout)
    assert len(printed) == 1


def test_an_entry_point_is_found_by_its_name(monkeypatch):
    point = metadata.EntryPoint("hook", "json:dumps", callables.GROUP)
    monkeypatch.setattr(
        metadata, "entry_points", lambda group: metadata.EntryPoints([point]).select(group=group)
    )
    assert callables.find("hook", "writers.w.target") is json.dumps
    with pytest.raises(
        ConfigError, match=r"no installed package has an entry point of that name; known: \['hook'\]"
    ):
        callables.find("hock", "writers.w.target")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "no_such_module:x",
            "writers.w.target must be something that can be loaded here.*put the module beside",
        ),
        ("json:no_such_name", "no attribute 'no_such_name'; mend the module"),
        ("json:__name__", "must be a function, a class or another callable"),
    ],
)
def test_what_can_not_be_found_is_explained(name, message):
    with pytest.raises(ConfigError, match=message):
        callables.find(name, "writers.w.target")


def test_a_configuration_with_code_goes_to_another_process_and_is_the_same_there():
    loaded = config.load({"writers": {"w": make("a")}})
    assert config.from_bytes(config.to_bytes(loaded)) == loaded
    assert config.digest(loaded) == config.digest(config.load({"writers": {"w": make("a")}}))
    assert config.digest(loaded) != config.digest(config.load({"writers": {"w": make("b")}}))


@pytest.mark.parametrize("keys", [{"supervisor": {"autostart": False}}, {"producer": {"ship": "thread"}}])
def test_code_that_only_this_program_knows_needs_a_supervisor_of_this_program(keys: dict[str, Any]):
    config.load({"writers": {"w": importable}, **keys})
    with pytest.raises(
        ConfigError, match="must be something that can be imported where this program does not"
    ):
        config.load({"writers": {"w": make("a")}, **keys})


def test_a_missing_target_says_that_a_program_may_have_it():
    with pytest.raises(
        ConfigError, match=r"writers\.w\.target: is missing.*only to the supervisor that this program"
    ):
        config.load({"writers": {"w": {"type": "custom"}}})
