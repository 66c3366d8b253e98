"""What runs and what waits, as the supervisor, the stream in redis and the spools on the disk tell it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from redislogkit import control, identity, launch
from redislogkit.config import Config
from redislogkit.config_values import redact
from redislogkit.errors import RedislogkitError
from redislogkit.health import spools
from redislogkit.health.findings import Finding, counted, ok, problem, waits, warning
from redislogkit.spool import doorbell
from redislogkit.stream import address
from redislogkit.stream.client import Overview, StreamClient, WriterState

#: Seconds that a command may take: somebody is waiting for the answer.
_TIMEOUT: Final = 2.0
#: Seconds that a record may wait for a writer before that is worth a word.
_LATE: Final = 30.0
_FULL: Final = 0.8
_BAD_STATES: Final = ("set aside", "ended")
_PASSING_STATES: Final = ("waiting", "restarting")


class Seen(NamedTuple):
    """Everything that was seen at one moment."""

    at: float
    """Monotonic seconds."""
    supervisor: Mapping[str, Any] | None
    """Answer of the supervisor on this host to ``status``."""
    supervisor_error: str
    stream: Overview | None
    stream_error: str
    spools: spools.Spools
    spools_error: str


class WriterRow(NamedTuple):
    """One writer: what its supervisor knows of it, and what the stream does."""

    name: str
    """As it is registered: of terminals, with their host."""
    type: str
    """Empty for one that is not configured here."""
    state: str
    """Of the child on this host, ``elsewhere`` while another host writes, ``-`` when nobody does."""
    behind: int | None
    """Records that it has not written; None: it is not registered, or the server does not answer."""
    age: float | None
    """Seconds since the first of these was added to the stream."""
    rate: float | None
    """Records a second, since the look before."""
    position: str
    restarts: int
    holder: str
    """Host that holds its lease."""
    error: str


def look(config: Config) -> Seen:
    """Ask everybody once; who does not answer is a text in the result."""
    supervisor: Mapping[str, Any] | None = None
    stream: Overview | None = None
    on_disk = spools.Spools([], {})
    supervisor_error = stream_error = spools_error = ""
    try:
        answer = control.ask(config, {"do": control.STATUS}, _TIMEOUT)
        if answer.get("ok"):
            supervisor = answer
        else:
            supervisor_error = str(answer.get("error"))
    except RedislogkitError as error:
        supervisor_error = str(error)
    try:
        client = StreamClient(address.resolve(config), config.stream.name, timeout=_TIMEOUT)
        try:
            stream = client.overview()
        finally:
            client.close()
    except RedislogkitError as error:
        stream_error = str(error)
    try:
        on_disk = spools.look(config)
    except OSError as error:
        spools_error = str(error)
    return Seen(time.monotonic(), supervisor, supervisor_error, stream, stream_error, on_disk, spools_error)


def children(seen: Seen) -> list[Mapping[str, Any]]:
    """Children of the supervisor, as it tells of them."""
    return list(seen.supervisor["children"]) if seen.supervisor else []


def writers(config: Config, seen: Seen, before: Seen | None = None) -> list[WriterRow]:
    """Return a row for each writer that is configured here or registered with the stream."""
    configured = {address.group(config, name): name for name in config.writers}
    registered = seen.stream.writers if seen.stream else {}
    running = {child["name"]: child for child in children(seen) if child["kind"] == "writer"}
    rows = []
    for group in [*configured, *sorted(set(registered) - set(configured))]:
        name = configured.get(group, "")
        child = running.get(name, {})
        state = registered.get(group)
        section = config.writers.get(name)
        rows.append(
            WriterRow(
                group,
                str(section.__struct_config__.tag) if section else "",
                str(child.get("state", "")) or _elsewhere(seen, state),
                seen.stream.behind(group) if seen.stream and state else None,
                _age(seen, state),
                _rate(group, seen, before),
                state.position if state else "",
                int(child.get("restarts") or 0),
                state.holder.partition(":")[0] if state else "",
                str(child.get("error") or child.get("last_exit") or ""),
            )
        )
    return rows


def _elsewhere(seen: Seen, state: WriterState | None) -> str:
    if state is None or seen.stream is None or state.lease_ends <= seen.stream.now:
        return "-"
    return "-" if state.holder.partition(":")[0] == identity.host_name() else "elsewhere"


def _age(seen: Seen, state: WriterState | None) -> float | None:
    if seen.stream is None or state is None or state.unread_since is None:
        return None
    return max(seen.stream.now - state.unread_since, 0.0)


def _rate(group: str, seen: Seen, before: Seen | None) -> float | None:
    if not (seen.stream and before and before.stream):
        return None
    now, then = seen.stream.writers.get(group), before.stream.writers.get(group)
    seconds = seen.stream.now - before.stream.now
    return max(now.total - then.total, 0) / seconds if now and then and seconds > 0 else None


# -- what is wrong ----------------------------------------------------------------------------------


def findings(config: Config, seen: Seen, rows: list[WriterRow]) -> list[Finding]:
    """Return what deserves a word; empty when all is well."""
    return [
        *of_configuration(config, seen),
        *_of_supervisor(config, seen),
        *_of_children(seen),
        *_of_stream(config, seen),
        *(finding for row in rows for finding in _of_writer(config, seen, row)),
        *_of_spools(config, seen),
    ]


def own_log(config: Config) -> str:
    """Where the supervisor says what it has to say."""
    if config.supervisor.log:
        return config.supervisor.log
    return launch.log_path(config) if config.supervisor.autostart else "its stderr (with systemd: journalctl)"


def start_advice(config: Config) -> str:
    """How to have a supervisor."""
    by_hand = f"redislogkit supervise {config.source or 'log.toml'}"
    if config.supervisor.autostart:
        return (
            f"the next record of an application starts it, or run: {by_hand}; why it ended: {own_log(config)}"
        )
    return f"supervisor.autostart is false: start its service (systemd), or run: {by_hand}"


def of_configuration(config: Config, seen: Seen) -> Iterator[Finding]:
    """Say it where the supervisor works for another configuration than the one that is looked at."""
    if seen.supervisor is None or launch.is_announced(config):
        return
    theirs = seen.supervisor.get("config")
    if theirs == config.source:
        text = "the supervisor works for another content of this file: redis, stream or writers differ"
        advice = f"have the file taken as it is now: redislogkit reload {config.source}"
    else:
        text = (
            f"the supervisor works for another one, {theirs or 'a mapping'}: redis, stream or writers differ"
        )
        advice = (
            f"look with that one: redislogkit status {theirs}"
            if theirs
            else "it makes way when the programs have ended that log through it, all of them"
        )
    yield warning("configuration", text, advice)


def _of_supervisor(config: Config, seen: Seen) -> Iterator[Finding]:
    if seen.supervisor is not None:
        if seen.supervisor.get("config_error"):
            advice = (
                "mend the file, then: redislogkit reload; until then the configuration before is in force"
            )
            yield warning("supervisor", f"its last reload failed: {seen.supervisor['config_error']}", advice)
        for cause, number in (seen.supervisor.get("dropped") or {}).items():
            if number:
                advice = (
                    "each such place in the log files has a line that says so; see docs/troubleshooting.md"
                )
                yield warning("dropped", f"{number:,} records were dropped: {cause}", advice)
        return
    waiting = sum(spool.waiting for spool in seen.spools.states)
    alive = sum(spool.alive for spool in seen.spools.states)
    if not launch.needs_supervisor(config):
        yield ok("supervisor", "none is needed: producers ship their records themselves")
    elif doorbell.is_heard(launch.doorbell_path(config)):
        yield problem("supervisor", seen.supervisor_error, f"it runs; look at {own_log(config)}")
    elif config.supervisor.autostart and not waiting and not alive:
        yield ok("supervisor", "none runs, and nobody logs here; the first application that does starts it")
    else:
        where = f" in {counted(len(seen.spools.states), 'spool')}"
        text = f"none runs on this host; {waits(waiting, where)}"
        yield problem("supervisor", text, start_advice(config))


def _of_children(seen: Seen) -> Iterator[Finding]:
    for child in children(seen):
        state, why = child.get("state"), child.get("error") or child.get("last_exit") or ""
        subject = child["name"] if child["name"] == child["kind"] else f"{child['kind']} {child['name']}"
        if state in _BAD_STATES:
            advice = "mend the cause; it is tried again every 15 seconds"
            yield problem(subject, f"{state}: {why}", advice)
        elif state in _PASSING_STATES or child.get("error"):
            yield warning(subject, f"{state}: {why}", "it goes on by itself when the cause is gone")


def _of_stream(config: Config, seen: Seen) -> Iterator[Finding]:
    if seen.stream is None:
        url = redact(config.redis.url)
        if address.is_embedded(config) and seen.supervisor is None:
            yield ok("redis", "the embedded server does not run: it is a child of the supervisor")
        else:
            advice = "records wait in the spools meanwhile; 'redislogkit doctor' looks closer"
            yield problem("redis", f"{url} can not be asked: {seen.stream_error}", advice)
        return
    if seen.stream.overflow:
        advice = "configure the writers on the hosts that ship, or raise stream.max_records"
        yield warning(
            "stream",
            f"{seen.stream.overflow:,} records were dropped from it, as no writer was registered",
            advice,
        )
    most = config.stream.max_records
    slowest = max(map(seen.stream.behind, seen.stream.writers), default=0)
    if slowest >= most:
        yield problem(
            "stream",
            f"it is full: stream.max_records = {most:,} records wait",
            "the writer that is behind is below",
        )
    elif slowest >= _FULL * most:
        text = f"{slowest:,} records wait, of stream.max_records = {most:,}"
        yield warning("stream", text, "the writer that is behind is below")


def _of_writer(config: Config, seen: Seen, row: WriterRow) -> Iterator[Finding]:
    subject = f"writer {row.name}"
    if row.behind is None:
        runs = seen.supervisor is not None and row.state not in ("-", "elsewhere")
        if runs and seen.stream is not None and seen.stream.entries:
            yield warning(subject, "it is not registered with the stream yet", "see its state and error")
        return
    if row.age is None or row.age < _LATE or not row.behind:
        return
    text = f"{waits(row.behind)} for it, the oldest for {row.age:,.0f} s"
    if not row.type and row.state == "-":
        advice = (
            f"nobody is this writer any more? redislogkit writers --drop {row.name}; it holds the stream back"
        )
        yield warning(subject, text, advice)
    elif row.state == "-":
        yield problem(subject, f"{text}, and nobody writes", start_advice(config))
    elif row.rate:
        yield warning(
            subject,
            f"{text}; it writes {row.rate:,.0f} a second",
            "it catches up, or the load is too high for it",
        )
    else:
        yield problem(subject, f"{text}, and it writes nothing", row.error or f"look at {own_log(config)}")


def _of_spools(config: Config, seen: Seen) -> Iterator[Finding]:
    if seen.spools_error:
        yield problem(
            "spools", f"they can not be listed: {seen.spools_error}", "run this as the user that logs"
        )
    for name, why in seen.spools.unreadable.items():
        yield warning(
            "spools",
            f"{name} can not be read: {why}",
            "its records may be in damaged/, see docs/operations.md",
        )
    for spool in seen.spools.states:
        if spool.bytes >= _FULL * config.producer.spool_max_bytes:
            text = f"that of process {spool.facts.pid} has {spool.bytes:,} bytes of spool_max_bytes"
            yield warning(
                "spools", text, f"at the bound producer.on_full = {config.producer.on_full!r} applies"
            )
