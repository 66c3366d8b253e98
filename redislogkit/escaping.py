"""What must not reach a file or a terminal as it is: line breaks, control characters; and colours. Pure."""

from __future__ import annotations

import logging
import re
from functools import lru_cache
from typing import Final, Literal, TypeAlias

Multiline: TypeAlias = Literal["keep", "escape", "indent"]

_CONTROL: Final = re.compile("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_NOT_PLAIN: Final = re.compile(r"[^\n\t -~]+")
_SHORT_ESCAPES: Final = {"\n": "\\n", "\r": "\\r"}


def apply_multiline(text: str, mode: Multiline) -> str:
    """Make a rendered record fit for a file.

    ``escape``: it is one line for certain; all that breaks a line and all control characters but the tab
    become visible (``\\n``, ``\\x1b``, ``\\u2028``). ``indent``: every line but the first starts with four
    spaces. ``keep``: as it is.
    """
    if mode == "keep":
        return text
    if mode == "escape":
        return text if text.isprintable() else _CONTROL.sub(_visible, text)
    return "\n    ".join(text.splitlines())


def sanitise_terminal(text: str) -> str:
    """Make every character visible that is not printable: ESC, CR, C1, bidi controls, zero width, ...

    Newline, tab and wide spaces stay. What a terminal obeys never reaches it from a message.
    """
    if text.isprintable() or _NOT_PLAIN.search(text) is None:
        return text
    return _NOT_PLAIN.sub(_visible_run, text)


def _visible_run(match: re.Match[str]) -> str:
    run = match[0]
    if run.isprintable():
        return run
    return "".join(char if char.isprintable() or char in _SPACES else _visible_char(char) for char in run)


#: Spaces that are no line breaks; ``str.isprintable`` knows only the ASCII one.
_SPACES: Final = frozenset("\u00a0\u1680\u202f\u205f\u3000") | {chr(code) for code in range(0x2000, 0x200B)}


def _visible(match: re.Match[str]) -> str:
    return _visible_char(match[0])


def _visible_char(char: str) -> str:
    # From DEL on as \uXXXX: these may stand in a JSON text, where they stay valid this way.
    code = ord(char)
    if char in _SHORT_ESCAPES:
        return _SHORT_ESCAPES[char]
    if code < 0x7F:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


_RESET: Final = "\x1b[0m"
#: SGR of each level and those above it, highest first; 16 colours, so that the user's theme applies.
_COLOURS: Final = (
    (logging.CRITICAL, "\x1b[1;37;41m"),
    (logging.ERROR, "\x1b[31m"),
    (logging.WARNING, "\x1b[33m"),
    (logging.INFO, "\x1b[32m"),
)
_DEBUG_COLOUR: Final = "\x1b[34m"


@lru_cache(256)
def colour(levelno: int) -> tuple[str, str]:
    """Return what switches a level's colour on and off."""
    for lowest, start in _COLOURS:
        if levelno >= lowest:
            return start, _RESET
    return _DEBUG_COLOUR, _RESET


def colourise(text: str, levelno: int, levelname: str) -> str:
    """Colour the level's name where it first occurs in the first line, else the whole first line.

    A line in which everything has its level's colour is hard to read, and a coloured traceback more so.
    ``text`` has been through `sanitise_terminal`.
    """
    start, stop = colour(levelno)
    line, newline, rest = text.partition("\n")
    before, name, after = line.partition(levelname) if levelname else (line, "", "")
    coloured = f"{before}{start}{name}{stop}{after}" if name else f"{start}{line}{stop}"
    return f"{coloured}{newline}{rest}"
