"""Runs the examples of a page, one after the other, in a folder of its own, as a reader would."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from redislogkit.stream.server_binary import find_server
from tests.helpers import processes, settings
from tests.helpers.pages import Block, Command, Configurations, commands, is_shown, read
from tests.helpers.scripts import Finished
from tests.helpers.waiting import wait_until

#: Commands that only look: they are repeated until they print what the page shows.
_LOOKS = ("cat ", "diff ", "grep ", "head ", "ls", "sort ", "tail ", "wc ", "zcat ", "redislogkit cat ")
#: Where an example may do what it likes, below the folder of the page.
_PLACES = re.compile(r"(?<![\w./-])/(?=(?:etc|opt|srv|var/(?:lib|log|run))/)")
_SECONDS = 60


class PageRun:
    """A page in the making: its files, what runs in the background, what was printed last.

    Args:
        page: The page.
        folder: Where its files are and its commands run.
        home: Short path of a home folder, for ``state_dir``.

    A server answers where the page has one on port 6379; its other port, 8000, is any free one.
    """

    def __init__(self, page: Path, folder: Path, home: str) -> None:
        self.page = page
        self.folder = folder
        self._configurations = Configurations()
        self._environment = {
            **os.environ,
            "HOME": home,
            "PATH": f"{os.path.dirname(sys.executable)}{os.pathsep}{os.environ['PATH']}",
            "REDIS_PASSWORD": "",
        }
        self._home = home
        self._ports: dict[str, int] = {}
        self._server: subprocess.Popen[bytes] | None = None
        self._background: list[tuple[str, subprocess.Popen[bytes], Path]] = []
        self._last: Finished | None = None
        self._program = ""

    def run(self) -> None:
        """Run everything that is to be run."""
        try:
            for block in read(self.page):
                if block.runs:
                    self._run(block)
        finally:
            self.close()

    def close(self) -> None:
        """Stop what runs in the background. Raises ``AssertionError`` where one has ended with an error."""
        ends = [
            (line, processes.stop(process), output) for line, process, output in reversed(self._background)
        ]
        self._background.clear()
        if self._server is not None:
            processes.stop(self._server)
        for line, code, output in ends:
            assert code in (0, -15, 143), f"{line}: ended with {code}\n{output.read_text()}"

    def _run(self, block: Block) -> None:
        if block.language == "toml":
            self._write_configuration(block)
        elif block.language == "python":
            self._run_program(block)
        elif block.language == "console":
            for command in commands(self._adapted(block.text)):
                self._run_command(block, command)
        elif "file" in block.marks:
            self._write(block.marks["file"], self._adapted(block.text))
        elif "prints" in block.marks:
            assert self._last is not None, f"{block}: nothing was run before"
            self._compare(block, block.text, self._last.out)

    # -- files ----------------------------------------------------------------------------------

    def _write_configuration(self, block: Block) -> None:
        text = self._adapted(block.text)
        tree = self._configurations.complete(text)
        self._write(block.marks.get("file", "log.toml"), text if tree is None else settings.toml(tree))

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    def _adapted(self, text: str) -> str:
        """Replace what can not be as it is: folders of the system, well-known ports."""
        for folder in ("etc", "var/lib", "var/log", "var/run") if _PLACES.search(text) else ():
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        text = _PLACES.sub(f"{self.folder}/", text)
        for number in ("6379", "8000"):
            if re.search(rf"\b{number}\b", text):
                text = re.sub(rf"\b{number}\b", str(self._port(number)), text)
        return text

    def _port(self, number: str) -> int:
        """Return the port that stands for one of a page."""
        if number not in self._ports:
            port = self._ports[number] = free_port()
            if number == "6379":
                self._server = subprocess.Popen(
                    [
                        find_server(),
                        "--port",
                        str(port),
                        "--bind",
                        "127.0.0.1",
                        "--save",
                        "",
                        "--dir",
                        self._home,
                    ],
                    stdout=subprocess.DEVNULL,
                )
                wait_until(lambda: _listens(port), what="the server listens")
        return self._ports[number]

    # -- programs -------------------------------------------------------------------------------

    def _run_program(self, block: Block) -> None:
        text = self._adapted(block.text)
        self._program = self._program + "\n\n" + text if "continues" in block.marks else text
        path = self._write(block.marks.get("file", f"example{block.line}.py"), self._program)
        if "file" in block.marks:
            return
        self._last = self._execute([sys.executable, str(path)], block)
        assert self._last.err == "", f"{block}: {self._last.err}"

    def _run_command(self, block: Block, command: Command) -> None:
        if command.line.endswith(" &"):
            self._start(command.line[:-2])
            return

        any_order = "any order" in block.marks
        code = int(block.marks.get("ends with", 0))
        looks = bool(command.shown) and command.line.startswith(_LOOKS)

        def is_as_shown() -> bool:
            self._last = self._execute(["bash", "-c", command.line], block, code=None if looks else code)
            return is_shown(command.shown, self._last.out + self._last.err, any_order=any_order)

        if looks:
            with suppress(AssertionError):  # what differs is said below
                wait_until(is_as_shown)
        else:
            is_as_shown()
        assert self._last is not None
        self._compare(block, command.shown, self._last.out + self._last.err, any_order=any_order)

    def _execute(self, command: list[str], block: Block, *, code: int | None = 0) -> Finished:
        done = subprocess.run(
            command,
            check=False,
            cwd=self.folder,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        assert code in (None, done.returncode), (
            f"{block}: {command[-1]}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def _start(self, line: str) -> None:
        """Start a command in the background; where it names our port, wait until somebody listens there."""
        output = self.folder / f"output{len(self._background)}"
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=self.folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
            )
        self._background.append((line, process, output))
        port = self._ports.get("8000", 0)
        if str(port) in line:
            wait_until(lambda: process.poll() is not None or _listens(port), what=f"{line} listens on {port}")
        assert process.poll() is None, f"{line} has ended: {output.read_text()}"

    def _compare(self, block: Block, shown: str, printed: str, *, any_order: bool = False) -> None:
        assert not shown or is_shown(shown, printed, any_order=any_order), (
            f"{block} shows\n{shown}\nbut this was printed:\n{printed}\n{''.join(self._outputs())}"
        )

    def _outputs(self) -> Iterator[str]:
        return (f"-- {line}\n{output.read_text()}" for line, _, output in self._background)


def free_port() -> int:
    """A port of this host that nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False
