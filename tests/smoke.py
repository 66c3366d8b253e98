"""``python -m tests.smoke``: what is published works where nothing else is.

Builds sdist and wheel, looks at what they hold, and installs the wheel (the sdist, for Pythons that it is not for) into a
fresh virtual environment of each Python there is, where a real program runs from end to end. The Pythons are those of ``$PYTHONS`` (paths, separated as in
``$PATH``), else those of pyenv and on the path.
"""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from email.parser import HeaderParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ("3.10", "3.11", "3.12", "3.13")
PROCESSES, RECORDS = 2, 500
CONFIG = f"""
version = 1
state_dir = "state"
[producer]
fast_logger = true
[formatters.plain]
format = "%(processName)s %(message)s"
[writers.app]
type = "file"
path = "app.log"
max_bytes = "8 KiB"
backup_count = {PROCESSES * RECORDS}
"""
PROGRAM = f"""
import logging
import multiprocessing
import redislogkit
from redislogkit.producer import compiled
from redislogkit.spool import _compiled

assert compiled.MODULE is not None
log = logging.getLogger("smoke")


def work(number):
    for n in range({RECORDS}):
        if n % 2:
            log.info("%d/%d", number, n)
        else:
            log.info("%d/%d", number, n, stacklevel=1)  # by the stdlib


if __name__ == "__main__":
    with redislogkit.configure("log.toml") as logs:
        fork = multiprocessing.get_context("fork")
        children = [fork.Process(target=work, args=(number,)) for number in range(1, {PROCESSES})]
        for child in children:
            child.start()
        work(0)
        for child in children:
            child.join()
        assert logs.flush(30)
"""


def main() -> int:
    """Run everything; return the exit code."""
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="rlk-", dir="/tmp"))
    try:
        pythons = find_pythons()
        if missing := [version for version in VERSIONS if version not in pythons]:
            print(f"no Python {', '.join(missing)} here")
        sdist, wheel = build(folder)
        resolve_extras(wheel)
        install_without_compiler(sdist, folder / "python-only")
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = [pool.submit(smoke, *each, sdist, wheel, folder) for each in pythons.items()]
            lines = [result.result() for result in results]
        print(*lines, f"all is well after {time.monotonic() - began:.0f} s", sep="\n")
        return 0
    except AssertionError as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_pythons() -> dict[str, str]:
    """Return a working interpreter for each version that there is."""
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    candidates = os.environ.get("PYTHONS", "").split(os.pathsep) if os.environ.get("PYTHONS") else []
    if not candidates:
        candidates = [sys.executable, *sorted(glob.glob(f"{pyenv}/versions/3.*/bin/python"))]
        candidates += filter(None, (shutil.which(f"python{version}") for version in VERSIONS))
    found: dict[str, str] = {}
    for candidate in candidates:
        done = subprocess.run(
            [candidate, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode == 0 and done.stdout.strip() in VERSIONS:
            found.setdefault(done.stdout.strip(), candidate)
    return dict(sorted(found.items()))


def build(folder: Path) -> tuple[Path, Path]:
    """Build the sdist, and the wheel from it; look at what they hold; return both."""
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder / "dist", ROOT)
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        "CHANGELOG.md",
        "LICENSE",
        "Makefile",
        "README.md",
        "configs/full.toml",
        "docs/index.md",
        "tests/smoke.py",
    }
    assert wanted <= names, f"the sdist has no {wanted - names}"
    assert not any(name.startswith((".git/", ".venv/", "docs/_build/")) for name in names), (
        "the sdist has too much"
    )
    with zipfile.ZipFile(wheel) as files:
        (about,) = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(files.read(about).decode())
        tops = {name.partition("/")[0] for name in files.namelist()}
        assert tops == {"redislogkit", about.partition("/")[0]}, f"the wheel has {tops}"
        assert "redislogkit/py.typed" in files.namelist(), "the wheel has no py.typed"
        assert sum(name.endswith(".so") for name in files.namelist()) == 2, (
            "the wheel has not all that is compiled"
        )
        assert not any(name.endswith((".c", ".h")) for name in files.namelist()), "the wheel has sources of C"
        scripts = {name for name in files.namelist() if name.endswith(".lua")}
        assert scripts == {str(path.relative_to(ROOT)) for path in (ROOT / "redislogkit").rglob("*.lua")}, (
            scripts
        )
    assert metadata["Requires-Python"] == ">=3.10", metadata["Requires-Python"]
    assert metadata["License-Expression"] == "MIT", metadata["License-Expression"]
    return sdist, wheel


def resolve_extras(wheel: Path) -> None:
    """All extras can be installed together."""
    with zipfile.ZipFile(wheel) as files:
        (about,) = [name for name in files.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = HeaderParser().parsestr(files.read(about).decode())
    extras = ",".join(metadata.get_all("Provides-Extra", []))
    run(sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", f"{wheel}[{extras}]")


def install_without_compiler(sdist: Path, target: Path) -> None:
    """Where there is no compiler, it is installed all the same, and does everything in Python."""
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--target", target, sdist, CC="/bin/false")
    assert (target / "redislogkit" / "producer" / "compiled.py").exists()
    assert not list(target.rglob("*.so"))


def smoke(version: str, interpreter: str, sdist: Path, wheel: Path, folder: Path) -> str:
    """Install it for one Python, log with it from several processes, and count; return a line about it."""
    began = time.monotonic()
    place = folder / version
    run(interpreter, "-m", "venv", "--without-pip", place)
    built = wheel if f"cp{version.replace('.', '')}-" in wheel.name else sdist
    python, command = place / "bin" / "python", place / "bin" / "redislogkit"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", f"{built}[server,zstd]")
    (place / "log.toml").write_text(CONFIG)
    (place / "program.py").write_text(PROGRAM)
    run(python, "-W", "error", "program.py", cwd=place)
    lines = [line for path in place.glob("app.log*") for line in path.read_text().splitlines()]
    expected = {f"{number}/{n}" for number in range(PROCESSES) for n in range(RECORDS)}
    found = [line.split()[-1] for line in lines]
    assert len(found) == len(expected) and set(found) == expected, f"{version}: {len(found)} lines"
    assert "[writers.app]" in run(command, "check", "log.toml", cwd=place)
    verified = run(command, "verify", "--config", "log.toml", cwd=place)
    assert f"complete, {len(expected)} records of {PROCESSES} producers" in verified, verified
    shutil.copy(ROOT / "tests" / "programs" / "typed.py", place)
    if version == VERSIONS[-1]:
        run(sys.executable, "-m", "mypy", "--strict", "--python-executable", python, "typed.py", cwd=place)
    return f"Python {version}: {len(found)} records once, checked and verified, after {time.monotonic() - began:.0f} s"


def run(*command: str | Path, cwd: Path | None = None, **more: str) -> str:
    """Run a command to its end; return what it printed. Raises ``AssertionError`` where it fails."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "REDISLOGKIT_CONFIG")
    } | more
    done = subprocess.run(
        command,
        check=False,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
