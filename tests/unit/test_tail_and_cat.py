"""``tail`` and ``cat`` on the command line: options, what is said, exit codes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from redislogkit import __main__
from redislogkit.stream import client
from redislogkit.view import show
from tests.helpers.desk import START, Desk
from tests.helpers.filewriter import memory_folder
from tests.helpers.looking import LookedAt
from tests.helpers.settings import toml


class Session:
    """A desk whose server the commands reach."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.urls: list[tuple[str, str]] = []

    def desk(self, **settings: object) -> Desk:
        made = Desk(self.folder, **settings)
        self.write(made)
        self.reach(made.server)
        return made

    def write(self, desk: Desk) -> None:
        (self.folder / "log.toml").write_text(toml(desk.tree))
        self.monkeypatch.setenv("REDISLOGKIT_CONFIG", str(self.folder / "log.toml"))

    def reach(self, server: LookedAt) -> None:
        def connect(url: str, stream: str) -> LookedAt:
            self.urls.append((url, stream))
            return server.connect()

        self.monkeypatch.setattr(client, "StreamClient", connect)


@pytest.fixture
def session(monkeypatch) -> Iterator[Session]:
    with memory_folder() as folder:
        yield Session(folder, monkeypatch)


def run(*arguments: object) -> int:
    return __main__.main([str(argument) for argument in arguments])


def shown(capsys) -> list[str]:
    return [line.partition("app: ")[2] for line in capsys.readouterr().out.splitlines()]


# --- tail --------------------------------------------------------------------------------------------------


def test_tail_shows_the_last_ten_and_ends(session, capsys):
    session.desk().ship(*(f"m{n}" for n in range(20)))
    assert run("tail") == 0
    assert shown(capsys) == [f"m{n}" for n in range(10, 20)]
    assert run("tail", "-n", 2) == 0
    assert shown(capsys) == ["m18", "m19"]
    assert run("tail", "-n", "all", "--grep", "[05]$") == 0
    assert shown(capsys) == ["m0", "m5", "m10", "m15"]
    assert run("tail", "--since", f"@{START + 18}") == 0
    assert shown(capsys) == ["m17", "m18", "m19"]


def test_tail_needs_no_configuration(session, capsys):
    session.desk().ship("m1")
    session.monkeypatch.chdir(session.folder / "logs")
    session.monkeypatch.delenv("REDISLOGKIT_CONFIG")
    assert run("tail", "--url", "redis://elsewhere:6379/1", "--stream", "shop") == 0
    assert session.urls[-1] == ("redis://elsewhere:6379/1", "shop")
    assert shown(capsys) == ["m1"]
    assert run("tail") == 2
    assert "--url redis://host:6379/0" in capsys.readouterr().err


def test_tail_as_json_and_with_a_formatter_of_the_configuration(session, capsys):
    desk = session.desk()
    desk.tree["formatters"] = {"short": {"format": "%(levelname)s|%(message)s"}}
    session.write(desk)
    desk.ship("m1")
    assert run("tail", "-o", "json") == 0
    assert json.loads(capsys.readouterr().out)["message"] == "m1"
    assert run("tail", "--formatter", "short") == 0
    assert capsys.readouterr().out == "INFO|m1\n"
    assert run("tail", "--formatter", "shrot") == 2
    assert "did you mean 'short'?" in capsys.readouterr().err
    assert run("tail", "--formatter", "short", "-o", "json") == 2


def test_tail_takes_out_what_the_writers_take_out(session, capsys):
    desk = session.desk()
    desk.tree["formatters"] = {
        "short": {"format": "%(message)s", "redact": ["password"]},
        "objects": {"type": "json", "redact": ["password"]},
    }
    desk.ship("password=secret")
    for name in ("short", "objects"):
        desk.tree["writers"]["app"]["formatter"] = name
        session.write(desk)
        for output in ("text", "json"):
            assert run("tail", "-o", output) == 0
            out = capsys.readouterr().out
            assert "secret" not in out
            assert "password" in out


def test_nothing_reaches_a_terminal_that_it_would_obey(session, capsys):
    session.desk().ship("\x1b[2Jgone\u202e\x9b", exc_text="\x07")
    assert run("tail") == 0
    assert capsys.readouterr().out.endswith("\\x1b[2Jgone\\u202e\\u009b\n\\x07\n")


def test_colours_only_where_they_are_wanted(session, capsys):
    session.desk().ship("m1")
    run("tail")
    assert "\x1b" not in capsys.readouterr().out
    run("tail", "--color", "always")
    assert "\x1b[32mINFO\x1b[0m" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("color", "environ", "is_terminal", "coloured"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {}, True, False),
    ],
)
def test_the_flag_comes_before_the_environment_and_that_before_the_terminal(
    color, environ, is_terminal, coloured
):
    assert show.coloured(color, environ, is_terminal=is_terminal) is coloured


def test_problems_of_options_name_them_and_a_server_that_is_away_says_what_to_do(session, capsys):
    desk = session.desk()
    assert run("tail", "--level", "LOUD", "--since", "soon") == 2
    told = capsys.readouterr().err
    assert "--level must be" in told
    assert "--since must be a moment" in told
    with pytest.raises(SystemExit) as raised:
        run("tail", "-n", "-3")
    assert raised.value.code == 2
    desk.server.away = True
    assert run("tail") == 2
    told = capsys.readouterr().err
    assert "no answer from redis://nowhere (connection refused)" in told
    desk.tree["redis"]["url"] = "embedded://"
    session.write(desk)
    assert run("tail") == 2
    assert "the embedded server" in capsys.readouterr().err


def test_where_nothing_is_in_the_stream_the_way_to_the_files_is_told(session, capsys):
    session.desk()
    assert run("tail") == 0
    assert "redislogkit cat" in capsys.readouterr().err


def test_where_more_is_asked_for_than_the_stream_has_it_says_how_far_that_goes_back(session, capsys):
    desk = session.desk()
    for number in range(10):
        desk.ship(f"m{number}")
    asked = (["-n", 8], ["-n", "all"], ["--since", f"@{START}"], ["--grep", "m9"])
    for arguments in asked:
        assert run("tail", *arguments) == 0
        assert capsys.readouterr().err == ""
    del desk.server.entries[:4]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(START + 5))
    for arguments in asked:
        assert run("tail", *arguments) == 0
        assert capsys.readouterr().err == (
            f"tail: the stream goes back to {since}; what is older is in the log files: redislogkit cat\n"
        )
    for arguments in (["-n", 6], ["--since", f"@{START + 6}"]):
        assert run("tail", *arguments) == 0
        assert capsys.readouterr().err == ""
    assert run("tail", "-f", "-n", 8, "--until", "2026-11-23T00:00:00Z") == 0
    assert capsys.readouterr().err.count("goes back") == 1


def test_following_goes_on_until_the_time_is_over_also_when_the_server_comes_later(session, capsys):
    desk = session.desk()
    desk.server.away = True
    commands = 0

    def meanwhile() -> None:
        nonlocal commands
        commands += 1
        if commands == 2:
            desk.server.away = False
            desk.ship("m1")
        if commands == 5:
            desk.ship("m2")

    desk.server.meanwhile = meanwhile
    assert run("tail", "-f", "--until", "2026-11-23T00:00:00Z") == 0  # that is over
    told = capsys.readouterr()
    assert [line[-2:] for line in told.out.splitlines()] == ["m1", "m2"]
    assert "the server is away, waiting for it" in told.err
    assert told.err.count("\n") == 2


# --- cat ---------------------------------------------------------------------------------------------------


def test_cat_shows_files_and_stream_as_the_file_has_them(session, capsys):
    desk = session.desk()
    desk.log("m1", exc_text="Traceback (most recent call last):\nKeyError: 1")
    desk.ship("m2")
    assert run("cat") == 0
    out = capsys.readouterr().out
    desk.write()
    assert out == desk.path.read_text()


def test_cat_filters_the_last_ones_and_colours_them(session, capsys):
    desk = session.desk()
    desk.log(*(f"m{n}" for n in range(20)))
    assert run("cat", "-n", 3, "--grep", "m1", "--color", "always") == 0
    out = capsys.readouterr().out
    assert [line[-3:] for line in out.splitlines()] == ["m17", "m18", "m19"]
    assert "\x1b[32mINFO\x1b[0m" in out
    assert run("cat", "-n", 0) == 0
    assert capsys.readouterr().out == ""


def test_cat_as_json_has_what_the_lines_show(session, capsys):
    desk = session.desk()
    desk.path.write_text("by hand\n")
    desk.log("m1")
    desk.ship("m2")
    assert run("cat", "-o", "json") == 0
    by_hand, from_file, from_stream = map(json.loads, capsys.readouterr().out.splitlines())
    assert by_hand == {"message": "by hand"}
    assert from_file == {
        "timestamp": "2026-11-22T18:00:01.000000+00:00", "level": "INFO", "logger": "app", "message": "m1",
    }  # fmt: skip
    assert from_stream["message"] == "m2"
    assert from_stream["process"] == 4711


def test_cat_of_json_lines(session, capsys):
    desk = session.desk(formatter="json")
    desk.log("m1", extra={"request_id": 7})
    desk.ship("m2", extra={"request_id": 8})
    assert run("cat", "-o", "json", "--field", "request_id=7") == 0
    assert capsys.readouterr().out == desk.path.read_text()
    assert run("cat", "--formatter", "plain") == 0
    assert [line[-6:] for line in capsys.readouterr().out.splitlines()] == ["pp: m1", "pp: m2"]


def test_what_a_format_does_not_show_can_not_be_asked_for(session, capsys):
    desk = session.desk()
    desk.tree["formatters"] = {"threads": {"format": "%(threadName)s %(message)s"}}
    session.write(desk)
    desk.log("m1")
    assert run("cat", "--field", "request_id=7", "--level", "INFO") == 2
    assert (
        "--field request_id asks for request_id, which the format of writer 'app' does not show"
        in capsys.readouterr().err
    )
    assert run("cat", "--formatter", "threads") == 2
    assert "--formatter needs threadName" in capsys.readouterr().err


def test_lines_that_nobody_can_judge_are_counted(session, capsys):
    desk = session.desk()
    desk.path.write_text("by hand\n")
    desk.log("m1")
    assert run("cat", "--level", "INFO") == 0
    told = capsys.readouterr()
    assert told.out.count("\n") == 1
    assert "1 text in the files of writer 'app' did not look like its format" in told.err


def test_several_writers_are_chosen_by_name_and_shown_in_the_order_of_their_times(session, capsys):
    desk = session.desk()
    other = session.folder / "other.log"
    desk.tree["writers"]["other"] = {"type": "file", "path": str(other)}
    desk.tree["writers"]["bare"] = {"type": "file", "path": str(other) + ".2", "formatter": "bare"}
    desk.tree["formatters"] = {"bare": {"format": "%(message)s"}}
    session.write(desk)
    desk.log("m1", "m2", "m3")
    del desk.server.entries[:]
    _, second, third = desk.path.read_text().splitlines()
    other.write_text(f"{second.replace('m2', 'o2')}\n{third.replace('m3', 'o3')}\n")
    assert run("cat") == 2
    assert "several writers of files: app, other, bare" in capsys.readouterr().err
    assert run("cat", "-w", "app", "-w", "other") == 0
    assert shown(capsys) == ["m1", "m2", "o2", "m3", "o3"]
    assert run("cat", "-w", "app", "-w", "other", "-n", 2) == 0
    assert shown(capsys) == ["m3", "o3"]
    assert run("cat", "-w", "app", "-w", "bare") == 2
    assert "shows no times" in capsys.readouterr().err
    assert run("cat", "-w", "othr") == 2
    assert "did you mean 'other'?" in capsys.readouterr().err


def test_without_a_writer_of_files_the_way_to_tail_is_told(session, capsys):
    desk = session.desk()
    desk.tree["writers"] = {"console": {"type": "tty"}}
    session.write(desk)
    assert run("cat") == 2
    assert "redislogkit tail" in capsys.readouterr().err


def test_a_server_that_is_away_makes_the_exit_code_1_unless_it_is_embedded_and_nothing_waits(session, capsys):
    desk = session.desk()
    desk.log("m1")
    desk.server.away = True
    assert run("cat") == 1
    told = capsys.readouterr()
    assert told.out.endswith("m1\n")
    assert "no answer from redis://nowhere: what is not in the files yet is missing" in told.err
    desk.tree["redis"]["url"] = "embedded://"
    session.write(desk)
    assert run("cat") == 0
    assert capsys.readouterr().err == ""
    os.makedirs(Path(desk.config.stream_dir, "spool", "abc-1"))
    assert run("cat") == 1
    assert "redislogkit spool ls" in capsys.readouterr().err
