"""``redislogkit web``: the page in the browser."""

from __future__ import annotations

import argparse
import socket
import sys
from typing import TYPE_CHECKING, Any, Final

from redislogkit.commands import common

if TYPE_CHECKING:
    from redislogkit.commands.common import Commands
    from redislogkit.config import Config
    from redislogkit.redaction import Redactor

NAME: Final = "web"

_LISTEN: Final = "127.0.0.1:8425"
_KEEP: Final = 200_000
_MISSING: Final = "redislogkit web needs starlette and uvicorn; pip install 'redislogkit[web]'"


def add(commands: Commands) -> None:
    """Add the parser."""
    parser = common.add_parser(
        commands,
        NAME,
        "show the records live in the browser, with history, producers, writers and lag",
        examples="""
            redislogkit web
            redislogkit web log.toml --listen 127.0.0.1:9000
            redislogkit web --url redis://logs.example.com:6379/0 --stream shop
            redislogkit web --listen 0.0.0.0:8425 --host-name logs.example.org
        """,
        exit_codes="0 or 130 ended; 2 wrong usage or configuration, or it can not listen there",
        about="Show the records of the stream live in the browser. It only reads, and holds nobody up. Beyond this "
        "host (another --listen than a loopback address) the page asks for a token, which stands in the link.",
    )
    common.add_config(parser)
    common.add_url(parser)
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=_LISTEN,
        help="where (default: %(default)s; port 0: a free one)",
    )
    parser.add_argument("--token", action="store_true", help="ask for a token on a loopback address, too")
    parser.add_argument(
        "--host-name",
        metavar="NAME",
        action="append",
        default=[],
        help="a name by which browsers call this host, beside its own and its addresses; may be given several times",
    )
    parser.add_argument(
        "--keep",
        type=_keep,
        default=_KEEP,
        metavar="N",
        help="records to keep in memory for history and search (default: %(default)s)",
    )


def _keep(text: str) -> int:
    number = int(text)
    if not 1_000 <= number <= 10_000_000:
        raise argparse.ArgumentTypeError(f"must be from 1000 to 10000000, got {text}")
    return number


def run(options: argparse.Namespace) -> int:
    """Serve until a signal."""
    import secrets

    from redislogkit.config_values import LISTEN, RefusedError, split_listen

    try:
        host, port = split_listen(LISTEN.parse(options.listen))
    except RefusedError as error:
        print(f"--listen {error.rule}, got {options.listen!r}", file=sys.stderr)
        return common.EXIT_USAGE
    config = common.config_or_url(options)
    try:
        import starlette
        import uvicorn

        del starlette
    except ImportError:
        print(_MISSING, file=sys.stderr)
        return common.EXIT_USAGE
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.create_server(address[:2], family=family)
    except OSError as error:
        why = str(error.strerror).partition(" (while")[0]  # the address again
        print(
            f"--listen must be an address where this host can listen, got {options.listen}: {why}",
            file=sys.stderr,
        )
        return common.EXIT_USAGE
    token = secrets.token_urlsafe(24) if options.token or not _is_loopback(listener) else ""
    with listener:
        print(f"the page is at {_link(host, listener, token)} (Ctrl-C ends it)", flush=True)
        return _serve(config, options, listener, token, uvicorn)


def _serve(
    config: Config, options: argparse.Namespace, listener: socket.socket, token: str, uvicorn: Any
) -> int:
    from redislogkit import control, identity
    from redislogkit.stream import address
    from redislogkit.stream.client import StreamClient
    from redislogkit.view.follow import Follower
    from redislogkit.web import app
    from redislogkit.web.archives import Archives
    from redislogkit.web.feed import Feed
    from redislogkit.web.state import State

    def connect() -> StreamClient:
        return StreamClient(address.resolve(config), config.stream.name)

    state = State(config, connect, control.ask)
    redactor = _redactor(config)
    feed = Feed(lambda report: Follower(connect, report), options.keep, redactor)
    about = {
        "host": identity.host_name(),
        "stream": config.stream.name,
        "version": sys.modules["redislogkit"].__version__,
    }
    made = app.application(
        feed,
        state,
        about,
        Archives(config, connect, redactor),
        hosts=[socket.gethostname(), socket.getfqdn(), *options.host_name],
        token=token,
        closing=lambda: server.should_exit,
    )
    server: Any = uvicorn.Server(
        uvicorn.Config(
            made, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3
        )
    )
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        pass
    finally:
        state.close()
    return common.EXIT_OK if server.started else common.EXIT_USAGE


def _redactor(config: Config) -> Redactor | None:
    """Return what takes out all that any writer takes out: the page has more readers than their files."""
    from redislogkit.redaction import Redactor

    used = [writer.formatter for writer in config.writers.values() if writer.formatter.redact]
    rules = list(dict.fromkeys(rule for one in used for rule in one.redact))
    return Redactor(rules, used[0].redact_with) if used else None


def _is_loopback(listener: socket.socket) -> bool:
    import ipaddress

    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def _link(host: str, listener: socket.socket, token: str) -> str:
    """Return what to open: the address, and this host's name where it listens at all of them."""
    address, port = listener.getsockname()[:2]
    anywhere = address in ("0.0.0.0", "::")  # noqa: S104 - the user's own choice
    shown = socket.gethostname() if anywhere else host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{port}/" + (f"?token={token}" if token else "")
