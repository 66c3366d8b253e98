"""A web application that is loaded before gunicorn forks its workers; every request logs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

import redislogkit
from tests.programs.numbered import log

redislogkit.configure()
log(10)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the pid of the worker."""
    log(10)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(os.getpid()).encode()]
