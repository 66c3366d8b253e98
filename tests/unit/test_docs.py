"""The pages say nothing that is not so: links lead somewhere, examples load. They are run by test_pages."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import shlex
from pathlib import Path

import pytest
import tomli

import redislogkit
from redislogkit import AsyncBufferedRedisHandler, __main__, config, demo
from redislogkit.stream import rights
from tests.helpers.pages import MARKS, PAGES, ROOT, Configurations, blocks, commands, is_shown, read

IDS = [str(page.relative_to(ROOT)) for page in PAGES]
#: Shells: their commands belong into ``console``, where they are run.
SHELLS = {"bash", "sh", "shell", "zsh"}
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
    configurations = Configurations()
    for text in blocks(page, "toml"):
        tree = configurations.complete(text) or tomli.loads(text)
        config.load(tree, environ={"REDIS_PASSWORD": "secret", "HOME": "/root"})


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_example_is_marked_as_contributing_says(page):
    for block in read(page):
        assert block.language, f"{block}: has no language"
        assert block.language not in SHELLS, f"{block}: must be console, each command behind '$ '"
        assert block.marks.keys() <= MARKS, f"{block}: {block.marks}"
        assert len(block.marks.get("not run", "a good reason").split()) > 2, f"{block}: say why it is not run"
        if "run by" in block.marks:
            assert exists(block.marks["run by"]), f"{block}: {block.marks['run by']} is no test"
        if block.language == "console":
            assert list(commands(block.text)), f"{block}: no command begins with '$ '"


def exists(test: str) -> bool:
    """True when there is such a test: ``tests/unit/test_x.py::test_y``."""
    file, _, name = test.partition("::")
    path = ROOT / file
    return path.exists() and name in functions(path)


@functools.cache
def functions(path: Path) -> set[str]:
    """The functions of a module, those of classes as ``TestX::test_y``."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return found


def test_every_promise_names_tests_that_exist():
    sections = re.split(
        r"^## ", (ROOT / "docs/guarantees.md").read_text(encoding="utf-8"), flags=re.MULTILINE
    )
    for section in sections[1:]:
        promised = re.findall(r"\[`(test_\w+)`\]\(\.\./(tests/[\w/.]+)\)", section)
        assert promised or section.startswith("Not promised"), section.splitlines()[0]
        assert len(promised) == section.count("[`test_")
        for name, file in promised:
            assert exists(f"{file}::{name}"), f"guarantees.md names {file}::{name}"


def test_the_index_names_every_page_and_no_other():
    docs = ROOT / "docs"
    named: list[str] = []
    for index in docs.rglob("index.md"):
        below = "" if index.parent == docs else f"{index.parent.relative_to(docs)}/"
        for text in blocks(index, "{toctree}"):
            named += [f"{below}{line}" for line in text.split("\n") if re.match(r"\w", line)]
    there = {str(page.relative_to(docs))[:-3] for page in docs.rglob("[!_]*.md")} - {"index"}
    assert sorted(set(named)) == sorted(named)
    assert set(named) == there


@pytest.mark.parametrize(
    ("shown", "printed", "any_order", "same"),
    [
        ("one\ntwo\n", "one\ntwo\n", False, True),
        ("one\ntwo\n", "two\none\n", False, False),
        ("one\ntwo\n", "two\none\n", True, True),
        ("one\none\n", "one\ntwo\n", True, False),
        ("one\n", "one\none\n", True, False),
        ("2026-01-01 00:00:00,000 one\n", "2026-11-22 21:56:36,123 one", False, True),
        ("2026-01-01 00:00:00,000 one\n", "2026-11-22 21:56:36,123 two", False, False),
        ("pid ... of …: x.\n", "pid 17 of me: x.\n", False, True),
        ("pid ...\nend\n", "pid 1\n2\nend\n", False, False),
        ("begin\n...\nend\n", "begin\n1\n2\nend\n", False, True),
        ("begin\n...\nend\n", "begin\nend\n", False, True),
        ("begin\n...\n", "begin\n1\n2\n", False, True),
        ("...\nend\n", "1\nend\nagain\n", False, False),
        ("a  b\n", "a      b\n", False, True),
        ("a  b\n", "a b\n", False, False),
        ("", "anything", False, False),
    ],
)
def test_what_is_printed_is_what_a_page_shows(shown, printed, any_order, same):
    assert is_shown(shown, printed, any_order=any_order) is same


def test_a_console_example_is_read_command_by_command():
    found = list(commands("$ one \\\n  more\n$ two\nprinted\n  $ 5\n$ three\n"))
    assert [(each.line, each.shown) for each in found] == [
        ("one \\\n  more", ""),
        ("two", "printed\n  $ 5\n"),
        ("three", ""),
    ]


def test_a_part_of_a_configuration_becomes_whole_with_what_stands_before():
    configurations = Configurations()
    assert configurations.complete('[writers.a]\ntype = "tty"') is None
    assert configurations.complete('[formatters.short]\nformat = "%(message)s"') == {
        "formatters": {"short": {"format": "%(message)s"}},
        "writers": {"app": {"type": "file", "path": "app.log"}},
    }
    assert configurations.complete('[writers.b]\nformatter = "short"') == {
        "formatters": {"short": {"format": "%(message)s"}},
        "writers": {"b": {"type": "file", "path": "b.log", "formatter": "short"}},
    }


def test_the_page_about_containers_shows_the_file_that_is_there():
    (shown,) = blocks(ROOT / "docs/containers.md", "toml")
    assert tomli.loads(shown) == tomli.loads((ROOT / "configs/container.toml").read_text(encoding="utf-8"))


def test_the_page_about_containers_names_commands_that_there_are():
    text = (ROOT / "docs/containers.md").read_text(encoding="utf-8")
    named = [ast.literal_eval(line) for line in re.findall(r"\[(?:\"CMD\", )?\"redislogkit\".*?\]", text)]
    assert len(named) == 3  # of the image, of the service, and its health check
    for command in named:
        __main__.parser().parse_args(command[command.index("redislogkit") + 1 :])


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


@pytest.mark.parametrize("path", ["docs/api.md", "tests/programs/typed.py"])
def test_every_public_name_stands_in_the_page_of_the_interface_and_in_a_checked_program(path):
    text = (ROOT / path).read_text(encoding="utf-8")
    assert [name for name in redislogkit.__all__ if not re.search(rf"\b{name}\b", text)] == []


def test_every_extra_stands_where_installing_is_described():
    extras = tomli.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    page = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8")
    assert [
        name for name in extras if name not in ("bench", "docs", "dev") and f"| `{name}` |" not in page
    ] == []


def test_the_rights_shown_are_those_that_are_needed():
    assert rights.rule("app") in (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_module_named_exists(page):
    own_files = {block.marks.get("file") for block in read(page)}
    for name in re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.(?:py|lua|toml))`", page.read_text(encoding="utf-8")):
        if name not in ("log.toml", *own_files):
            places = (ROOT / name, ROOT / "redislogkit" / name)
            found = any(place.exists() for place in places) or any((ROOT / "redislogkit").rglob(name))
            assert found, f"{page.name} names {name}"


def test_every_make_target_named_exists():
    rules = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for page in PAGES:
        named = re.findall(r"(?:^|`|^\$ )make ([a-z]+)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert set(named) <= rules, page.name


def test_the_readme_begins_with_the_two_commands():
    first = blocks(ROOT / "README.md", "console")[0]
    assert [each.line.split("#")[0].split() for each in commands(first)] == [
        ["make", "demo"],
        ["make", "test"],
    ]
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
