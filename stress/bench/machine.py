"""What it was measured on, in words."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess

from redislogkit.errors import EmbeddedServerError
from redislogkit.stream.server_binary import find_server
from stress.bench.contenders import entry

_PACKAGES = ("redislogkit", "redis", "hiredis", "msgspec", "backports.zstd")


def describe() -> dict[str, str]:
    """Return name → value, in the order in which they are shown."""
    found = {
        "CPU": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "server": _server(),
        "load at the begin": f"{os.getloadavg()[0]:.1f}",
    }
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found | entry.versions()


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        match = re.search(r"^model name\s*: (.+)$", file.read(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _server() -> str:
    try:
        answer = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=False)
    except EmbeddedServerError:
        return "none"
    match = re.match(r"(\w+) server v=(\S+)", answer.stdout)
    return f"{match[1]} {match[2]}" if match else answer.stdout.strip()
