"""Records → what one reads in a terminal or a pipe. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from redislogkit import escaping, formatting
from redislogkit.config import FormatterConfig
from redislogkit.escaping import Palette, colourise, palette, sanitise_terminal
from redislogkit.view.seen import Seen
from redislogkit.writers.tty import wants_colour

Color: TypeAlias = Literal["auto", "always", "never"]

#: Renders what was seen as text that ends with a newline.
Show: TypeAlias = Callable[[Seen], str]


def coloured(color: Color, environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Whether to colour: as ``color`` says; with ``auto`` only on a terminal, unless ``FORCE_COLOR`` is set."""
    asked = color == "always" or is_terminal or bool(environ.get("FORCE_COLOR"))
    return asked and wants_colour(color, environ)


def show(config: FormatterConfig, *, colour: bool = False, verbatim: bool = False) -> Show:
    """Return what renders a record as ``config`` says.

    Unless ``verbatim``, what a terminal would obey is made visible. Raises ``ConfigError`` for a format that is none.
    """
    formatter = formatting.build(config)
    is_text = config.type == "text"
    colour_of = palette(config.colors)

    def render(seen: Seen) -> str:
        text = formatter(seen.record, seen.facts, seen.sequence)
        level = seen.record.levelno, seen.record.levelname
        return finish(text, *level, colour=colour and is_text, verbatim=verbatim, colour_of=colour_of)

    return render


def finish(
    text: str,
    levelno: int,
    levelname: str,
    *,
    colour: bool,
    verbatim: bool,
    colour_of: Palette = escaping.colour,
) -> str:
    """Make the text of a record fit to be shown."""
    if not verbatim:
        text = sanitise_terminal(text)
    return f"{colourise(text, levelno, levelname, colour_of) if colour else text}\n"
