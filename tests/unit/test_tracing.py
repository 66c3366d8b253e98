# mypy: disable-error-code="no-any-return"
"""A record keeps the trace and the span that it was logged in, on either way of a logger."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest

from redislogkit.producer import tracing
from tests.helpers.twins import Twins


@pytest.fixture
def twins(tmp_path) -> Iterator[Twins]:
    made = Twins(str(tmp_path))
    yield made
    made.close()


@pytest.fixture(scope="module")
def tracer() -> Any:
    from opentelemetry.sdk.trace import TracerProvider

    return TracerProvider().get_tracer("tests")


def _ids(span: Any) -> dict[str, str]:
    context = span.get_span_context()
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}


def _extras(twins: Twins) -> list[dict[str, Any] | None]:
    return [record.extra for side in twins.sides for record in side.read()]


def _log(twins: Twins, *args: Any, **kwargs: Any) -> list[dict[str, Any] | None]:
    for side in twins.sides:
        side.log.info(*args, **kwargs)
    return _extras(twins)


def test_ids_of_the_current_span_are_kept_in_hexadecimal_digits(twins, tracer):
    with tracer.start_as_current_span("work") as span:
        assert _log(twins, "inside") == [_ids(span)] * 2
    assert _log(twins, "outside") == [None, None]


def test_ids_join_the_extras_and_formatted_text(twins, tracer):
    formatter = logging.Formatter("%(message)s")
    with tracer.start_as_current_span("work") as span:
        assert _log(twins, "x", extra={"a": 1}) == [{"a": 1, **_ids(span)}] * 2
        for side in twins.sides:
            side.handler.setFormatter(formatter)
        assert _log(twins, "x") == [_ids(span)] * 2


@pytest.mark.parametrize(
    "own",
    [
        {"trace_id": "mine"},
        {"span_id": 7},
        {"otelTraceID": "0af7", "otelSpanID": "b7ad", "otelServiceName": "shop"},
    ],
)
def test_what_a_record_says_of_its_trace_itself_stays_as_it_is(twins, tracer, own):
    with tracer.start_as_current_span("work"):
        assert _log(twins, "x", extra=own) == [own] * 2


def test_the_fast_way_is_left_inside_of_a_span_only(twins, tracer):
    assert twins.compare(lambda side: side.log.info("outside")) == 2  # the first one is learnt
    with tracer.start_as_current_span("work"):
        assert twins.compare(lambda side: side.log.info("inside")) == 0
    assert twins.compare(lambda side: side.log.info("outside")) == 2


def test_a_record_of_another_thread_is_not_of_this_ones_span(twins, tracer):
    records: list[logging.LogRecord] = []
    maker = logging.Logger("x")
    maker.addHandler(mock.Mock(level=0, handle=records.append))
    thread = threading.Thread(target=maker.info, args=("x",))
    thread.start()
    thread.join()
    with tracer.start_as_current_span("listener"):
        for side in twins.sides:
            side.handler.handle(records[0])
    assert _extras(twins) == [None, None]


def test_an_api_that_does_not_answer_costs_no_record(twins):
    for broken in (None, object(), mock.Mock(get_current_span=mock.Mock(side_effect=OSError))):
        with mock.patch.dict(sys.modules, {tracing.API: broken}):
            assert _log(twins, "x") == [None, None]


def test_opentelemetry_is_never_imported():
    program = """
        import logging, sys, tempfile
        import redislogkit
        with tempfile.TemporaryDirectory() as folder:
            settings = {"state_dir": folder, "supervisor": {"autostart": False}, "producer": {"shutdown_timeout": 0}}
            with redislogkit.configure(settings, **{"producer.fast_logger": True}):
                logging.warning("x")
        print([name for name in sys.modules if "opentelemetry" in name])
    """
    lines = "\n".join(line[8:] for line in program.splitlines())
    done = subprocess.run([sys.executable, "-c", lines], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
