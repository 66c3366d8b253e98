"""``configure()``: once, twice, with other content, before and after a framework's own set-up."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from redislogkit.__main__ import main as command_line
from tests.helpers.processes import is_running, stop
from tests.helpers.scripts import Finished, Scripts
from tests.helpers.settings import CONFIGURED, arrived, messages, settings, spooled, toml
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]

SUPERVISE = "import sys; from redislogkit.supervise import main\nif __name__ == '__main__': sys.exit(main())"
#: A framework that sets logging up for itself: it removes the root logger's handlers.
FRAMEWORK = """
import logging.config
def framework():
    logging.config.dictConfig({"version": 1, "root": {"level": "WARNING", "handlers": []}, "loggers": {"f": {}},
                               "disable_existing_loggers": False})
"""


@pytest.fixture
def tree(state_dir: str, stream_name: str, server_url: str) -> dict[str, Any]:
    return settings(state_dir, stream_name, server_url)


@pytest.fixture
def lonely(state_dir: str, stream_name: str) -> dict[str, Any]:
    """A configuration that nobody serves."""
    return settings(
        state_dir, stream_name, f"unix://{state_dir}/nobody.sock", supervisor={"autostart": False}
    )


def path(tree: dict[str, Any]) -> str:
    return f"{tree['state_dir']}/app.log"


# -- dictConfig -----------------------------------------------------------------------------------


@pytest.mark.parametrize("given", ["path", "mapping"])
def test_handler_works_from_a_dict_config(run_python: Run, tree: dict[str, Any], tmp_path: Path, given: str):
    file = tmp_path / "log.toml"
    file.write_text(toml(tree))
    done = run_python(
        """
        import json, logging, logging.config, sys
        config = sys.argv[1] if sys.argv[1].endswith("log.toml") else json.loads(sys.argv[1])
        for _ in range(2):
            logging.config.dictConfig({
                "version": 1, "disable_existing_loggers": False,
                "formatters": {"mine": {"format": "<%(message)s>"}},
                "handlers": {
                    "spool": {"class": "redislogkit.SpoolHandler", "config": config, "level": "INFO"},
                    "text": {"class": "redislogkit.SpoolHandler", "config": config, "formatter": "mine"},
                },
                "root": {"level": "DEBUG", "handlers": ["spool"]},
                "loggers": {"t": {"handlers": ["text"], "propagate": False}},
            })
            logging.getLogger("app").debug("no")
            logging.getLogger("app").info("yes")
            logging.getLogger("t").debug("text")
        """,
        str(file) if given == "path" else json.dumps(tree),
    )
    assert (done.out, done.err) == ("", "")
    assert sorted(messages(path(tree))) == ["text", "text", "yes", "yes"]


def test_wrong_configuration_in_a_dict_config_is_an_error_that_says_so(run_python: Run, tree: dict[str, Any]):
    tree["writers"]["app"]["max_bites"] = 1
    done = run_python(
        """
        import json, logging.config, sys
        logging.config.dictConfig({"version": 1, "handlers": {
            "spool": {"class": "redislogkit.SpoolHandler", "config": json.loads(sys.argv[1])}}})
        """,
        json.dumps(tree),
        check=False,
    )
    assert done.code == 1
    assert "ConfigError" in done.err and "max_bytes" in done.err


# -- twice, and with other content ----------------------------------------------------------------


def test_same_content_twice_changes_nothing(run_python: Run, lonely: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
again = redislogkit.configure(json.loads(sys.argv[1]))
assert again is handle
assert logging.getLogger().handlers == [handle.handler]
log.info("once")
""",
        json.dumps(lonely),
    )
    assert (done.out, done.err) == ("", "")
    assert len(spooled(lonely)) == 1


def test_other_content_replaces_the_handler_and_the_supervisor(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
import threading
log.info("first")
other = json.loads(sys.argv[1])
other["writers"]["app"]["path"] += ".other"
stop = threading.Event()
def talk():
    n = 0
    while not stop.is_set():
        log.debug("%d", n)
        n += 1
        stop.wait(0.001)
talker = threading.Thread(target=talk, daemon=True)
talker.start()
second = redislogkit.configure(other)
stop.set()
talker.join()
assert second is not handle
assert logging.getLogger().handlers == [second.handler]
log.info("second")
assert second.flush(10)
print(second.handler.wait_until_written(10))
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("True\n", "")
    old, new = messages(path(tree)), messages(path(tree) + ".other")
    assert old[0] == "first"
    assert new[-1] == "second"
    numbers = [int(text) for text in [*old[1:], *new[:-1]]]
    assert numbers == list(range(len(numbers)))


def test_producer_settings_alone_do_not_need_another_supervisor(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
log.debug("seen")
other = redislogkit.configure(json.loads(sys.argv[1]), producer={"level": "INFO"}, loggers={"app": "DEBUG"})
assert other is not handle
log.debug("not seen")
log.info("seen too")
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("", "")
    assert messages(path(tree)) == ["seen", "seen too"]


def test_wrong_configuration_changes_nothing(run_python: Run, lonely: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
for wrong, error in [({"producer": {"level": "LOUD"}}, redislogkit.ConfigError),
                     ({"state_dir": "/proc/nowhere"}, redislogkit.SpoolError)]:
    try:
        redislogkit.configure(json.loads(sys.argv[1]), **wrong)
    except error as e:
        print(type(e).__name__, "LOUD" in str(e) or "/proc/nowhere" in str(e))
assert logging.getLogger().handlers == [handle.handler]
log.info("on")
redislogkit.flush(0)
""",
        json.dumps(lonely),
    )
    assert (done.out, done.err) == ("ConfigError True\nSpoolError True\n", "")
    assert len(spooled(lonely)) == 1


# -- frameworks -----------------------------------------------------------------------------------


def test_configure_works_before_and_after_a_framework_sets_logging_up(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + FRAMEWORK
        + """
log.info("1")
framework()
assert logging.getLogger().handlers == []
log.info("lost: nobody listens")
assert redislogkit.configure(json.loads(sys.argv[1])) is handle
log.info("2")
framework()
redislogkit.configure(json.loads(sys.argv[1]))
log.info("3")
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("", "")
    assert messages(path(tree)) == ["1", "2", "3"]


def test_with_configure_closes_at_the_end(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        """
        import json, logging, sys, redislogkit
        tree = json.loads(sys.argv[1])
        for n in range(2):
            with redislogkit.configure(tree) as handle:
                logging.getLogger("app").info("inside %d", n)
            print(handle.stats()["spooled"], logging.getLogger().handlers)
        print(redislogkit.flush(), redislogkit.shutdown())
        """,
        json.dumps(tree),
    )
    assert done.out == "0 []\n0 []\nTrue True\n"
    assert messages(path(tree)) == ["inside 0", "inside 1"]


def test_flush_tells_whether_everything_is_written(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
log.info("a")
print(redislogkit.flush(10), open(json.loads(sys.argv[1])["writers"]["app"]["path"]).read().count("\\n"))
print(handle.flush(0))
handle.handler.flush()
print({k: handle.stats()[k] for k in ("emitted", "written", "spooled", "errors")})
""",
        json.dumps(tree),
    )
    assert done.out == "True 1\nTrue\n{'emitted': 1, 'written': 1, 'spooled': 0, 'errors': 0}\n"


# -- two configurations on one stream -------------------------------------------------------------


def test_other_writers_under_a_supervisor_in_use_are_refused_naming_both_sources(
    run_python: Run, scripts: Scripts, tree: dict[str, Any], tmp_path: Path
):
    mine, other = tmp_path / "mine.toml", tmp_path / "other.toml"
    mine.write_text(toml(tree))
    tree["writers"]["app"]["path"] += ".other"
    other.write_text(toml(tree))
    running = scripts.start(
        "import logging, redislogkit, sys\nredislogkit.configure(sys.argv[1])\n"
        "logging.info('mine'); print('up', flush=True); sys.stdin.read()",
        mine,
    )
    assert running.stdout is not None
    assert running.stdout.readline() == "up\n"
    attempt = "import sys, redislogkit\nredislogkit.configure(sys.argv[1])"
    wait_until(lambda: (tmp_path / "x").exists() or messages(tree["state_dir"] + "/app.log") == ["mine"])
    done = run_python(attempt, other, check=False)
    assert done.code == 1
    refusal = done.err.splitlines()[-1]
    assert "LockHeldError" in refusal
    assert str(mine) in refusal and str(other) in refusal and "is supervised by process " in refusal
    run_python(attempt, mine)
    stop(running)
    # Nobody needs the old supervisor any more: it makes way.
    run_python(CONFIGURED + "log.info('other')", json.dumps(tree))
    assert messages(tree["writers"]["app"]["path"]) == ["other"]


#: Logs each line of its stdin, and says when it is written.
ECHO = """
import logging, sys, redislogkit
handle = redislogkit.configure(sys.argv[1])
for line in iter(sys.stdin.readline, ""):
    logging.warning(line.strip())
    print(handle.flush(10), flush=True)
"""


def echo(process: subprocess.Popen[str], line: str) -> None:
    """Have a program that runs `ECHO` log a line."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "True\n"


def test_programs_that_are_started_anew_one_by_one_take_the_changed_file_with_them(
    run_python: Run, scripts: Scripts, tree: dict[str, Any], tmp_path: Path
):
    file, second = tmp_path / "log.toml", f"{tree['state_dir']}/second.log"
    file.write_text(toml(tree))
    old = scripts.start(ECHO, file)
    echo(old, "before")
    tree["writers"]["second"] = {"type": "file", "path": second, "formatter": "json"}
    file.write_text(toml(tree))
    new = scripts.start(ECHO, file)
    echo(new, "new")
    echo(old, "old")
    assert arrived(second, "new", "old") and arrived(path(tree), "before", "new", "old")
    # One that still has the old content, and has to start a supervisor, starts it with what the file says.
    stop(new)
    lock = Path(tree["state_dir"], tree["stream"]["name"], "supervisor.lock")
    first = json.loads(lock.read_text())["pid"]
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_running(first))
    echo(old, "later")
    assert json.loads(lock.read_text())["pid"] != first
    arrived(second, "later")
    # What it can not take it says.
    file.write_text(toml({**tree, "supervisor": {"autostart": False}, "redis": {"url": "redis://elsewhere"}}))
    attempt = "import sys, redislogkit\nredislogkit.configure(sys.argv[1])"
    assert "does not take it: supervisor.autostart is false now" in run_python(attempt, file, check=False).err
    file.write_text(toml({**tree, "redis": {"url": "embedded://"}}))
    assert "redis.url can not be changed while" in run_python(attempt, file, check=False).err
    file.write_text(toml(tree))
    # Not taken is also a file that somebody has given other values than it says.
    other = attempt.replace("[1]", "[1], **{'writers.second': None}")
    told = "Redis, stream and writers must be the same in both. It makes way when all programs"
    assert told in run_python(other, file, check=False).err


def test_a_supervisor_whose_program_has_added_to_the_file_keeps_what_it_has(
    run_python: Run, scripts: Scripts, tree: dict[str, Any], tmp_path: Path, capsys
):
    file = tmp_path / "log.toml"
    file.write_text(toml(tree))
    added = ECHO.replace("argv[1]", "argv[1], **{'writers.app.level': 'WARNING'}")
    echo(scripts.start(added, file), "mine")
    done = run_python("import sys, redislogkit\nredislogkit.configure(sys.argv[1])", file, check=False)
    assert "an older content of it, or with other values from its program" in done.err
    assert command_line(["reload", str(file)]) == 1
    assert "values that are in no file" in capsys.readouterr().err


def test_supervisor_in_the_foreground_never_makes_way(
    run_python: Run, scripts: Scripts, tree: dict[str, Any], tmp_path: Path
):
    file = tmp_path / "log.toml"
    file.write_text(toml(tree))
    supervisor = scripts.start(SUPERVISE, file)
    bell = f"{tree['state_dir']}/{tree['stream']['name']}/doorbell"
    wait_until(lambda: os.path.exists(bell))
    tree["writers"]["app"]["level"] = "ERROR"
    done = run_python(CONFIGURED, json.dumps(tree), check=False)
    assert "LockHeldError" in done.err and str(file) in done.err and "a mapping" in done.err
    right = file.read_text()
    file.write_text(toml(tree))
    done = run_python("import sys, redislogkit\nredislogkit.configure(sys.argv[1])", file, check=False)
    assert f"Have it taken: redislogkit reload {file}" in done.err
    file.write_text(right)
    assert supervisor.poll() is None
    tree["writers"]["app"].pop("level")
    tree["producer"]["flush_interval"] = 0.5
    run_python(CONFIGURED + "log.info('same writers')", json.dumps(tree))
    assert messages(path(tree)) == ["same writers"]


def test_two_configurations_that_come_at_the_same_time_never_share_a_supervisor(
    scripts: Scripts, tree: dict[str, Any]
):
    """One of them is refused, or comes after the other."""
    source = (
        "import time\n"
        + CONFIGURED.replace("handle =", "while time.time() < float(sys.argv[2]): pass\nhandle =")
        + "log.info(sys.argv[3]); print('in', flush=True); handle.flush(10); sys.stdin.read()"
    )
    import time

    start = time.time() + 0.4
    running: list[subprocess.Popen[str]] = []
    for name in ("a", "b"):
        tree["writers"]["app"]["path"] = f"{tree['state_dir']}/{name}.log"
        running.append(scripts.start(source, json.dumps(tree), start, name))
    answers = []
    for process in running:
        assert process.stdout is not None
        answers.append(process.stdout.readline())
    assert "in\n" in answers
    for name, answer in zip("ab", answers, strict=True):
        if answer:
            assert arrived(f"{tree['state_dir']}/{name}.log", name) == [name]
        else:
            assert messages(f"{tree['state_dir']}/{name}.log") == []
