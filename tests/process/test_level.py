"""``redislogkit level``: running producers obey, silent ones too, and everything is as before when it is over."""

from __future__ import annotations

import json
import logging

import pytest

from redislogkit import __main__ as command
from tests.helpers.settings import messages, settings, toml
from tests.helpers.waiting import wait_until

#: Prints what each look changes. The child logs nothing that its level would let pass, but asks for looks.
PROGRAM = """
    import json, logging, os, select, sys, time
    import redislogkit
    redislogkit.configure(json.loads(sys.argv[1]))
    log = logging.getLogger("shop")
    log.warning("begins")
    def watch(who):
        level = None
        while True:
            if log.level != level:
                level = log.level
                os.write(1, f"{who} {level}\\n".encode())  # at once, also beside the other
            if who == "busy":
                log.warning("again")
            else:
                log.debug("seen")
                redislogkit.look_at_levels()
            if select.select([sys.stdin], [], [], 0.02)[0]:
                return
    if os.fork():
        watch("busy")
        os.wait()
    else:
        watch("silent")
        os._exit(0)
"""

#: A producer that starts meanwhile.
NEW = """
    import json, logging, sys
    import redislogkit
    redislogkit.configure(json.loads(sys.argv[1]))
    print(logging.getLogger("shop").level)
"""


@pytest.fixture
def tree(state_dir, stream_name, server_url):
    return settings(state_dir, stream_name, server_url, loggers={"root": "INFO", "shop": "WARNING"})


@pytest.fixture
def config(tree, tmp_path):
    path = tmp_path / "log.toml"
    path.write_text(toml(tree), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(("ship", "end"), [("supervisor", ["--reset"]), ("thread", ["DEBUG", "--for", "1s"])])
def test_running_producers_obey_and_have_their_level_back(
    scripts, config, tree, ship, end, capsys, uncovered
):
    """Taken back by hand, or by itself."""
    tree["producer"] = {**tree.get("producer", {}), "ship": ship}
    program = scripts.start(PROGRAM, json.dumps(tree))
    seen: dict[str, list[int]] = {"busy": [], "silent": []}

    def both(*levels: int) -> None:
        while any(found[: len(levels)] != [*levels] for found in seen.values()):
            who, level = program.stdout.readline().split()
            seen[who].append(int(level))

    both(logging.WARNING)
    assert command.main(["level", "shop", "DEBUG", "-c", config]) == 0
    assert "shop is DEBUG for 10m (until " in capsys.readouterr().out
    assert command.main(["level", "-c", config]) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[:2] == ["shop", "DEBUG"]
    both(logging.WARNING, logging.DEBUG)
    if ship == "supervisor":
        assert scripts.run(NEW, json.dumps(tree)).out == "10\n"
    assert command.main(["level", "shop", *end, "-c", config]) == 0
    both(logging.WARNING, logging.DEBUG, logging.WARNING)
    program.communicate("", timeout=10)
    if ship == "supervisor":
        path = f"{tree['state_dir']}/app.log"
        wait_until(lambda: "seen" in messages(path), what="what only DEBUG lets pass")


def test_a_level_is_taken_back(config, capsys):
    assert command.main(["level", "shop", "DEBUG", "-c", config]) == 0
    assert command.main(["level", "shop", "--json", "-c", config]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["shop"]["name"] == "DEBUG"
    assert found["shop"]["left"] == pytest.approx(600, abs=60)
    assert command.main(["level", "shop", "--reset", "-c", config]) == 0
    assert command.main(["level", "shop", "--reset", "-c", config]) == 1
    assert "nothing is in force for shop" in capsys.readouterr().err
    assert command.main(["level", "-c", config]) == 0
    assert "no level is changed" in capsys.readouterr().out


def test_what_keeps_the_records_away_all_the_same_is_named(tree, tmp_path, capsys):
    tree["producer"] = {"level": "INFO"}
    tree["writers"]["app"] = {**tree["writers"]["app"], "loggers": ["other"]}
    tree["writers"]["errors"] = {"type": "file", "path": "errors.log", "level": "ERROR"}
    path = tmp_path / "log.toml"
    path.write_text(toml(tree), encoding="utf-8")
    assert command.main(["level", "shop", "DEBUG", "-c", str(path)]) == 0
    notes = capsys.readouterr().err
    assert "producer.level is INFO" in notes
    assert "writers.app.loggers leaves shop out" in notes
    assert "writers.errors.level is ERROR" in notes
    tree["writers"]["all"] = {"type": "file", "path": "all.log"}
    path.write_text(toml(tree), encoding="utf-8")
    assert command.main(["level", "shop", "DEBUG", "-c", str(path)]) == 0
    assert "of the writers, all will write it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["shop", "DEBUGG"], "did you mean 'DEBUG'?"),
        (["--reset"], "--reset takes the NAME"),
        (["shop", "DEBUG", "--reset"], "--reset takes the NAME"),
        (["", "DEBUG"], "the root logger is root"),
        (["shop", "DEBUG", "--for", "31 days"], "at most 30d, got 31d"),
    ],
)
def test_wrong_usage_is_explained(config, arguments, text, capsys):
    assert command.main(["level", *arguments, "-c", config]) == 2
    assert text in capsys.readouterr().err
