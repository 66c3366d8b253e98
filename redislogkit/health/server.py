"""What a server tells of itself, and what that means for records. Pure, but for `look`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from redislogkit.config import Config
from redislogkit.errors import StreamError
from redislogkit.health.findings import Finding, counted, ok, problem, warning
from redislogkit.stream import rights
from redislogkit.stream.client import StreamClient
from redislogkit.stream.server_binary import OLDEST_VERSION

_SKEW: Final = 2.0
_SLOW: Final = 0.05
_MIB: Final = 1024 * 1024


class Facts(NamedTuple):
    """What was found out about a server."""

    info: Mapping[str, str]
    """Answer to ``INFO``; empty where this user may not ask."""
    save: str | None
    """When it takes snapshots, as ``CONFIG GET save`` says it; None where this user may not ask."""
    missing: Mapping[str, str]
    """Command → why this user may not use it."""
    round_trip: float
    """Seconds that a PING takes."""
    skew: float
    """Seconds that the server's clock is ahead of ours."""
    stream_bytes: int | None
    """What the stream takes in its memory; None where this user may not ask."""


def look(client: StreamClient, stream: str) -> Facts:
    """Ask the server. Raises ``StreamError`` where it does not answer."""
    client.ping()  # the connection is made
    began = time.monotonic()
    client.ping()
    round_trip = time.monotonic() - began
    missing = rights.missing(client, stream)
    skew = 0.0
    if "TIME" not in missing:
        before = time.time()
        seconds, microseconds = client.ask("TIME")
        skew = int(seconds) + int(microseconds) / 1e6 - (before + time.time()) / 2
    return Facts(_info(client), _save(client), missing, round_trip, skew, _memory_of(client, stream))


def _info(client: StreamClient) -> dict[str, str]:
    try:
        answer = client.ask("INFO")
    except StreamError:
        return {}
    if isinstance(answer, dict):  # as the client library has parsed it
        return {str(name): str(value) for name, value in answer.items()}
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else str(answer)
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}


def _save(client: StreamClient) -> str | None:
    try:
        answer = client.ask("CONFIG", "GET", "save")
    except StreamError:
        return None
    values = list(answer.values()) if isinstance(answer, dict) else list(answer)[1::2]
    return "".join(value.decode() if isinstance(value, bytes) else str(value) for value in values)


def _memory_of(client: StreamClient, stream: str) -> int | None:
    try:
        return int(client.ask("MEMORY", "USAGE", stream) or 0)
    except StreamError:
        return None


def findings(config: Config, facts: Facts) -> list[Finding]:
    """Return what is right and wrong about the server."""
    found = [*_of_rights(config, facts), *_of_clocks(facts)]
    if not facts.info:
        advice = "allow +info, or have somebody run doctor who may"
        return [
            *found,
            warning(
                "server", "this user may not ask INFO: version, memory and persistence are unknown", advice
            ),
        ]
    return [
        *_of_version(facts.info),
        *_of_role(facts.info),
        *_of_eviction(facts.info),
        *_of_memory(facts),
        *_of_persistence(config, facts),
        *_of_clients(facts.info),
        *found,
    ]


def _number(info: Mapping[str, str], name: str) -> int:
    text = info.get(name, "")
    return int(text) if text.isdecimal() else 0


def _of_version(info: Mapping[str, str]) -> Iterator[Finding]:
    name = "Valkey" if "valkey_version" in info else "Redis"
    version = info.get("valkey_version") or info.get("redis_version", "")
    # Valkey calls itself Redis 7.2 for clients; it has been newer than that from its first release on.
    parts = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if parts < OLDEST_VERSION:
        yield problem(
            "version", f"{name} {version} is too old", "6.2 is the oldest that works, or any Valkey"
        )
    else:
        yield ok("version", f"{name} {version}")


def _of_role(info: Mapping[str, str]) -> Iterator[Finding]:
    if info.get("loading") == "1":
        yield warning("role", "it is loading its data", "it takes records when that is done")
    if info.get("cluster_enabled") == "1" or info.get("redis_mode") == "cluster":
        text = "it is a node of a cluster: a failover, or a slot that moves, is not followed"
        yield warning(
            "role",
            text,
            "let redis.url name the node with the stream's slot, or take a server without cluster mode",
        )
    if info.get("redis_mode") == "sentinel":
        yield problem("role", "it is a sentinel, no server", "let redis.url name the master")
    elif info.get("role") in ("slave", "replica"):
        yield problem("role", "it is a replica, and takes no records", "let redis.url name the master")
    else:
        replicas = _number(info, "connected_slaves")
        yield ok("role", f"master with {counted(replicas, 'replica')}")


def _of_eviction(info: Mapping[str, str]) -> Iterator[Finding]:
    policy, bound = info.get("maxmemory_policy", ""), _number(info, "maxmemory")
    advice = (
        "CONFIG SET maxmemory-policy noeviction: a full server then refuses, and records wait in the spools"
    )
    if policy.startswith("allkeys") and bound:
        yield problem(
            "eviction", f"{policy} throws the stream away when memory is full, without an error", advice
        )
    elif policy.startswith("allkeys"):
        yield warning(
            "eviction", f"{policy} would throw the stream away if there were a bound (maxmemory)", advice
        )
    else:
        # volatile-* takes keys with a time to live only: a stream has none.
        yield ok("eviction", policy or "unknown")


def _of_memory(facts: Facts) -> Iterator[Finding]:
    info = facts.info
    used, bound = _number(info, "used_memory"), _number(info, "maxmemory")
    machine = _number(info, "total_system_memory")
    most = bound or machine
    of = "maxmemory" if bound else "the machine's memory; maxmemory is not set"
    stream = "" if facts.stream_bytes is None else f", the stream {facts.stream_bytes / _MIB:,.1f} MiB"
    text = f"{used / _MIB:,.0f} MiB used of {most / _MIB:,.0f} ({of}){stream}"
    advice = "give it more, or find out who fills it (redis-cli --bigkeys); while it is full, records wait in the spools"
    if bound and used > 0.95 * bound:
        yield problem("memory", text, advice)
    elif most and used > 0.8 * most:
        yield warning("memory", text, advice)
    else:
        yield ok("memory", text)


def _of_persistence(config: Config, facts: Facts) -> Iterator[Finding]:
    info = facts.info
    if info.get("aof_last_write_status", "ok") != "ok":
        yield problem(
            "persistence", "it can not write its append-only file, and refuses records", "look at its disk"
        )
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        advice = "look at its disk and its log; with stop-writes-on-bgsave-error it refuses records meanwhile"
        yield warning("persistence", "its last snapshot has failed", advice)
    aof = info.get("aof_enabled") == "1"
    # The time of the last snapshot is that of the start where none was taken: it tells nothing.
    snapshots = {None: "snapshots, perhaps", "": "nothing"}.get(facts.save, "snapshots")
    kept = "append-only file" if aof else snapshots
    if config.producer.ack == "stream" and not aof:
        text = f'on disk: {kept}; with ack = "stream" a record is safe only as far as redis keeps it'
        yield warning(
            "persistence", text, 'CONFIG SET appendonly yes, or configure writers and ack = "writer"'
        )
    else:
        why = (
            ""
            if config.producer.ack == "stream"
            else "; not needed, spools are kept until writers have written"
        )
        yield ok("persistence", f"on disk: {kept}{why}")


def _of_clients(info: Mapping[str, str]) -> Iterator[Finding]:
    connected, most = _number(info, "connected_clients"), _number(info, "maxclients")
    text = f"{counted(connected, 'connection')} of maxclients = {most:,}"
    if most and connected > 0.9 * most:
        yield warning("clients", text, "raise maxclients, or find out who keeps them (CLIENT LIST)")
    else:
        yield ok("clients", text)


def _of_rights(config: Config, facts: Facts) -> Iterator[Finding]:
    if facts.missing:
        text = f"the user of redis.url may not use {', '.join(facts.missing)}"
        yield problem("rights", text, f"ACL SETUSER ... {rights.rule(config.stream.name)}")
    else:
        yield ok("rights", "every command and key that is needed")


def _of_clocks(facts: Facts) -> Iterator[Finding]:
    text = f"the server's is {abs(facts.skew):.1f} s {'ahead of' if facts.skew > 0 else 'behind'} this host's"
    if abs(facts.skew) > _SKEW:
        advice = "use NTP on both: records of several hosts are hard to compare, and ages in status are wrong"
        yield warning("clocks", text, advice)
    else:
        yield ok("clocks", text)
    if facts.round_trip > _SLOW:
        text = f"a round trip takes {facts.round_trip * 1000:.0f} ms"
        yield warning("network", text, "records arrive that much later; a server near by is better")
    else:
        yield ok("network", f"a round trip takes {facts.round_trip * 1000:.1f} ms")
