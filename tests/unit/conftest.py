"""Fixtures of the unit tests: producers and a shipper's end on spools of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.helpers.spools import Rig


@pytest.fixture
def rigs() -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**options: object) -> Rig:
        made.append(Rig(**options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for rig in made:
        rig.remove()


@pytest.fixture
def rig(rigs: Callable[..., Rig]) -> Rig:
    return rigs()
