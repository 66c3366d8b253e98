"""What loguru says becomes records as if logging had said it."""

from __future__ import annotations

import logging

import loguru
import pytest

import redislogkit
from redislogkit import LoguruSink, SpoolHandler
from redislogkit.record import decode_items
from tests.helpers.settings import settings, spooled


@pytest.fixture
def tree(state_dir, stream_name):
    return settings(
        state_dir, stream_name, f"unix://{state_dir}/nobody.sock", supervisor={"autostart": False},
        producer={"shutdown_timeout": 0.0, "level": 5},
    )  # fmt: skip


@pytest.fixture
def logger():
    loguru.logger.remove()
    yield loguru.logger
    loguru.logger.remove()


def records(tree):
    return [item for payload in spooled(tree) for item in decode_items(b"\x91" + payload)]


def test_levels_extras_and_exceptions_are_those_of_the_record(tree, logger):
    logger.add(LoguruSink(tree), format="{message}", level="TRACE")
    logger.bind(shelf=17, name="a name of the record's own").success("{} boxes", 3)
    logger.trace("looking")
    logger.log(3, "below producer.level")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("no boxes")
    logger.remove()
    success, trace, error = records(tree)
    assert (success.levelno, success.levelname, success.message) == (25, "SUCCESS", "3 boxes")
    assert (success.name, success.function) == (
        __name__,
        "test_levels_extras_and_exceptions_are_those_of_the_record",
    )
    assert success.pathname == __file__
    assert success.extra == {"shelf": 17}
    assert (trace.levelno, trace.levelname, trace.message) == (5, "TRACE", "looking")
    assert error.message == "no boxes"
    assert error.exc_text.startswith("Traceback") and error.exc_text.endswith(
        "ZeroDivisionError: division by zero"
    )


def test_a_handler_of_the_program_is_used_and_left_open(tree, logger):
    with redislogkit.configure(tree) as handle:
        sink = LoguruSink(handle.handler)
        logger.add(sink, format="{message}")
        logger.info("by loguru")
        logging.getLogger("shop").info("by logging")
        logger.remove()
        logging.getLogger("shop").info("later")
        assert handle.stats()["emitted"] == 3
    assert [record.message for record in records(tree)] == ["by loguru", "by logging", "later"]


def test_a_handler_as_sink_has_the_traceback_once(tree, logger):
    logger.add(SpoolHandler(tree), format="{message}")
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logger.exception("no boxes")
    logger.remove()
    (record,) = records(tree)
    assert record.message.count("ZeroDivisionError") == 1
    assert record.exc_text is None
