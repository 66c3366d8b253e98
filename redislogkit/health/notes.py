"""What a configuration allows, and nobody is likely to mean."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

from redislogkit import callables, formatting, record
from redislogkit.config import Config, CustomWriterConfig, FileWriterConfig, FormatterConfig
from redislogkit.config_values import nearest
from redislogkit.errors import ConfigError
from redislogkit.health import folders
from redislogkit.health.findings import Finding, warning
from redislogkit.record import Facts
from redislogkit.writers import custom

_FACTS: Final = Facts("producer", "host", 1, "MainProcess", 0.0, 0)
_PREDEFINED: Final = frozenset(["plain", "json"])


def notes(config: Config) -> list[Finding]:
    """Return what deserves a warning; the subject of each is the key that it is about."""
    return [
        *_of_state(config),
        *_of_writers(config),
        *(note for name in config.formatters for note in _of_formatter(config, name)),
    ]


def _of_state(config: Config) -> Iterator[Finding]:
    yield from _of_folder("state_dir", config.state_dir)
    if (
        config.producer.ship == "thread"
        and config.producer.ack == "writer"
        and not config.supervisor.autostart
    ):
        text = 'with ship = "thread" the application ships, but nobody writes unless a supervisor runs'
        yield warning(
            "supervisor.autostart", text, "run 'redislogkit supervise' on a host, or set autostart = true"
        )


def _of_folder(key: str, path: str) -> Iterator[Finding]:
    try:
        folder = folders.look(path)
    except OSError as error:
        yield warning(key, f"{path} can not be looked at: {error}", "choose another folder")
        return
    if not folder.writable:
        text = f"this user can not write to {folder.existing}"
        yield warning(
            key, text, "that matters if the supervisor runs as this user: chown or chmod the folder"
        )
    if key == "state_dir" and folder.over_network:
        text = f"{path} is on {folder.file_system}: locks and mapped files are not to be trusted there"
        yield warning(key, text, "choose a folder on a local disk")
    if key == "state_dir" and folder.in_memory:
        text = f"{path} is in memory ({folder.file_system}): a reboot takes spools and checkpoints with it"
        yield warning(key, text, "choose a folder on a disk, unless that is meant")


def _of_writers(config: Config) -> Iterator[Finding]:
    if not config.writers:
        text = "there is none: records end in the stream, and are kept only as redis keeps them"
        yield warning("writers", text, "add a section [writers.NAME], unless other programs read the stream")
    for name, writer in config.writers.items():
        key = f"writers.{name}"
        if isinstance(writer, FileWriterConfig):
            yield from _of_folder(f"{key}.path", os.path.dirname(writer.path))
            yield from _of_growth(key, writer)
        yield from _of_code(config, name)
        if 0 < writer.level < config.producer.level:
            text = f"is below producer.level = {config.producer.level}: nothing between them gets here"
            yield warning(f"{key}.level", text, "lower producer.level, or leave the writer's away")


def _of_code(config: Config, name: str) -> Iterator[Finding]:
    """The writer's process would load this code, too; it may find it elsewhere than whoever looks here."""
    writer = config.writers[name]
    if config.source:
        callables.extend_path([os.path.dirname(config.source)])
    advice = "that matters if the supervisor runs in this environment: its writer is set aside"
    for what in ("target", "filter"):
        reference, key = getattr(writer, what, None), f"writers.{name}.{what}"
        if reference is None:
            continue
        try:
            found = callables.find(reference, key)
            if isinstance(writer, CustomWriterConfig) and what == "target":
                custom.check_options(found, writer.options, key)
        except ConfigError as error:
            yield warning(key, str(error).removeprefix(f"{key} "), advice)


def _of_growth(key: str, writer: FileWriterConfig) -> Iterator[Finding]:
    rotates = writer.max_bytes or writer.when
    if rotates and not (writer.backup_count or writer.max_age or writer.max_total_bytes):
        text = "0 keeps any number of backups, and neither max_age nor max_total_bytes bounds them"
        yield warning(f"{key}.backup_count", text, "set one of the three, or watch the disk")


def _of_formatter(config: Config, name: str) -> Iterator[Finding]:
    formatter = config.formatters[name]
    used = any(writer.formatter == formatter for writer in config.writers.values())
    if not used and name not in _PREDEFINED:
        yield warning(
            f"formatters.{name}", "no writer uses it", "name it in a writer's formatter, or remove it"
        )
    known = [*record.attributes(_sample(), _FACTS, 1), "asctime"]
    for field in _fields(formatter):
        if field not in known:
            text = f"{field!r} is no attribute of a record: empty, but for records with an extra of that name"
            hint = nearest(field, known) or "optional_fields shows an extra only where there is one"
            yield warning(f"formatters.{name}.format", text, hint)


def _sample() -> record.Record:
    return record.build(0.0, 20, "INFO", "name", "", "", 1, "", None, None)


def _fields(formatter: FormatterConfig) -> list[str]:
    parsed = formatting.parse(formatter) if formatter.type == "text" else None
    return list(dict.fromkeys(field.name for field in parsed.fields if field.spec)) if parsed else []
