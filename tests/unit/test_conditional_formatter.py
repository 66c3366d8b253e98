"""``ConditionalFormatter``: fields that appear only where a record has them."""

from __future__ import annotations

import logging

from redislogkit import ConditionalFormatter


def record(**attributes: object) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": "paid %s", "args": ("it",), "levelname": "INFO", **attributes})


def test_fields_that_a_record_has_are_appended_in_the_order_of_the_formatter():
    formatter = ConditionalFormatter("%(levelname)s %(message)s", optional_fields=["b", "a", "c"])
    assert formatter.format(record(a=1, b="two")) == "INFO paid it - b: two - a: 1"


def test_record_without_the_fields_is_formatted_as_by_the_stdlib():
    text = "%(levelname)s %(message)s"
    assert ConditionalFormatter(text, optional_fields=["x"]).format(record()) == logging.Formatter(
        text
    ).format(record())
    assert ConditionalFormatter().format(record()) == "paid it"


def test_fields_that_are_false_or_none_are_there():
    formatter = ConditionalFormatter("%(message)s", optional_fields=["zero", "none", "empty"])
    assert formatter.format(record(zero=0, none=None, empty="")) == "paid it - zero: 0 - none: None - empty: "


def test_fields_stand_before_the_traceback():
    formatter = ConditionalFormatter("%(message)s", optional_fields=["x"])
    lines = formatter.format(record(x=1, exc_info=(KeyError, KeyError("k"), None))).splitlines()
    assert lines == ["paid it - x: 1", "KeyError: 'k'"]


def test_date_format_is_obeyed():
    formatter = ConditionalFormatter("%(asctime)s %(message)s", "%Y", ["x"])
    assert formatter.format(record(created=0.0)).startswith("19")


def test_standard_attributes_can_be_optional_too():
    formatter = ConditionalFormatter("%(message)s", optional_fields=["process"])
    assert formatter.format(record(process=7)) == "paid it - process: 7"


def test_field_whose_text_can_not_be_had_costs_only_itself():
    class Failing:
        def __str__(self) -> str:
            raise ValueError("no")

        __repr__ = __str__

    formatter = ConditionalFormatter("%(message)s", optional_fields=["x", "y"])
    assert formatter.format(record(x=Failing(), y=1)) == "paid it - x: <unrepresentable Failing> - y: 1"


def test_one_iterator_of_names_serves_every_record():
    formatter = ConditionalFormatter("%(message)s", optional_fields=iter(["x"]))
    assert [formatter.format(record(x=n)) for n in (1, 2)] == ["paid it - x: 1", "paid it - x: 2"]
