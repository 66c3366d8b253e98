"""The pages of the documentation, and the examples in them. ``CONTRIBUTING.md`` says how they are marked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("[!_]*.md")])

#: What may stand in a comment on the lines before an example.
MARKS = frozenset(["any order", "continues", "ends with", "file", "not run", "prints", "run by"])

_FENCE = re.compile(
    r"(?P<marks>(?:^<!-- [^\n]* -->\n)*)^```(?P<language>[^\n]*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_MARK = re.compile(r"^<!-- ([a-z ]+?)(?:: (.*))? -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """An example: a fenced block, and the marks above it."""

    page: Path
    line: int
    language: str
    text: str
    marks: dict[str, str]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}, line {self.line}"

    @property
    def runs(self) -> bool:
        """True for what is run here, and not by a test of its own or by nobody."""
        return not self.marks.keys() & {"not run", "run by"}


def read(page: Path) -> list[Block]:
    """Return all examples of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page,
            text.count("\n", 0, match.start("text")),
            match["language"].strip(),
            match["text"],
            dict(_MARK.findall(match["marks"])),
        )
        for match in _FENCE.finditer(text)
    ]


def blocks(page: Path, language: str) -> list[str]:
    """Return the texts of the examples in one language."""
    return [block.text for block in read(page) if block.language == language]


def file(page: Path, name: str) -> str:
    """Return the example that is this file."""
    (text,) = [block.text for block in read(page) if block.marks.get("file") == name]
    return text


@dataclass(frozen=True)
class Command:
    """A command of a ``console`` example, and what the page shows below it."""

    line: str
    shown: str


def commands(text: str) -> Iterator[Command]:
    """Return the commands of a ``console`` example: lines that begin with ``$ ``."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        line, shown = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        yield Command(line, shown)


class Configurations:
    """The configurations of a page. One that is only a part becomes whole: with a writer, and with earlier formatters."""

    def __init__(self) -> None:
        self._formatters: dict[str, Any] = {}

    def complete(self, text: str) -> dict[str, Any] | None:
        """Return the configuration that a part stands for; None when it is whole as it is."""
        tree = tomli.loads(text)
        own = tree.setdefault("formatters", {})
        writers = tree.get("writers", {})
        named = {writer.get("formatter") for writer in writers.values() if isinstance(writer, dict)}
        earlier = {name: self._formatters[name] for name in named & self._formatters.keys() - own.keys()}
        self._formatters |= own
        if writers and all("type" in writer for writer in writers.values()) and not earlier:
            return None
        tree["formatters"] = earlier | own
        tree["writers"] = {
            name: {"type": "file", "path": f"{name}.log", **writer} if "type" not in writer else writer
            for name, writer in (writers or {"app": {}}).items()
        }
        return tree


_TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?")


def is_shown(shown: str, printed: str, *, any_order: bool = False) -> bool:
    """True when a page shows what was printed.

    A time stands for any other one, ``...`` and ``…`` for any text; such a line alone for any number of lines. Several
    blanks in a row stand for any number of them, two or more: tables are as wide as what is in them.
    """
    if not any_order:
        return re.fullmatch(_pattern(shown), _plain(printed)) is not None
    left = _plain(printed).splitlines()
    for line in _plain(shown).splitlines():
        found = next((each for each in left if re.fullmatch(_pattern(line), each)), None)
        if found is None:
            return False
        left.remove(found)
    return not left


def _plain(text: str) -> str:
    lines = re.sub("  +", "  ", _TIME.sub("TIME", text)).rstrip().splitlines()
    return "\n".join(line.rstrip() for line in lines)


def _pattern(shown: str) -> str:
    parts = re.split(r"^(?:\.\.\.|…)(?:\n|\Z)", _plain(shown), flags=re.MULTILINE)
    return "(?s:.*)".join(".*".join(map(re.escape, re.split(r"\.\.\.|…", part))) for part in parts)
