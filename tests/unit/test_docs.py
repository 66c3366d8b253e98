"""The pages say nothing that is not so: links lead somewhere, examples load. Programs are run by test_demo."""

from __future__ import annotations

import inspect
import re
import shlex
from pathlib import Path

import pytest
import tomli

from redislogkit import AsyncBufferedRedisHandler, __main__, config, demo
from redislogkit.stream import rights
from tests.helpers.pages import ROOT, blocks

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
IDS = [page.name for page in PAGES]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_to_a_file_and_a_heading(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in _anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_configuration_shown_loads(page):
    for text in blocks(page, "toml"):
        config.load(tomli.loads(text), environ={"REDIS_PASSWORD": "secret", "HOME": "/root"})


def test_the_page_about_containers_shows_the_file_that_is_there():
    (shown,) = blocks(ROOT / "docs/containers.md", "toml")
    assert tomli.loads(shown) == tomli.loads((ROOT / "configs/container.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_python_example_compiles(page):
    for number, text in enumerate(blocks(page, "python"), 1):
        compile(text, f"{page.name}, example {number}", "exec")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_line_shown_is_understood(page):
    for line in "".join(blocks(page, "console") + blocks(page, "sh")).splitlines():
        words = shlex.split(line.removeprefix("$ ").partition(" > ")[0].partition(" | ")[0], comments=True)
        if words[:1] == ["redislogkit"] or words[:3] == ["python", "-m", "redislogkit"]:
            assert __main__.parser().parse_args(words[1 if words[0] == "redislogkit" else 3 :]).command


def test_every_command_stands_in_the_page_of_commands():
    page = (ROOT / "docs/command-line.md").read_text(encoding="utf-8")
    table = page[: page.index("**Configuration.**")]
    assert [
        name for name in (command.NAME for command in __main__.COMMANDS) if f"`{name}`" not in table
    ] == []


def test_the_rights_shown_are_those_that_are_needed():
    assert rights.rule("app") in (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_module_named_exists(page):
    for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|lua|toml))`", page.read_text(encoding="utf-8")):
        if name != "log.toml":
            places = (ROOT / name, ROOT / "redislogkit" / name)
            found = any(place.exists() for place in places) or any((ROOT / "redislogkit").rglob(name))
            assert found, f"{page.name} names {name}"


def test_every_make_target_named_exists():
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|`)make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= rules, page.name


def test_the_readme_begins_with_the_two_commands():
    first = blocks(ROOT / "README.md", "sh")[0]
    assert [line.split("#")[0].split() for line in first.splitlines()] == [["make", "demo"], ["make", "test"]]
    assert README.index("make demo") < README.index("```python")


def test_the_use_in_ones_own_program_is_six_lines():
    first = blocks(ROOT / "README.md", "python")[0]
    assert len([line for line in first.splitlines() if line]) == 6


def test_the_demo_logs_as_the_readme_says():
    wanted = blocks(ROOT / "README.md", "python")[0].splitlines()
    setup = [line for line in wanted if line.startswith(("import", "redislogkit."))]
    assert len(setup) == 3
    assert set(setup) <= set(demo.PROGRAM.splitlines())


def test_the_readme_and_the_quickstart_show_the_same_program():
    assert blocks(ROOT / "README.md", "python")[0] == blocks(ROOT / "docs/quickstart.md", "python")[0]


def test_the_handler_takes_what_the_readme_gives_it():
    example = blocks(ROOT / "README.md", "python")[1]
    given = re.findall(r"^    (\w+)=", example, re.MULTILINE)
    assert len(given) == 9
    assert set(given) <= set(inspect.signature(AsyncBufferedRedisHandler).parameters)
