"""What is logged in a race: how many records by how many processes, of which size, in which format."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Final

FORMAT: Final = "%(asctime)s %(levelname)s %(name)s %(process)d %(message)s"
#: The name of the logger: of an ordinary length, two steps below the root.
LOGGER: Final = "shop.orders"
#: Every message says who logged it, its number, and a text; these brackets stand nowhere else.
PERCENT: Final = "<%d %d %s>"
BRACES: Final = "<{} {} {}>"

_HEAD: Final = len("<0 00000 >")
#: A power of 2. Enough that no text comes twice in one batch, which would make it too easy to compress.
TEXTS: Final = 4096
_WORDS: Final = (
    "order payment customer basket shipped refused after before timeout while waiting for reply from of the "
    "cache miss hit user session login logout failed retried queue worker job item stock price update insert "
    "delete request response status code bytes sent received connection closed opened by peer in ms warehouse"
).split()


@dataclass(frozen=True)
class Shape:
    """One race."""

    producers: int = 4
    records: int = 50_000
    """Records of each producer."""
    size: int = 100
    """Characters of a message."""
    format: str = FORMAT
    max_bytes: int = 10 * 1024 * 1024
    """Rotate at this size."""
    deadline: float = 120.0
    """Seconds after which a race is given up."""

    @property
    def total(self) -> int:
        """Records of all producers."""
        return self.producers * self.records

    @property
    def backups(self) -> int:
        """Enough backups to keep every line, also where processes rotate against each other.

        Not any more than that: the standard library looks for each of them at every rotation.
        """
        return 20 + 4 * self.total * (self.size + 100) // self.max_bytes

    @property
    def text_length(self) -> int:
        """Characters of the text in a message."""
        return max(1, self.size - _HEAD)

    def scaled(self, share: float) -> Shape:
        """Return the same with a share of the records."""
        return replace(self, records=max(1, int(self.records * share)))


def texts(length: int, seed: int = 0) -> list[str]:
    """Return `TEXTS` texts like those in logs: words, numbers, identifiers. The same seed gives the same ones."""
    generator = random.Random(seed)
    return [_text(generator, length) for _ in range(TEXTS)]


def _text(generator: random.Random, length: int) -> str:
    text = generator.choice(_WORDS)
    while len(text) < length:
        kind = generator.random()
        if kind < 0.12:
            word = str(generator.randrange(100_000))
        elif kind < 0.2:
            word = f"{generator.getrandbits(32):08x}"
        else:
            word = generator.choice(_WORDS)
        text += " " + word
    return text[:length]
