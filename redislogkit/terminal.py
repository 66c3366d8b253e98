"""Which terminal this process has. Imports nothing but ``os``, looks at descriptors only, never raises."""

from __future__ import annotations

import os
from typing import Final

_STDOUT: Final = 1
_STDERR: Final = 2

_ALIAS: Final = "/dev/tty"
#: Device of that path, which is another terminal for every process that opens it.
ALIAS_DEVICE: Final = os.makedev(5, 0)
_PTY_MAJORS: Final = range(136, 144)
_CONSOLE_MAJOR: Final = 4


def find_terminal() -> tuple[str, int]:
    """Return path and device number (``st_rdev``) of the terminal of stdout, else of stderr, else ``("", 0)``.

    It asks the descriptors 1 and 2; what became of ``sys.stdout`` does not matter.
    """
    for descriptor in (_STDOUT, _STDERR):
        try:
            path = os.ttyname(descriptor)
            device = os.fstat(descriptor).st_rdev
            if path == _ALIAS or device == ALIAS_DEVICE:
                path, device = _controlling_terminal()
            return path, device
        except (OSError, ValueError):  # closed, a file, a pipe, or a terminal of another mount namespace
            continue
    return "", 0


def _controlling_terminal() -> tuple[str, int]:
    """Return the terminal that ``/dev/tty`` stands for in this process. Raises ``OSError``, ``ValueError``."""
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    device = _decode_device(int(fields[4]))
    path = _path_of(device)
    if os.stat(path).st_rdev != device:
        raise ValueError(f"{path} is not the controlling terminal")
    return path, device


def _decode_device(number: int) -> int:
    # The kernel's encoding in /proc: 8 low bits of the minor number, 12 of the major, the rest of the minor.
    return os.makedev((number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00))


def _path_of(device: int) -> str:
    major, minor = os.major(device), os.minor(device)
    if major in _PTY_MAJORS:
        return f"/dev/pts/{(major - _PTY_MAJORS[0]) * 256 + minor}"
    if major == _CONSOLE_MAJOR and minor < 64:
        return f"/dev/tty{minor}"
    raise ValueError(f"no path is known for the terminal {major}:{minor}")
