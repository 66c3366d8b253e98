"""What must not reach a file or a terminal as it is: line breaks, control characters; and colours. Pure."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, Literal, TypeAlias

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
#: Style of each level and those above it; 16 colours, so that the user's theme applies.
DEFAULT_COLOURS: Final[Mapping[int, str]] = {
    logging.NOTSET: "blue",
    logging.INFO: "green",
    logging.WARNING: "yellow",
    logging.ERROR: "red",
    logging.CRITICAL: "bold white on red",
}
_ATTRIBUTES: Final = {"bold": 1, "dim": 2, "italic": 3, "underline": 4, "blink": 5, "reverse": 7}
_COLOURS: Final = ("black", "red", "green", "yellow", "blue", "magenta", "cyan", "white")


def sgr(style: str) -> str:
    """Return what switches a style on, as ``bold white on red``; for ``none`` an empty text.

    A style is of words: bold, dim, italic, underline, blink, reverse; a colour, as red, bright-red, or a number from
    0 to 255; and ``on`` with a colour. Raises ``ValueError``.

    >>> sgr("bold white on red"), sgr("bright-cyan"), sgr("208")
    ('\x1b[1;37;41m', '\x1b[96m', '\x1b[38;5;208m')
    """
    if not isinstance(style, str):
        raise ValueError(f"a style is text, this one is not: {style!r}")  # noqa: TRY004 - as all faults of a style
    codes: list[str] = []
    ground = 30
    for word in style.casefold().replace("_", "-").split():
        if word == "on":
            ground = 40
        elif word in _ATTRIBUTES:
            codes.append(str(_ATTRIBUTES[word]))
        elif word != "none":
            codes.append(_colour_code(word, ground, style))
            ground = 30
    return f"\x1b[{';'.join(codes)}m" if codes else ""


def _colour_code(word: str, ground: int, style: str) -> str:
    name = word.removeprefix("bright-")
    if name in _COLOURS:
        return str(_COLOURS.index(name) + ground + (60 if name != word else 0))
    if word.isdecimal() and word.isascii() and int(word) < 256:
        return f"{ground + 8};5;{int(word)}"
    known = ", ".join((*_ATTRIBUTES, "on", "none", *_COLOURS))
    raise ValueError(f"{word!r} in the style {style!r} is none of {known}, bright-..., or a number below 256")


def palette(colours: Mapping[str, str]) -> Palette:
    """Return what switches the colour of a level on and off; ``colours``, by name or number of a level, win over the usual ones.

    Raises ``ValueError`` for a level or a style that is none.
    """
    styles = dict(DEFAULT_COLOURS)
    for level, style in colours.items():
        number: Any = int(level) if level.isdecimal() else logging.getLevelName(level.upper())
        number = number if isinstance(number, int) else logging.getLevelName(level)
        if not isinstance(number, int):
            raise ValueError(f"{level!r} is no level")  # noqa: TRY004 - see `sgr`
        styles[number] = style
    starts = [(number, sgr(style)) for number, style in sorted(styles.items(), reverse=True)]

    @lru_cache(256)
    def of(levelno: int) -> tuple[str, str]:
        start = next((start for lowest, start in starts if levelno >= lowest), starts[-1][1])
        return start, _RESET if start else ""

    return of


#: Level → what switches its colour on, and off.
Palette: TypeAlias = Callable[[int], tuple[str, str]]
#: The usual colours.
colour: Final = palette({})


def colourise(text: str, levelno: int, levelname: str, colour_of: Palette = colour) -> str:
    """Colour the level's name where it first occurs in the first line, else the whole first line.

    A line in which everything has its level's colour is hard to read, and a coloured traceback more so.
    ``text`` has been through `sanitise_terminal`.
    """
    start, stop = colour_of(levelno)
    if not start:
        return text
    line, newline, rest = text.partition("\n")
    before, name, after = line.partition(levelname) if levelname else (line, "", "")
    coloured = f"{before}{start}{name}{stop}{after}" if name else f"{start}{line}{stop}"
    return f"{coloured}{newline}{rest}"


def encode_text(text: str) -> bytes:
    """Encode what goes into a file or a pipe; what UTF-8 has no bytes for becomes an escape."""
    return text.encode("utf-8", "backslashreplace")
