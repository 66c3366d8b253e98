"""What systemd wants to hear of a service of ``Type=notify``: datagrams to the socket that ``$NOTIFY_SOCKET`` names.

Without that variable everything here does nothing. Nothing is ever waited for. Where the socket is full (systemd takes a
moment), the steps are kept and sent later, in their order; the rest is said anew anyway.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import MutableMapping
from typing import Final

_SOCKET: Final = "NOTIFY_SOCKET"
_WATCHDOG: Final = "WATCHDOG_USEC"
_WATCHDOG_PID: Final = "WATCHDOG_PID"


class Notifier:
    """Tells the service manager what the supervisor is at.

    The variables are taken out of ``environ``: the embedded server knows them, too, and is not who is waited for.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        address = environ.pop(_SOCKET, "")
        period = environ.pop(_WATCHDOG, "")
        pid = environ.pop(_WATCHDOG_PID, "")
        # A name in the abstract namespace is written with an @.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) if self._address else None
        if self._socket is not None:
            self._socket.setblocking(False)
        watched = period.isdigit() and pid in ("", str(os.getpid()))
        self._period = int(period) / 2_000_000 if watched and self._socket else 0.0
        self._next_sign = 0.0
        self._ready = self._reloading = self._stopping = False
        self._status = ""
        self._steps: list[bytes] = []  # that could not be sent yet

    @property
    def active(self) -> bool:
        """True when somebody wants to hear anything."""
        return self._socket is not None

    def ready(self) -> None:
        """The service does its work, for the first time or again after a `reloading`."""
        if not self._stopping and (self._reloading or not self._ready):
            self._ready, self._reloading = True, False
            self._step("READY=1")

    def reloading(self) -> None:
        """The configuration is being loaded again."""
        self._reloading = True
        self._step(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service has begun to end."""
        if not self._stopping:
            self._stopping = True
            self._step("STOPPING=1")

    def status(self, text: str) -> None:
        """What ``systemctl status`` shows; sent when it has changed."""
        if text != self._status and self._send(f"STATUS={text}".encode()):
            self._status = text

    def sign_of_life(self) -> float:
        """Satisfy the watchdog, twice in each of its periods; return the seconds until the next time."""
        self._catch_up()
        if not self._period:
            return float("inf")
        now = time.monotonic()
        if now >= self._next_sign:
            self._next_sign = now + self._period
            self._send(b"WATCHDOG=1")
        return self._next_sign - now

    def _step(self, text: str) -> None:
        if self._socket is not None:
            self._steps.append(text.encode())
            self._catch_up()

    def _catch_up(self) -> None:
        while self._steps and self._send(self._steps[0]):
            del self._steps[0]

    def _send(self, message: bytes) -> bool:
        """Send a datagram; False when there is no room for it now."""
        if self._socket is None:
            return False
        try:
            self._socket.sendto(message, self._address)
        except BlockingIOError:
            return False
        except OSError:  # nobody listens any more
            pass
        return True

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
