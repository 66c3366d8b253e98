"""``redislogkit check`` and the command line around it."""

from __future__ import annotations

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


def test_supervise_ends_with_2_for_a_missing_configuration(tmp_path, capsys):
    assert __main__.main(["supervise", str(tmp_path / "none.toml")]) == 2
    assert "there is no such file" in capsys.readouterr().err


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
