"""Exceptions that nobody catches become records, and everything else goes on as before."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import threading
import warnings

import pytest

from redislogkit import capture, capture_exceptions
from tests.helpers.settings import settings

HOOKS = [(sys, "excepthook"), (threading, "excepthook"), (sys, "unraisablehook")]


@pytest.fixture
def before(monkeypatch):
    """Hooks that note their calls stand where those of the interpreter, or of pytest, stood."""
    seen: list[object] = []
    for place, name in HOOKS:
        monkeypatch.setattr(place, name, lambda *args: seen.append(args))
    return seen


@pytest.fixture
def undo(before):
    undo = capture_exceptions()
    yield undo
    undo()


def raised(error: BaseException) -> tuple[type[BaseException], BaseException, object]:
    with contextlib.suppress(type(error)):
        raise error
    return type(error), error, error.__traceback__


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, str]]:
    return [(record.name, record.levelname, record.getMessage()) for record in caplog.records]


def test_what_ends_the_program_is_logged_with_its_traceback_and_shown(undo, before, caplog):
    error = raised(ValueError("no stock"))
    sys.excepthook(*error)  # type: ignore[arg-type]
    assert said(caplog) == [("redislogkit.uncaught", "CRITICAL", "uncaught exception")]
    assert caplog.records[0].exc_info == error
    assert before == [error]


def test_what_ends_a_thread_is_logged_with_its_name(undo, before, caplog):
    thread = threading.Thread(target=lambda: 1 / 0, name="counter")
    thread.start()
    thread.join()
    assert said(caplog) == [("redislogkit.uncaught", "ERROR", "uncaught exception in thread counter")]
    assert len(before) == 1


def test_what_a_finaliser_raises_is_logged(undo, before, caplog):
    class Till:
        def __del__(self):
            raise ValueError("open")

        def __repr__(self):
            return "a till"

    Till()
    ((name, level, message),) = said(caplog)
    assert (name, level) == ("redislogkit.uncaught", "ERROR")
    assert message.startswith(("exception ignored in", "Exception ignored"))
    assert caplog.records[0].exc_info is not None
    assert len(before) == 1


@pytest.mark.parametrize("meant", [KeyboardInterrupt(), SystemExit(3)])
def test_what_ends_a_program_on_purpose_is_not_logged(undo, before, caplog, meant):
    sys.excepthook(*raised(meant))  # type: ignore[arg-type]
    assert said(caplog) == []
    assert len(before) == 1


def test_a_filter_that_fails_hides_nothing(undo, before):
    def fail(_: logging.LogRecord) -> bool:
        raise RuntimeError("a broken filter")

    logger = logging.getLogger(capture.LOGGER)
    logger.addFilter(fail)
    try:
        sys.excepthook(*raised(ValueError("x")))  # type: ignore[arg-type]
    finally:
        logger.removeFilter(fail)
    assert len(before) == 1


def test_undone_nothing_is_left_of_it(before):
    hooks = [getattr(place, name) for place, name in HOOKS]
    undo = capture_exceptions()
    assert all(getattr(place, name) is not hook for (place, name), hook in zip(HOOKS, hooks, strict=True))
    undo()
    assert [getattr(place, name) for place, name in HOOKS] == hooks


def test_a_hook_that_somebody_has_wrapped_stays_and_only_passes_on(before, caplog, monkeypatch):
    undo = capture_exceptions()
    ours = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", lambda *args: ours(*args))
    wrapper = sys.excepthook
    undo()
    assert sys.excepthook is wrapper
    sys.excepthook(*raised(ValueError("x")))  # type: ignore[arg-type]
    assert said(caplog) == []
    assert len(before) == 1


def test_the_configuration_switches_it_on_and_closing_switches_it_off(before, state_dir, stream_name):
    import redislogkit

    tree = settings(
        state_dir, stream_name, f"unix://{state_dir}/nobody.sock", supervisor={"autostart": False},
        producer={"shutdown_timeout": 0.0, "capture_uncaught": True, "capture_warnings": True},
    )  # fmt: skip
    hooks = [getattr(place, name) for place, name in HOOKS]
    level = logging.getLogger().level
    handle = redislogkit.configure(tree)
    try:
        assert [getattr(place, name) for place, name in HOOKS] != hooks
        sys.excepthook(*raised(ValueError("x")))  # type: ignore[arg-type]
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
        assert handle.stats()["emitted"] == 2
        tree["producer"] |= {"capture_uncaught": False}
        handle = redislogkit.configure(tree)
        assert [getattr(place, name) for place, name in HOOKS] == hooks
    finally:
        handle.close(0)
        logging.getLogger().setLevel(level)
    assert getattr(logging, "_warnings_showwarning") is None  # noqa: B009


def test_warnings_that_somebody_else_captures_stay_captured(monkeypatch):
    logging.captureWarnings(True)
    try:
        capture.capture_warnings()()
        shown = io.StringIO()
        monkeypatch.setattr(sys, "stderr", shown)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", stacklevel=1)
        assert shown.getvalue() == ""
    finally:
        logging.captureWarnings(False)
