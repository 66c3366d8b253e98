"""What docs/reading-logs.md shows are commands that there are, and answers that they give."""

from __future__ import annotations

import argparse
import re
import shlex

import pytest

from redislogkit import __main__
from redislogkit.commands import viewing
from redislogkit.config import FormatterConfig
from redislogkit.errors import ConfigError
from redislogkit.view import parsing
from redislogkit.view.filter import Filter
from tests.helpers.pages import ROOT

PAGE = (ROOT / "docs" / "reading-logs.md").read_text(encoding="utf-8")


def _arguments(line: str) -> list[str]:
    """The words of a command, up to a pipe or a redirection."""
    words = shlex.split(line)
    end = next((at for at, word in enumerate(words) if word in ("|", ">")), len(words))
    return words[1:end]


@pytest.mark.parametrize("line", re.findall(r"^ *\$ (redislogkit .*)$", PAGE, re.MULTILINE))
def test_every_command_shown_is_one(line):
    options = __main__.parser().parse_args(_arguments(line))
    if getattr(options, "since", None) or getattr(options, "level", None):
        assert viewing.wanted(options).needs()


def test_the_refusal_is_the_one_that_is_shown():
    parser = parsing.parser(FormatterConfig(), "keep")
    with pytest.raises(ConfigError) as raised:
        parsing.check(parser, Filter.of(now=0, fields=["user=eve"]), "the format of writer 'app'")
    assert f"\n{raised.value}\n" in PAGE


def test_every_option_of_the_filter_is_explained():
    made = argparse.ArgumentParser()
    viewing.add_filter(made)
    viewing.add_output(made)
    for action in made._actions:
        if action.dest != "help":
            assert any(f"`{name}" in PAGE for name in action.option_strings), action.option_strings
