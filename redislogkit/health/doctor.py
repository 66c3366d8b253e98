"""Looks at everything that records pass on their way, and says what to do where something is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import stat
from collections.abc import Iterator
from typing import Final, NamedTuple

from redislogkit.config import Config, FileWriterConfig
from redislogkit.config_values import redact
from redislogkit.errors import RedislogkitError
from redislogkit.health import folders, notes, overview, server
from redislogkit.health.findings import Finding, counted, ok, problem, warning
from redislogkit.health.overview import Seen
from redislogkit.producer import compiled
from redislogkit.stream import address, server_binary
from redislogkit.stream.client import StreamClient

_TIMEOUT: Final = 3.0
_MIB: Final = 1024 * 1024
#: Bytes that must be free for anything to go on.
_LITTLE: Final = 64 * _MIB


class Part(NamedTuple):
    """Findings about one station of a record's way."""

    title: str
    findings: list[Finding]


def examine(config: Config, wrong: list[Finding] | None = None) -> list[Part]:
    """Look at all of it; changes nothing, but for a key beside the stream that is removed again.

    ``wrong`` is what is wrong with the file, where ``config`` is not what it says.
    """
    seen = overview.look(config)
    return [
        Part("installation", [_of_installation()]),
        Part("configuration", wrong or _of_configuration(config, seen)),
        Part("server", _of_server(config, seen)),
        Part("disk", _of_disk(config)),
        Part("processes", _of_processes(config, seen)),
    ]


# -- installation -----------------------------------------------------------------------------------


def _of_installation() -> Finding:
    python = ".".join(platform.python_version_tuple())
    name = f"redislogkit {importlib.metadata.version('redislogkit')}, Python {python}"
    if compiled.MODULE is not None:
        return ok("package", name)
    return warning(
        "package",
        f"{name}, where logging calls do everything in Python",
        "install it anew where a C compiler and the headers of Python are: each call takes a microsecond less",
    )


# -- configuration ----------------------------------------------------------------------------------


def _of_configuration(config: Config, seen: Seen) -> list[Finding]:
    found = notes.notes(config)
    found += overview.of_configuration(config, seen)
    return found or [ok("file", f"{config.source or 'a mapping'} is right")]


# -- server -----------------------------------------------------------------------------------------


def _of_server(config: Config, seen: Seen) -> list[Finding]:
    if address.is_embedded(config) and seen.supervisor is None:
        return [_of_binary()]
    url = redact(config.redis.url)
    try:
        client = StreamClient(address.resolve(config), config.stream.name, timeout=_TIMEOUT)
        try:
            facts = server.look(client, config.stream.name)
        finally:
            client.close()
    except RedislogkitError as error:
        return [problem("connection", f"{url}: {error}", _advice(str(error)))]
    return [ok("connection", url), *server.findings(config, facts)]


def _of_binary() -> Finding:
    """The embedded server does not run: could it?"""
    try:
        return ok(
            "embedded server", f"it will be started by the supervisor, from {server_binary.find_server()}"
        )
    except RedislogkitError as error:
        return problem(
            "embedded server", f"it can not be started: {error}", "pip install 'redislogkit[server]'"
        )


#: Words of an error → what to do about it, in lower case.
_ADVICE: Final = (
    ("wrongpass", "user or password in redis.url are wrong"),
    ("invalid username", "user or password in redis.url are wrong"),
    ("noauth", "redis.url needs a password: redis://:PASSWORD@host"),
    ("authentication required", "redis.url needs a password: redis://:PASSWORD@host"),
    (
        "refused",
        "nothing listens there: is the server running, is the port right, is it bound to this address?",
    ),
    ("no such file", "the server is not running, or its socket has another path"),
    ("permission denied", "this user may not connect to the socket; run this as the user that logs"),
    ("timed out", "a firewall, a wrong address, or a server that is stopped or busy for seconds"),
    ("timeout", "a firewall, a wrong address, or a server that is stopped or busy for seconds"),
    ("name or service", "the host's name in redis.url can not be resolved"),
    ("temporary failure in name", "the host's name in redis.url can not be resolved now: look at DNS"),
    ("certificate", "give the authority in redis.url: rediss://host?ssl_ca_certs=/path/ca.pem"),
    ("ssl", "is it a TLS port? rediss:// is for TLS, redis:// is not"),
    ("connection closed by server", "is it a TLS port? rediss:// is for TLS, redis:// is not"),
    ("loading", "it is loading its data; it takes records when that is done"),
    ("moved", "it is a cluster: redis.url must name the node with the stream's slot"),
    ("wrong kind", "a key of the stream's name is something else: give this one another stream.name"),
    ("permission", "ACL: allow this user what docs/troubleshooting.md lists"),
)


def _advice(error: str) -> str:
    text = error.lower()
    return next((advice for word, advice in _ADVICE if word in text), "try it with redis-cli from this host")


# -- disk -------------------------------------------------------------------------------------------


def _of_disk(config: Config) -> list[Finding]:
    found = [*_of_state_dir(config)]
    for name, writer in config.writers.items():
        if isinstance(writer, FileWriterConfig):
            found += _of_log_file(name, writer)
    return found


def _of_state_dir(config: Config) -> Iterator[Finding]:
    spool = config.spool_root
    yield from _of_space(
        "state_dir", config.state_dir, config.producer.spool_max_bytes, "spool_max_bytes of one process"
    )
    try:
        status = os.stat(spool)
    except FileNotFoundError:
        yield ok("state_dir", f"{spool} does not exist: nobody has logged here yet")
        return
    except OSError as error:
        yield problem(
            "state_dir",
            f"{spool} can not be looked at: {error}",
            "run this as the user that logs",
        )
        return
    if status.st_uid != os.geteuid():
        text = f"{spool} belongs to user {status.st_uid}, and this is user {os.geteuid()}"
        advice = "producers and supervisor of a stream must be one user; run this as that user"
        yield warning("state_dir", text, advice)
    if stat.S_IMODE(status.st_mode) & 0o077:
        text = f"others can look into {spool} (mode {stat.S_IMODE(status.st_mode):04o})"
        yield warning("state_dir", text, f"spools hold what is logged: chmod 700 {spool}")
    damaged = os.path.join(config.stream_dir, "damaged")
    if os.path.isdir(damaged) and os.listdir(damaged):
        text = f"{len(os.listdir(damaged))} segments or entries that could not be read lie in {damaged}"
        yield warning(
            "damaged", text, "look at the disk (smartctl, dmesg); remove them when you are done with them"
        )


def _of_log_file(name: str, writer: FileWriterConfig) -> Iterator[Finding]:
    subject = f"writer {name}"
    yield from _of_space(subject, os.path.dirname(writer.path), writer.max_bytes, "max_bytes")
    if os.path.exists(writer.path) and not os.access(writer.path, os.W_OK):
        text = f"this user can not write to {writer.path}"
        yield warning(subject, text, "that matters if the supervisor runs as this user: chown or chmod it")


def _of_space(subject: str, path: str, wanted: int, what: str) -> Iterator[Finding]:
    try:
        folder = folders.look(path)
    except OSError as error:
        yield problem(subject, f"{path} can not be looked at: {error}", "run this as the user that logs")
        return
    text = f"{folder.free / _MIB:,.0f} MiB free for {path}" + (
        f" ({folder.file_system})" if folder.file_system else ""
    )
    if folder.free < _LITTLE:
        yield problem(subject, text, "make room: a full disk drops records, or keeps them from being written")
    elif folder.free < wanted:
        yield warning(
            subject, f"{text}, less than {what} = {wanted / _MIB:,.0f} MiB", "make room, or lower the bound"
        )
    else:
        yield ok(subject, text)


# -- processes --------------------------------------------------------------------------------------


def _of_processes(config: Config, seen: Seen) -> list[Finding]:
    rows = overview.writers(config, seen)
    # What the server is asked for here, and which configuration it is, has been said above.
    found = [
        finding
        for finding in overview.findings(config, seen, rows)
        if finding.subject not in ("redis", "configuration")
    ]
    if seen.supervisor is not None:
        found.insert(0, ok("supervisor", f"process {seen.supervisor['pid']}"))
    told = {finding.subject for finding in found}
    for child in overview.children(seen):
        subject = child["name"] if child["name"] == child["kind"] else f"{child['kind']} {child['name']}"
        if subject not in told:
            found.append(ok(subject, f"{child['state']}, {counted(child.get('restarts') or 0, 'restart')}"))
    if "spools" not in told:
        waiting = sum(spool.waiting for spool in seen.spools.states)
        found.append(ok("spools", f"{len(seen.spools.states)}, with {counted(waiting, 'record')} on the way"))
    return found
