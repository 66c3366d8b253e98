"""The rights that a user of the server needs: exactly the commands that we send, and those of our scripts.

Each is tried on a key of its own beside the stream, which is removed afterwards, so that a stream is not touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from redislogkit.stream.client import StreamClient

#: Command → arguments that follow the probe's key in a harmless call; one it knows of its own stands before.
_OF_HASHES: Final[dict[str, tuple[str, ...]]] = {
    "HSET": ("f", "1"),
    "HSETNX": ("f", "1"),
    "HGET": ("f",),
    "HMGET": ("f",),
    "HGETALL": (),
    "HKEYS": (),
    "HEXISTS": ("f",),
    "HDEL": ("f",),
    "PEXPIREAT": ("1",),
    "EXISTS": (),
    "DEL": (),
}
_OF_STREAMS: Final[dict[str, tuple[str, ...]]] = {
    "XADD": ("*", "f", "1"),
    "XLEN": (),
    "XRANGE": ("-", "+"),
    "XREVRANGE": ("+", "-"),
    "XACK": ("group", "0-1"),
    "XTRIM": ("MINID", "0"),
}
_WITH_KEY_INSIDE: Final[dict[str, tuple[str, ...]]] = {
    "XGROUP CREATE": ("XGROUP", "CREATE", "{key}", "group", "0"),
    "XREADGROUP": ("XREADGROUP", "GROUP", "group", "one", "STREAMS", "{key}", ">"),
    "XREAD": ("XREAD", "COUNT", "1", "STREAMS", "{key}", "0"),
    "XGROUP DESTROY": ("XGROUP", "DESTROY", "{key}", "group"),
}
_WITHOUT_KEY: Final = ("PING", "TIME")
#: What the client library sends when it connects: without the first there is no connection, so no probe is needed.
_CONNECTING: Final = ("CLIENT SETNAME", "SELECT")
_NO_DIGEST: Final = "0" * 40

#: Every command that a user must be allowed.
COMMANDS: Final = (*_WITHOUT_KEY, "EVAL", "EVALSHA", *_OF_HASHES, *_OF_STREAMS, *_WITH_KEY_INSIDE)


def missing(client: StreamClient, stream: str) -> dict[str, str]:
    """Return the commands, or keys, that the user has no right to, with what the server says. Raises ``ServerAwayError``."""
    probe = f"{{{stream}}}:redislogkit:doctor"
    refused = {name: text for name, command in _calls(probe) if (text := client.may(*command))}
    client.may("DEL", probe)
    if "EVAL" not in refused:
        # A script names its keys before it runs: what it may not touch is refused here.
        for key in client.own_keys():
            if text := client.may("EVAL", "return 1", 1, key):
                refused[f"key {key}"] = text
    return refused


def rule(stream: str) -> str:
    """Return the rules of an ``ACL SETUSER`` with the keys and commands that a user needs, and no more."""
    commands = " ".join(f"+{name.lower().replace(' ', '|')}" for name in (*_CONNECTING, *COMMANDS))
    return f"resetkeys ~{stream} ~{{{stream}}}:redislogkit:* {commands}"


def _calls(probe: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield from ((name, (name,)) for name in _WITHOUT_KEY)
    yield "EVAL", ("EVAL", "return 1", "1", probe)
    yield "EVALSHA", ("EVALSHA", _NO_DIGEST, "1", probe)
    for name, arguments in (*_OF_HASHES.items(), *_OF_STREAMS.items()):
        yield name, (name, probe, *arguments)
    for name, command in _WITH_KEY_INSIDE.items():
        yield name, tuple(part.format(key=probe) for part in command)
