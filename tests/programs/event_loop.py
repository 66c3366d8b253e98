"""An asyncio program: many tasks, and calls in threads, of one process."""

from __future__ import annotations

import asyncio
import logging

import redislogkit
from tests.programs.numbered import SIZE, log, new_tally


async def task() -> None:
    """Log a record each time it is this task's turn."""
    tally = new_tally()
    for _ in range(40):
        tally.log(logging.getLogger("program.task"), size=SIZE)
        await asyncio.sleep(0)


async def main() -> None:
    """Run tasks and threads side by side."""
    tasks = [asyncio.create_task(task()) for _ in range(50)]
    threads = [asyncio.to_thread(log, 100) for _ in range(10)]
    await asyncio.gather(*tasks, *threads)


if __name__ == "__main__":
    redislogkit.configure()
    asyncio.run(main())
