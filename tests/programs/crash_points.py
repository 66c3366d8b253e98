"""Kill producer, shipper, writer, supervisor and application at each of their calls and stores, and check the files.

    python -m tests.programs.crash_points                    # every scene, every point, and two faults in a row
    python -m tests.programs.crash_points shipping writing:half logging:before:5:2

An argument is a scene, and where wanted how it dies (``before``, ``half``, ``late``, ``instruction``, ``twice``), each
how manieth point is tried, and which is the first; for ``twice``, how many plans and their seed. Prints one line for
each, and ends with 1 when anything was lost, doubled, torn, disordered, or left over.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import Final, NamedTuple

from redislogkit.spool import segment
from tests.helpers import crash_scenes, crashes, processes
from tests.helpers.crashes import Count, Scene
from tests.helpers.server import Server

_SCENES: Final[dict[str, type[Scene]]] = {
    scene.name: scene
    for scene in vars(crash_scenes).values()
    if isinstance(scene, type) and issubclass(scene, Scene) and scene.name
}
#: A late command arrives before this command of its successor, in a complete run.
_DELAYS: Final = (2, 4, 6, 8, 11, 15)
_PLANS: Final = 300
_SHORTEST_DELAY: Final = 3


class Wish(NamedTuple):
    """One row of points to be tried."""

    scene: str
    how: str
    step: int = 1
    first: int = 1
    delayed: int = _SHORTEST_DELAY


def complete(name: str) -> Iterator[Wish]:
    """Everything that can be done to a scene."""
    scene = _SCENES[name]
    for how in scene.ways:
        if how == "late":
            yield from (Wish(name, how, delayed=delay) for delay in _DELAYS)
        elif how == "twice":
            yield Wish(name, how, _PLANS, 1)
        else:
            yield Wish(name, how)


def wishes(argument: str) -> Iterator[Wish]:
    """What one argument of the command line means."""
    name, *rest = argument.split(":")
    if name not in _SCENES:
        raise SystemExit(f"there is no scene {name!r}, there are: {', '.join(_SCENES)}")
    if not rest:
        yield from complete(name)
        return
    how, *numbers = rest
    if how not in _SCENES[name].ways:
        raise SystemExit(f"scene {name} dies {', '.join(_SCENES[name].ways)}, not {how!r}")
    yield Wish(name, how, *map(int, numbers))


def fulfil(wish: Wish, url: str, root: str) -> Count:
    """Try all points of a wish."""
    scene = _SCENES[wish.scene]
    if wish.how == "twice":
        return crashes.sampled(scene, url, root, plans=wish.step, seed=wish.first)
    return crashes.every_point(
        scene, url, root, wish.how, first=wish.first, step=wish.step, delayed=wish.delayed
    )


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.programs.crash_points")
    parser.add_argument("wishes", nargs="*", metavar="SCENE[:HOW[:STEP[:FIRST]]]")
    parser.add_argument("--url", help="a running server; default: one of its own")
    options = parser.parse_args()
    mark = os.environ.setdefault(processes.MARK, uuid.uuid4().hex)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    root = crashes.memory_folder()
    server = None
    if options.url is None:
        server = Server(tempfile.mkdtemp(prefix="rlk-", dir="/tmp")).start()
    try:
        return _run(options.wishes or list(_SCENES), options.url or (server.url if server else ""), root)
    finally:
        if server is not None:
            server.stop()
            shutil.rmtree(server.directory)
        processes.reap_all(mark, root)
        shutil.rmtree(root)


def _run(arguments: list[str], url: str, root: str) -> int:
    segment.SMALLEST = crash_scenes.SEGMENT  # type: ignore[misc]
    crashes.warm_up()
    total = Count()
    for argument in arguments:
        for wish in wishes(argument):
            began = time.monotonic()
            count = fulfil(wish, url, root)
            delay = f", late before {wish.delayed}" if wish.how == "late" else ""
            print(
                f"{wish.scene} {wish.how}{delay}: {count.plans} plans, {count.kills} kills, "
                f"{len(count.failures)} failed ({time.monotonic() - began:.1f} s)",
                flush=True,
            )
            for failure in count.failures:
                print(failure, flush=True)
            total.plans += count.plans
            total.kills += count.kills
            total.failures += count.failures
    print(f"{total.plans} plans, {total.kills} kills, {len(total.failures)} failed")
    return 1 if total.failures else 0


if __name__ == "__main__":
    sys.exit(main())
