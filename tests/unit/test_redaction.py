"""Secrets do not reach a line, whatever stands around them, and no text makes that take for ever."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redislogkit import formatting, redaction
from redislogkit.config import FormatterConfig
from redislogkit.redaction import NAMED, Redactor
from tests.helpers.formats import FACTS, make_log_record, through_the_stream

ALL = Redactor(tuple(NAMED), "***")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer eyJhbGci.eyJz_dW-Ii==, x", "Authorization: Bearer ***, x"),
        ("authorization: basic dXNlcjpwYXNz", "authorization: basic ***"),
        ("redis://me:p@ss:w0rd@host:6379/0 is away", "redis://me:***@host:6379/0 is away"),
        ("redis://:secret@host", "redis://:***@host"),
        ("http://host:80/a@b", "http://host:80/a@b"),
        ("login password=hunter2, ok", "login password=***, ok"),
        ('{"db_password": "a \\" b", "n": 1}', '{"db_password": "***", "n": 1}'),
        ("api-key: 'x y' z", "api-key: '***' z"),
        ("url?access_token=abc&page=2", "url?access_token=***&page=2"),
        ("compass: north, tokenizer: fast", "compass: north, tokenizer: fast"),
        ("paid with 4111 1111 1111 1111.", "paid with ***."),
        ("paid with 4111-1111-1111-1112", "paid with 4111-1111-1111-1112"),
        ("order 1795370400123456000", "order 1795370400123456000"),
        ("two 5500005555555559 and 340000000000009", "two *** and ***"),
    ],
)
def test_the_named_rules_find_what_their_names_say(text, expected):
    assert ALL.text(text) == expected


def test_of_an_expression_the_group_secret_is_replaced_or_all_of_it():
    redactor = Redactor([r"pin=(?P<secret>\d+)", r"[\w.]+@[\w.]+"], "<gone>")
    assert redactor.text("pin=123 of a.b@c.d, pin=9") == "pin=<gone> of <gone>, pin=<gone>"


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        ("(a+)+", "does not repeat a repetition"),
        ("(a|b+)*c", "does not repeat a repetition"),
        (r"(?:\d*,?)*x", "does not repeat a repetition"),
        (r"((\w{1,20})+!?)+", "does not repeat a repetition"),
        ("x*", "does not match the empty text"),
        ("(x", "must be a regular expression or one of bearer"),
        (r"password=\S+", ""),
        (r"(?:[a-z]+\.)+com", ""),
        (r"(\w+ )*x", ""),
        (r"(?:ab){2,9}c+", ""),
        ("bearer", ""),
    ],
)
def test_an_expression_that_could_take_for_ever_is_refused(rule, fault):
    found = redaction.check(rule)
    assert fault in found
    assert bool(fault) == bool(found)


@pytest.mark.parametrize("text", ["a" * 400_000, "1-" * 200_000, "password" * 50_000, 'password="' * 40_000])
def test_a_long_text_takes_a_bounded_time(text):
    began = time.process_time()
    ALL.text(text)
    assert time.process_time() - began < 3


@settings(max_examples=60)
@given(before=st.integers(0, 9000), size=st.integers(1, 20_000), after=st.integers(0, 9000))
def test_a_secret_in_a_long_text_is_found_wherever_it_stands(before, size, after):
    text = "-" * before + " password=" + "s" * size + " " + "-" * after
    assert Redactor(["password"], "*").text(text) == "-" * before + " password=* " + "-" * after


def test_json_stays_json_and_its_fields_keep_their_names():
    config = FormatterConfig(type="json", redact=("password", "credit-card", r"token.*", "2026"))
    record = make_log_record(
        'password="a b" token "}',
        password="hunter2",
        user={"apiToken": "x", "name": "me", "list": ["secret=1", 4111111111111111]},
        exc_text="Traceback\nValueError: password=x",
        year=2026,
        count=7,
    )
    values = json.loads(formatting.build(config)(through_the_stream(record), FACTS, 1))
    assert values["message"] == 'password="***" ***'
    assert values["password"] == "***"
    assert values["user"] == {"apiToken": "***", "name": "me", "list": ["secret=***", "***"]}
    assert values["exception"] == "Traceback\nValueError: password=***"
    assert values["timestamp"].startswith("2026-")
    assert (values["year"], values["count"], values["process"]) == ("***", 7, FACTS.pid)


def test_text_that_the_application_has_formatted_is_searched_too():
    formatter = formatting.build(FormatterConfig(redact=("password",), redact_with="?"))
    assert formatter(through_the_stream(make_log_record(), text="x password=1"), FACTS, 1) == "x password=?"
