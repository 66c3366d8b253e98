"""``redislogkit check`` and the command line around it."""

from __future__ import annotations

import shlex
import subprocess
import sys

import pytest
import tomli

from redislogkit import __main__, __version__, config
from tests.helpers.pages import ROOT

#: But for the one whose url comes from the environment: that is not printed.
CONFIGS = sorted(path for path in (ROOT / "configs").glob("*.toml") if path.stem != "external-redis")


def _check(path, capsys):
    assert __main__.main(["check", str(path)]) == 0
    return capsys.readouterr().out


def _write(tmp_path, text):
    path = tmp_path / "log.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_what_check_prints_is_the_same_configuration(path, capsys):
    printed = config.load(tomli.loads(_check(path, capsys)))
    assert config.digest(printed) == config.digest(config.load(path))


def test_check_prints_every_key(capsys):
    text = _check(ROOT / "configs/full.toml", capsys)
    tree = tomli.loads((ROOT / "configs/full.toml").read_text(encoding="utf-8"))
    printed = tomli.loads(text)
    for name, section in tree.items():
        assert name in printed
        if isinstance(section, dict):
            assert set(section) <= set(printed[name])


def test_check_prints_odd_names_and_values_as_toml(tmp_path, capsys):
    path = _write(
        tmp_path,
        r"""
        [loggers]
        "my.app" = 15
        "a \"b\"" = "ERROR"
        [formatters.odd]
        format = "%(message)s \u007f \" \\ é 😀 \t \n"
        [writers.app]
        type = "file"
        path = "ö \"x\".log"
        formatter = "odd"
        mode = "0600"
        max_bytes = 1001
        """,
    )
    printed = config.load(tomli.loads(_check(path, capsys)))
    assert config.digest(printed) == config.digest(config.load(path))


def test_check_shows_no_password(tmp_path, capsys):
    path = _write(tmp_path, '[redis]\nurl = "redis://me:hunter2@localhost:6379/1?password=hunter3"\n')
    text = _check(path, capsys)
    assert "hunter" not in text
    assert 'url = "redis://***@localhost:6379/1?password=***"' in text


@pytest.mark.parametrize(
    "written",
    [
        "${SECRET}",
        "redis://:${SECRET}@localhost:6379/0",
        "redis://:${SECRET:-hunter4}@localhost",
        "${NONE:-redis://u:hunter4@h}",
    ],
)
def test_check_shows_no_text_from_the_environment_in_a_url(written, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SECRET", "redis://:hunter2@localhost" if written == "${SECRET}" else "hunter2")
    text = _check(_write(tmp_path, f'[redis]\nurl = "{written}"\n'), capsys)
    assert "hunter" not in text


def test_check_shows_text_from_the_environment_as_the_file_has_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PLACE", "hunter2")
    monkeypatch.setenv("LEVEL", "WARNING")
    text = _check(
        _write(
            tmp_path,
            'state_dir = "/tmp/${PLACE}"\n[loggers]\nroot = "${LEVEL}"\n'
            '[writers.app]\ntype = "file"\npath = "/tmp/${PLACE}.log"\nloggers = ["a", "!${PLACE}"]\n',
        ),
        capsys,
    )
    assert "hunter2" not in text
    assert 'state_dir = "/tmp/${PLACE}"' in text
    assert 'path = "/tmp/${PLACE}.log"' in text
    assert 'loggers = ["a", "!${PLACE}"]' in text
    assert 'root = "WARNING"' in text


def test_check_explains_a_wrong_configuration_and_ends_with_2(tmp_path, capsys):
    assert __main__.main(["check", str(_write(tmp_path, "[writers.app]\ntype = 'file'\npaht = 'x'\n"))]) == 2
    captured = capsys.readouterr()
    assert "did you mean 'path'?" in captured.err
    assert not captured.out


def test_check_without_a_path_takes_the_file_that_the_environment_names(tmp_path, capsys, monkeypatch):
    path = _write(tmp_path, '[stream]\nname = "shop"\n')
    monkeypatch.setenv("REDISLOGKIT_CONFIG", str(path))
    assert __main__.main(["check"]) == 0
    assert 'name = "shop"' in capsys.readouterr().out


def test_a_command_is_needed(capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main([])
    assert ended.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


def test_supervise_ends_with_2_for_a_missing_configuration(tmp_path, capfd):
    assert __main__.main(["supervise", str(tmp_path / "none.toml")]) == 2
    assert "there is no such file" in capfd.readouterr().err


def test_the_module_tells_its_version_without_redis():
    code = (
        "import runpy, sys\n"
        "sys.argv = ['redislogkit', '--version']\n"
        "try: runpy.run_module('redislogkit', run_name='__main__', alter_sys=True)\n"
        "except SystemExit as end: assert not end.code\n"
        "assert 'redis' not in sys.modules and 'multiprocess' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == f"redislogkit {__version__}\n"


def test_check_tells_where_each_value_comes_from(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("LEVEL", "WARNING")
    monkeypatch.setenv("HOST", "h")
    text = _check(
        _write(
            tmp_path,
            '[redis]\nurl = "redis://${HOST}:${PORT:-1}"\n[loggers]\nroot = "${LEVEL}"\n"my.app" = "INFO"\n'
            '[formatters.mine]\nformat = "${message}"\nstyle = "$"\n'
            '[writers.app]\ntype = "file"\npath = "app.log"\nformatter = "mine"\n',
        ),
        capsys,
    )
    told = {line.split(" = ")[0]: line.rpartition("  # ")[2] for line in text.splitlines() if "  # " in line}
    assert told["url"] == "log.toml:2, $HOST, $PORT"
    assert told["root"] == "log.toml:4, $LEVEL"
    assert told['"my.app"'] == "log.toml:5"
    assert told["format"] == "log.toml:7"
    assert told["path"] == "log.toml:11"
    assert told["autostart"] == "default"


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        ("[stream]\nname = 'x'\n", "writers", "there is none"),
        (
            "[writers.a]\ntype = 'file'\npath = '/proc/1/a.log'\n",
            "writers.a.path",
            "can not write to /proc/1",
        ),
        (
            "[writers.a]\ntype = 'file'\npath = 'a.log'\nformatter = 'f'\n[formatters.f]\nformat = '%(mesage)s'\n",
            "formatters.f.format",
            "did you mean 'message'?",
        ),
        ("[writers.a]\ntype = 'tty'\n[formatters.f]\ndatefmt = '%H'\n", "formatters.f", "no writer uses it"),
        (
            "[writers.a]\ntype = 'tty'\nlevel = 'INFO'\n[producer]\nlevel = 'ERROR'\n",
            "writers.a.level",
            "below",
        ),
        (
            "[writers.a]\ntype = 'file'\npath = 'a'\nwhen = 'D'\nbackup_count = 0\n",
            "writers.a.backup_count",
            "any number",
        ),
        ("state_dir = '/dev/shm/rlk'\n[writers.a]\ntype = 'tty'\n", "state_dir", "in memory"),
    ],
)
def test_check_tells_what_is_allowed_but_odd(text, key, said, tmp_path, capsys):
    path = _write(tmp_path, text)
    assert __main__.main(["check", str(path), "--quiet"]) == 0
    captured = capsys.readouterr()
    assert not captured.out
    assert f"warning  {key}: " in captured.err
    assert said in captured.err
    assert __main__.main(["check", str(path), "--quiet", "--strict"]) == 1


def test_check_has_nothing_to_say_about_what_is_usual(tmp_path, capsys):
    path = _write(
        tmp_path,
        'state_dir = "/var/tmp/rlk"\n[writers.app]\ntype = "file"\npath = "/var/tmp/app.log"\nmax_bytes = 1000\n',
    )
    assert __main__.main(["check", str(path), "--strict"]) == 0
    assert not capsys.readouterr().err


def test_a_command_that_is_nearly_right_is_named(capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main(["statsu"])
    assert ended.value.code == 2
    assert "did you mean 'status'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", __main__.COMMANDS, ids=lambda command: command.NAME)
def test_every_command_has_help_with_its_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as ended:
        __main__.main([command.NAME, "--help"])
    assert ended.value.code == 0
    assert "exit codes: 0" in capsys.readouterr().out


def test_every_example_of_the_help_is_a_command_line_that_is_understood(capsys):
    for command in __main__.COMMANDS:
        with pytest.raises(SystemExit):
            __main__.main([command.NAME, "--help"])
        for line in capsys.readouterr().out.splitlines():
            if line.startswith("  redislogkit "):
                arguments = shlex.split(line.partition(" > ")[0].partition(" | ")[0], comments=True)[1:]
                assert __main__.parser().parse_args(arguments).command == command.NAME


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_made_from_the_command_line(shell, capsys):
    assert __main__.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(command.NAME in script for command in __main__.COMMANDS)


def test_a_shell_completes_commands_options_and_files(tmp_path, capsys):
    assert __main__.main(["completion", "bash"]) == 0
    (tmp_path / "completion").write_text(capsys.readouterr().out)
    (tmp_path / "shop.toml").write_text("")

    def completed(*words):
        line = " ".join(f'"{word}"' for word in ("redislogkit", *words))
        code = (
            f"source {tmp_path}/completion; COMP_WORDS=({line}); COMP_CWORD={len(words)}; "
            '_shtab_redislogkit; echo "${COMPREPLY[@]}"'
        )
        return subprocess.run(
            ["bash", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
        ).stdout.split()

    assert completed("stat") == ["status"]
    assert completed("level", "--f") == ["--for"]
    assert completed("status", "sh") == ["shop.toml"]
    assert completed("level", "-c", "sh") == ["shop.toml"]


def test_completion_without_shtab_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert __main__.main(["completion", "bash"]) == 2
    assert "pip install 'redislogkit[cli]'" in capsys.readouterr().err


def test_a_reader_that_has_gone_ends_it_quietly():
    code = f"{sys.executable} -m redislogkit schema | head -c 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stderr == ""
    assert done.stdout in ("{141\n", "{0\n")  # it may have written all before


def test_without_a_writer_of_files_there_is_nothing_to_rotate(tmp_path, capsys):
    assert __main__.main(["rotate", "-c", str(_write(tmp_path, '[writers.app]\ntype = "tty"\n'))]) == 2
    assert "has no writer of files" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "config"), [([], None), (["a"], "a"), (["-c", "a"], "a"), (["--config=a"], "a")]
)
def test_the_configuration_is_named_by_an_argument_or_an_option(words, config):
    assert __main__.parser().parse_args(["status", *words]).config == config
    assert __main__.parser().parse_args(["tail", *words, "-f"]).config == config
