"""``redislogkit schema``: editors accept what the reader accepts, and refuse what it refuses."""

from __future__ import annotations

import json

import jsonschema
import pytest
import tomli

from redislogkit import __main__, config
from redislogkit.config_json_schema import schema
from redislogkit.errors import ConfigError
from tests.helpers.pages import ROOT, blocks

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CONFIGS = sorted((ROOT / "configs").glob("*.toml"))
VALIDATOR = jsonschema.Draft7Validator(schema())
ENVIRON = {"REDIS_PASSWORD": "secret", "REDIS_URL": "redis://h", "X": "1"}

APP = '[writers.app]\ntype = "file"\npath = "a.log"\n'
RIGHT = [
    "",
    "version = 1",
    '[redis]\nurl = "${REDIS_URL}"',
    '[redis]\nurl = "rediss://:${REDIS_PASSWORD}@h:1/2"',
    '[producer]\nspool_max_bytes = "1.5 GiB"\nblock_timeout = "500 ms"\nflush_interval = 0.5\nlevel = 15',
    '[producer]\nlevel = "${X}"\nfast_logger = "${NONE:-true}"\nbuffer_size = "${X}"',
    '[producer]\nspool_max_bytes = " 300mb "\nblock_timeout = "2 Hours"\nshed_level = "info"',
    '[loggers]\n"my.app" = "DEBUG"\nroot = 30',
    f'{APP}mode = "0640"\nloggers = ["a", "!b"]\nmax_age = "30 days"\nwhen = "w6"\nmax_total_bytes = 1000',
    f'{APP}formatter = "mine"\n[formatters.mine]\nformat = "{{message}}"\nstyle = "{{"\noptional_fields = ["x"]',
    '[writers.tty]\ntype = "tty"\ncolor = "never"',
]
WRONG = [
    "version = 2",
    "nonsense = 1",
    "[redis]\nurl = 6379",
    '[redis]\nurl = "http://h"',
    '[stream]\nname = "a b"',
    "[stream]\nmax_records = 0\n",
    '[stream]\nlayout = "record"',
    "[producer]\nblock_timeout = -1",
    '[producer]\nblock_timeout = "2 moons"',
    '[producer]\nspool_max_bytes = "many"\n',
    "[producer]\nspool_max_bytes = 1.5\n",
    "[producer]\nfast_logger = 1",
    "[producer]\nlevel = -1",
    "[loggers]\na.b = 10",
    '[formatters.x]\nstyle = "&"',
    "[writers.app]\ntype = 'file'",
    "[writers.app]\npath = 'a'",
    "[writers.app]\ntype = 'fiel'\npath = 'a'",
    f"{APP}mode = 640",
    f'{APP}mode = "0440"',
    f"{APP}max_age = 0",
    f'{APP}when = "noon"',
    f'{APP}color = "auto"',
    f'{APP}loggers = "a"',
]


def _loads(text):
    try:
        config.load(tomli.loads(text), environ=ENVIRON)
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize("text", RIGHT)
def test_what_the_reader_takes_the_schema_takes(text):
    assert _loads(text)
    VALIDATOR.validate(tomli.loads(text))


@pytest.mark.parametrize("text", WRONG)
def test_what_the_reader_refuses_the_schema_refuses(text):
    assert not _loads(text)
    assert not VALIDATOR.is_valid(tomli.loads(text))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_ready_made_configuration_is_valid(path):
    VALIDATOR.validate(tomli.loads(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_configuration_shown_is_valid(page):
    for text in blocks(page, "toml"):
        VALIDATOR.validate(tomli.loads(text))


def test_every_default_is_valid_and_every_key_described():
    def walk(node, path=()):
        if "default" in node:
            jsonschema.Draft7Validator(node).validate(node["default"])
        for name, below in node.get("properties", {}).items():
            described = below.get("description") or "const" in below or "additionalProperties" in below
            assert described, (*path, name)
            walk(below, (*path, name))
        below = node.get("additionalProperties")
        for one in below.get("oneOf", [below]) if isinstance(below, dict) else []:
            walk(one, (*path, "*"))

    jsonschema.Draft7Validator.check_schema(schema())
    walk(schema())


def test_the_command_prints_it(capsys):
    assert __main__.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(schema()))
