"""Which configuration is looked at: that of the file, or, while the file is wrong, the one that its supervisor goes by."""

from __future__ import annotations

import base64
from typing import NamedTuple

from redislogkit import config as configuration
from redislogkit import control
from redislogkit.config import Config
from redislogkit.errors import ConfigError, RedislogkitError
from redislogkit.health.findings import Finding, problem


class Looked(NamedTuple):
    """A configuration, and why it is not what its file says."""

    config: Config
    findings: list[Finding]


def load(source: str | None) -> Looked:
    """Load a file. One that is wrong is a finding where its supervisor runs and can be asked what it goes by.

    Raises ``ConfigError`` where it can not.
    """
    try:
        return Looked(configuration.load(source), [])
    except ConfigError as error:
        config = _ask(source)
        if config is None:
            raise
        advice = (
            "the supervisor goes on with what it has; programs that start now are refused. Mend the file, then: "
            f"redislogkit reload {config.source}"
        )
        lines = [problem("configuration", text, "") for text in error.problems]
        return Looked(config, [*lines[:-1], lines[-1]._replace(advice=advice)])


def _ask(source: str | None) -> Config | None:
    where = configuration.salvage(source)
    if where is None:
        return None
    try:
        answer = control.ask(where, {"do": control.CONFIGURATION})
        found = configuration.from_bytes(base64.b64decode(answer.get("configuration", "")))
    except (RedislogkitError, OSError, ValueError):  # an older one does not tell
        return None
    return found if found.source == where.source else None
