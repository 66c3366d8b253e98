"""What was found, how bad it is, and what to do. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, TypeAlias

Severity: TypeAlias = Literal["ok", "warning", "problem"]

_ORDER: Final[tuple[Severity, ...]] = ("ok", "warning", "problem")


class Finding(NamedTuple):
    """One thing that is as it should be, or not."""

    severity: Severity
    """``problem``: records do not arrive, or would be lost; ``warning``: that may come."""
    subject: str
    """What it is about, in a word or two."""
    text: str
    advice: str = ""
    """What to do."""

    def as_json(self) -> dict[str, str]:
        """The same for a program."""
        return self._asdict()


def counted(number: int, noun: str) -> str:
    """Return ``1 spool``, ``2,000 spools``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def waits(number: int, where: str = "") -> str:
    """Return ``1 record waits``, ``2 records in 1 spool wait``."""
    return f"{counted(number, 'record')}{where} {'waits' if number == 1 else 'wait'}"


def ok(subject: str, text: str) -> Finding:
    """Nothing is to be done."""
    return Finding("ok", subject, text)


def warning(subject: str, text: str, advice: str) -> Finding:
    """Something may go wrong."""
    return Finding("warning", subject, text, advice)


def problem(subject: str, text: str, advice: str) -> Finding:
    """Something is wrong."""
    return Finding("problem", subject, text, advice)


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the severity of the worst of them."""
    return max((finding.severity for finding in findings), key=_ORDER.index, default="ok")
