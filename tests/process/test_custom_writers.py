"""Code of the user's, in supervised processes: against a real HTTP server that fails, and through kills."""

from __future__ import annotations

import json
import os
import signal
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.pages import ROOT, blocks
from tests.helpers.supervision import Supervision
from tests.helpers.waiting import wait_until

#: What they go through is covered elsewhere; without it they take two thirds of the time.
pytestmark = pytest.mark.usefixtures("uncovered")


class Collector:
    """A real HTTP server: takes batches of records, each with an id, and fails as it is told to."""

    def __init__(self) -> None:
        self.received: list[dict[str, Any]] = []
        self.posts = 0
        self.status = 200
        self.before_answer = threading.Event()
        self.before_answer.set()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                records = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                collector.posts += 1
                status = collector.status
                if any("poison" in each["message"] for each in records):
                    status = 400
                if status == 200:
                    collector.received += records
                collector.before_answer.wait(20)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def messages(self) -> list[str]:
        return [each["message"] for each in self.received]

    def wait_for(self, message: str) -> None:
        wait_until(lambda: message in self.messages, what=f"{message!r} among {self.messages}")


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    server.start()
    yield server
    server.before_answer.set()
    server.stop()


#: Logs what it reads, line by line, until its stdin ends.
LOGS_ITS_STDIN = """
    import json, logging, sys
    import redislogkit
    handle = redislogkit.configure(json.loads(sys.argv[1]))
    for line in sys.stdin:
        logging.getLogger("shop").warning(line.rstrip(), extra={"password": "hunter2"})
"""


def example() -> str:
    """The module that docs/writers.md shows."""
    return next(text for text in blocks(ROOT / "docs/writers.md", "python") if "def post" in text)


def test_the_example_posts_every_record_through_errors_outages_and_kills(
    state_dir, scripts, collector, server_url, stream_name
):
    folder = Path(state_dir)
    (folder / "shop_hook.py").write_text(example())
    supervision = Supervision(
        state_dir,
        redis={"url": server_url},
        stream={"name": stream_name},
        formatters={"plain": {"redact": ["password"]}},
        writers={
            "hook": {
                "type": "custom",
                "target": "shop_hook:post",
                "options": {"url": f"http://127.0.0.1:{collector.port}/logs"},
                "max_attempts": 3,
            }
        },
    )
    supervisor = supervision.start()  # the module lies beside the configuration
    program = scripts.start(LOGS_ITS_STDIN, supervision.argument)

    def log(*lines: str) -> None:
        program.stdin.write("".join(f"{line}\n" for line in lines))
        program.stdin.flush()

    log("first")
    collector.wait_for("first")
    # 500: the same again, until it is over.
    collector.status, posts = 500, collector.posts
    log("second", "third")
    wait_until(lambda: collector.posts >= posts + 2, what="it tries again")
    collector.status = 200
    collector.wait_for("third")
    # Away: the same.
    collector.stop()
    log("fourth")
    wait_until(lambda: "rejected" not in os.listdir(supervision.stream_dir), what="nothing is rejected")
    collector.start()
    collector.wait_for("fourth")
    # 400 for one record: it alone is rejected.
    log("before", "poison", "after")
    collector.wait_for("after")
    letters = folder / stream_name / "rejected" / "hook.jsonl"
    dead = json.loads(wait_until(lambda: letters.exists() and letters.read_text(), what="a dead letter"))
    assert dead["writer"] == "hook"
    assert "400" in dead["reason"]
    assert dead["record"]["message"] == "poison"
    assert dead["record"]["extra"]["password"] == "***"
    # Killed between the call and the checkpoint: once more, under the same id.
    collector.before_answer.clear()
    log("in doubt")
    collector.wait_for("in doubt")
    os.kill(supervision.child("w-hook"), signal.SIGKILL)
    wait_until(lambda: collector.messages.count("in doubt") == 2, what="it comes again")
    collector.before_answer.set()
    log("last")
    collector.wait_for("last")
    program.stdin.close()
    assert program.wait(20) == 0
    supervisor.send_signal(signal.SIGTERM)
    out, _ = supervisor.communicate(timeout=20)
    assert supervisor.returncode == 0, out
    ids = {each["id"]: each["message"] for each in collector.received}
    assert list(ids.values()) == ["first", "second", "third", "fourth", "before", "after", "in doubt", "last"]


IN_PYTHON = """
    import json, logging, sys
    import redislogkit

    tree, out = json.loads(sys.argv[1]), sys.argv[2]
    logging.basicConfig()

    def keep(records, path):
        logging.getLogger("shop").error("my own words")  # must not come back
        print("printed")
        redislogkit.configure(tree)
        logging.getLogger("shop").error("nor this")
        with open(path, "a") as file:
            file.writelines(f"{record.message} {record.text}\\n" for record in records)

    class Kept:
        def __init__(self, path):
            self.file = open(path, "a")
        def __call__(self, records):
            self.file.writelines(f"{record.id}\\n" for record in records)
            self.file.flush()
        def close(self):
            self.file.write("closed\\n")
            self.file.close()

    secret = "x"
    tree["writers"] |= {
        "function": {"type": "custom", "target": keep, "options": {"path": f"{out}/function"}},
        "class": {"type": "custom", "target": Kept, "options": {"path": f"{out}/class"}},
        "lambda": lambda records: open(f"{out}/lambda", "a").writelines(f"{r.message}\\n" for r in records),
    }
    tree["writers"]["app"]["filter"] = lambda record: secret not in record.extra
    handle = redislogkit.configure(tree)
    for number in range(3):
        logging.getLogger("shop").info("n%d", number, extra={secret: 1} if number == 1 else None)
    print(handle.flush(30))
"""


def test_functions_classes_and_lambdas_of_a_program_run_under_its_supervisor(
    state_dir, scripts, server_url, stream_name
):
    supervision = Supervision(state_dir, redis={"url": server_url}, stream={"name": stream_name})
    for _ in range(2):  # the second program has the same code, and finds the first one's supervisor
        finished = scripts.run(IN_PYTHON, supervision.argument, state_dir)
        assert finished.out == "True\n", supervision.log()
    out = Path(state_dir)
    wait_until(lambda: not supervision.pid, what="the supervisor ends when nobody needs it")
    lines = (out / "function").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["n0", "n1", "n2"] * 2
    assert lines[0].endswith("INFO     shop: n0")
    assert (out / "lambda").read_text().split() == ["n0", "n1", "n2"] * 2
    *ids, closed = (out / "class").read_text().split()
    assert (len(set(ids)), closed) == (6, "closed")
    assert [line[-2:] for line in Path(supervision.path).read_text().splitlines()] == ["n0", "n2"] * 2
    assert "my own words" in supervision.log()
    assert "printed" in supervision.log()


HANGS = """
import os, time

def hang(records, flag):
    while not os.path.exists(flag):
        try:
            time.sleep(60)
        except TimeoutError:
            pass
    with open(flag, "a") as file:
        file.writelines(f"{record.message}\\n" for record in records)
"""


def test_code_that_hangs_and_will_not_be_interrupted_is_killed_and_gets_the_records_again(
    state_dir, scripts, server_url, stream_name
):
    flag = Path(state_dir, "flag")
    Path(state_dir, "hanging.py").write_text(textwrap.dedent(HANGS))
    hook = {"type": "custom", "target": "hanging:hang", "options": {"flag": str(flag)}, "timeout": 0.5}
    supervision = Supervision(
        state_dir,
        redis={"url": server_url},
        stream={"name": stream_name},
        supervisor={"heartbeat_timeout": 2},
        writers={"hook": hook, "missing": {"type": "custom", "target": "no_such_module:x"}},
    )
    program = scripts.start(LOGS_ITS_STDIN, supervision.argument, env={"PYTHONPATH": f"{ROOT}:{state_dir}"})
    program.stdin.write("a\n")
    program.stdin.close()
    wait_until(
        lambda: "writer hook: silent for more than 2.5 s, killed" in supervision.log(), what="it is killed"
    )
    flag.touch()
    wait_until(lambda: flag.read_text() == "a\n", what="the record comes again")
    assert "writers.missing.target must be something that can be loaded here" in supervision.log()
    assert "writer missing: set aside, it can not work as configured" in supervision.log()
