"""What must not be read in a log: secrets that a line happens to hold. Pure.

A rule is the name of one of `NAMED`, or a regular expression. Of what it finds, the group ``secret`` is replaced where
it has one, else all of it.

A regular expression can be made to take for ever by a text that somebody else has chosen. So `check` refuses what repeats
something that repeats itself (``(a+)+``: the time doubles with each character), and a long text is searched in windows:
what a window finds is followed beyond its end, what it does not find takes the time of a window and not of the text.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

_WINDOW: Final = 4096
_OVERLAP: Final = 512
_MANY: Final = 16
_KEYS: Final = r"(?:pass(?:word|wd|phrase)|(?<![A-Za-z])pass|pwd|secret|token|(?:api|access|private)[_-]?key|credentials?)"

#: Rules by name.
NAMED: Final[Mapping[str, str]] = {
    "bearer": r"(?i:\b(?:bearer|basic)\s+(?P<secret>[A-Za-z0-9._~+/-]{6,}=*))",
    "url-password": r"\b[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s:/?#@]{0,256}:(?P<secret>[^\s/?#]{1,256})@",
    "password": (
        rf"(?i:{_KEYS})['\"]?\s{{0,8}}[=:]\s{{0,8}}['\"]?"
        r"(?P<secret>(?<=\")(?:[^\"\\]|\\.)+|(?<=')(?:[^'\\]|\\.)+|[^\s,;&'\"}\])]+)"
    ),
    "credit-card": r"(?<![\w.-])(?P<secret>[2-6](?:[ -]?[0-9]){12,18})(?![\w-]|\.[0-9])",
}
_SECRET_KEY: Final = re.compile(rf"(?i)(?:.*[^A-Za-z0-9])?{_KEYS}|.*(?:Password|Secret|Token|ApiKey)")

#: Text → the same without secrets.
Redact = Callable[[str], str]


def check(rule: str) -> str:
    """Return what is wrong with a rule; empty if nothing."""
    if rule in NAMED:
        return ""
    try:
        compiled = re.compile(rule)
    except (re.error, OverflowError, RecursionError) as error:
        return f"must be a regular expression or one of {', '.join(NAMED)} ({error})"
    if compiled.match(""):
        return "must be a regular expression that does not match the empty text"
    if _explodes(rule):
        return "must be a regular expression that does not repeat a repetition, as (a+)+ does: a text can make it take for ever"
    return ""


class Redactor:
    """Applies rules that `check` has passed.

    Args:
        rules: Names and regular expressions.
        replacement: What stands in place of a secret.
    """

    def __init__(self, rules: Sequence[str], replacement: str) -> None:
        self._replacement = replacement
        self._patterns = [(re.compile(NAMED.get(rule, rule)), rule == "credit-card") for rule in rules]
        self._by_key = "password" in rules

    def text(self, text: str) -> str:
        """Return ``text`` without what the rules find."""
        for pattern, numbered in self._patterns:
            if pattern.search(text, 0, _WINDOW) or len(text) > _WINDOW:
                text = self._without(pattern, text, numbered=numbered)
        return text

    def _without(self, pattern: re.Pattern[str], text: str, *, numbered: bool) -> str:
        parts = []
        done = position = 0
        while (match := _search(pattern, text, position)) is not None:
            start, end = match.span("secret" if "secret" in pattern.groupindex else 0)
            if start >= done and end > start and (not numbered or _is_card(match[0])):
                parts += [text[done:start], self._replacement]
                done = end
            position = max(match.end(), match.start() + 1)
        return "".join([*parts, text[done:]]) if parts else text

    def value(self, value: Any, key: str = "") -> Any:
        """Return what JSON is made of without secrets: texts, also within lists and tables; names of fields stay.

        A number that a rule finds becomes text. The rule ``password`` also goes by the name of a field.
        """
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Mapping):
            return {name: self.value(item, str(name)) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item, key) for item in value]
        if self._by_key and key and _SECRET_KEY.fullmatch(key, 0, 100):
            return self._replacement
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, (int, float)):
            shown = str(value) if isinstance(value, float) or abs(value) < 2**64 else ""
            found = self.text(shown)
            return value if found == shown else found
        return value


def _search(pattern: re.Pattern[str], text: str, position: int) -> re.Match[str] | None:
    """Search window by window; a match that reaches the end of its window is made anew in a larger one."""
    while position <= len(text):
        window = min(position + _WINDOW + _OVERLAP, len(text))
        match = pattern.search(text, position, window)
        while match is not None and match.end() == window < len(text):
            window = min(window + (window - match.start()) * 3, len(text))
            match = pattern.search(text, match.start(), window)
        if match is not None or window == len(text):
            return match
        position += _WINDOW
    return None


def _is_card(text: str) -> bool:
    """Check the digits of a card by Luhn's sum."""
    digits = [int(char) for char in text if char.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return len(set(digits)) > 1 and (sum(digits[::-2]) + sum(doubled)) % 10 == 0


# --- regular expressions that explode ----------------------------------------------------------------------


def _explodes(rule: str) -> bool:
    """True where something repeated many times consists, but for what may be missing, of a repetition itself."""
    try:
        parser: Any = importlib.import_module("re._parser")
    except ImportError:  # before Python 3.11
        parser = importlib.import_module("sre_parse")
    return _nested(list(parser.parse(rule)))


def _nested(tree: Sequence[Any]) -> bool:
    for operation, argument in tree:
        name = str(operation)
        if (
            name in ("MAX_REPEAT", "MIN_REPEAT")
            and argument[1] >= _MANY
            and _is_repetition(list(argument[2]))
        ):
            return True
        if any(_nested(list(part)) for part in _below(name, argument)):
            return True
    return False


def _is_repetition(tree: Sequence[Any]) -> bool:
    """True where some way through ``tree`` is a repetition, and everything beside it may be missing."""
    solid = [
        (str(operation), argument)
        for operation, argument in tree
        if not _may_be_missing(str(operation), argument)
    ]
    loose = [
        (str(operation), argument)
        for operation, argument in tree
        if _may_be_missing(str(operation), argument)
    ]
    if len(solid) > 1:
        return False
    candidates = solid or loose
    return any(_repeats(name, argument) for name, argument in candidates)


def _repeats(name: str, argument: Any) -> bool:
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
        return bool(argument[1] >= _MANY) or _is_repetition(list(argument[2]))
    return any(_is_repetition(list(part)) for part in _below(name, argument))


def _may_be_missing(name: str, argument: Any) -> bool:
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
        return bool(argument[0] == 0)
    return name in ("AT", "ASSERT", "ASSERT_NOT")


def _below(name: str, argument: Any) -> list[Any]:
    if name == "SUBPATTERN":
        return [argument[-1]]
    if name == "BRANCH":
        return list(argument[1])
    if name in ("MAX_REPEAT", "MIN_REPEAT"):
        return [argument[2]]
    if name in ("ASSERT", "ASSERT_NOT"):
        return [argument[1]]
    return []
