"""Logging calls as nobody should write them: the process is unharmed, the right text is in the file."""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
import textwrap
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stress.checker import check
from tests.helpers import processes
from tests.helpers.scripts import Finished, Scripts
from tests.helpers.settings import CONFIGURED, arrived, messages, read, settings
from tests.helpers.waiting import wait_until

Run = Callable[..., Finished]

#: What every case may use; ``log`` is a logger named after the case.
TOOLS = """
import copy, enum, queue, threading, types
import logging.handlers
class FailingStr:
    def __str__(self): raise ValueError("no str")
    def __repr__(self): return "<FailingStr>"
class Failing:
    def __str__(self): raise ValueError("no str")
    __repr__ = __str__
class BadTruth:
    def __bool__(self): raise ValueError("no truth")
def record(**attributes):
    return logging.makeLogRecord({"levelno": 20, "levelname": "INFO", "created": 1.5, **attributes})
def with_factory(factory, name):
    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(factory)
    try:
        logging.getLogger(name).warning("made %s", "well")
    finally:
        logging.setLogRecordFactory(before)
def with_filter(wanted, name, on=None):
    on = handle.handler if on is None else on
    on.addFilter(wanted)
    try:
        logging.getLogger(name).warning("filtered")
    finally:
        on.removeFilter(wanted)
"""


class Case:
    """Some calls, and what has to be in the file: a pattern for each message, or a test of all records."""

    def __init__(self, code: str, *expected: str | Callable[[list[dict[str, Any]]], bool]) -> None:
        self.code = textwrap.dedent(code)
        self.expected = expected


def plain(text: str) -> str:
    return re.escape(text)


CASES = {
    # -- arguments
    "wrong_type": Case(
        "log.info('%d apples', 'no')",
        r"%d apples \[redislogkit: arguments \('no',\) do not fit: TypeError\(.*\)\]",
    ),
    "too_many": Case(
        "log.info('one', 2)", r"one \[redislogkit: arguments \(2,\) do not fit: TypeError\(.*\)\]"
    ),
    "too_few": Case("log.info('%s %s', 1)", r"%s %s \[redislogkit: arguments \(1,\) do not fit: .*\]"),
    "failing_str": Case(
        "log.info('got %s', FailingStr())",
        r"got %s \[redislogkit: arguments \(<FailingStr>,\) do not fit: ValueError\('no str'\)\]",
    ),
    "failing_repr": Case(
        "log.info('got %r', Failing())",
        r"got %r \[redislogkit: arguments <unrepresentable tuple> do not fit: ValueError\('no str'\)\]",
    ),
    "unpicklable": Case(
        "log.info('%s %s', threading.Lock(), (i for i in 'x'))", r"<unlocked .*lock.*> <generator object .*>"
    ),
    "mutable": Case("a = [1]; log.info('%s', a); a.append(2); log.info('%s', a)", r"\[1\]", r"\[1, 2\]"),
    "dictionary": Case("log.info('%(a)s', {'a': 'by name'})", "by name"),
    "lone_percent": Case("log.info('100 %')", "100 %"),
    # -- the text
    "five_megabytes": Case("log.info('x' * 5_000_000)", lambda r: r[0]["message"] == "x" * 5_000_000),
    "nul": Case(r"log.info('a\0b')", "a\0b"),
    "surrogate": Case(r"log.info('a\ud800b %s', '\udcff')", plain(r"a\ud800b \udcff")),
    "newlines": Case(r"log.info('a\nb\r\n\u2028c')", "a\nb\r\n\u2028c"),
    "escapes": Case(
        r"log.info('\x1b[31mred\x1b]0;t\x07\x9b\u202e')", plain("\x1b[31mred\x1b]0;t\x07\x9b\u202e")
    ),
    "empty": Case("log.info('')", ""),
    "number": Case("log.info(42); log.info(None); log.info({'a': 1})", "42", "None", plain("{'a': 1}")),
    "bytes": Case("log.info(b'raw')", "b'raw'"),
    "exception_as_message": Case("log.info(ValueError('oops'))", "oops"),
    "failing_message": Case(
        "log.info(FailingStr()); log.info(Failing())", "<FailingStr>.*", "<unrepresentable .*"
    ),
    # -- calls in calls
    "from_str": Case(
        """
        class Logs:
            def __str__(self):
                log.info("inner"); return "done"
        log.info("outer %s", Logs())
        """,
        "inner",
        "outer done",
    ),
    "from_str_for_ever": Case(
        """
        class Logs:
            def __str__(self):
                log.info("%s", self); return "done"
        log.info("%s", Logs())
        log.info("alive")
        """,
        lambda r: r[-1]["message"] == "alive" and any("do not fit" in x["message"] for x in r),
    ),
    "deep": Case(
        """
        returned = 0
        def dive(n):
            global returned
            log.info("%d", n)
            returned += 1
            dive(n + 1)
        limit = sys.getrecursionlimit()
        try:
            dive(0)
        except RecursionError:
            pass
        assert sys.getrecursionlimit() == limit
        log.info("returned %d", returned)
        """,
        lambda r: (
            [x["message"].split(" ")[0] for x in r[:-1]][: int(r[-1]["message"].split()[1])]
            == ["%d" if "do not fit" in x["message"] else str(i) for i, x in enumerate(r[:-1])][
                : int(r[-1]["message"].split()[1])
            ]
        ),
    ),
    # -- exceptions and stacks
    "exc_true": Case(
        "try: 1 / 0\nexcept ZeroDivisionError: log.exception('caught')",
        lambda r: (
            r[0]["message"] == "caught" and r[0]["exception"].endswith("ZeroDivisionError: division by zero")
        ),
    ),
    "exc_instance": Case(
        "log.error('given', exc_info=KeyError('k'))", lambda r: r[0]["exception"] == "KeyError: 'k'"
    ),
    "exc_tuple": Case(
        "log.error('given', exc_info=(KeyError, KeyError('k'), None))",
        lambda r: r[0]["exception"] == "KeyError: 'k'",
    ),
    "exc_none": Case(
        "log.error('none', exc_info=True)",
        lambda r: r[0]["message"] == "none" and "Traceback" not in str(r[0].get("exception")),
    ),
    "exc_failing": Case(
        """
        class Bad(Exception):
            def __str__(self): raise ValueError("no")
        try: raise Bad()
        except Bad: log.exception("bad")
        """,
        lambda r: r[0]["message"] == "bad" and "Bad: <exception str() failed>" in r[0]["exception"],
    ),
    "exc_chain": Case(
        """
        try:
            try: 1 / 0
            except ZeroDivisionError as e: raise OSError("outer") from e
        except OSError: log.exception("chain")
        """,
        lambda r: "direct cause" in r[0]["exception"] and "OSError: outer" in r[0]["exception"],
    ),
    "stack": Case(
        "log.info('where', stack_info=True)", lambda r: r[0]["stack"].startswith("Stack (most recent")
    ),
    # -- extras
    "extras": Case(
        """
        log.info("e", extra={"flag": True, "none": None, "list": [1, "a", None], "map": {"k": {"n": 1.5}},
                             "int": 2 ** 100, "neg": -(2 ** 70), "set": {1}, "raw": b"a\\xff", "obj": object(),
                             "failing": Failing(), "s\\udc80": "x\\udc80", "nan": float("nan")})
        """,
        lambda r: (
            (r[0]["flag"], r[0]["none"], r[0]["list"], r[0]["map"])
            == (True, None, [1, "a", None], {"k": {"n": 1.5}})
            and r[0]["int"] == hex(2**100)
            and "object object" in r[0]["obj"]
            and r[0]["failing"].startswith("<unrepresentable")
            and r[0][r"s\udc80"] == r"x\udc80"
        ),
    ),
    "huge_extras": Case(
        """
        cycle = []; cycle.append(cycle)
        deep = []
        for _ in range(5000): deep = [deep]
        log.info("huge", extra={"big": "y" * 3_000_000, "cycle": cycle, "deep": deep,
                                **{f"k{i}": i for i in range(2000)}})
        """,
        lambda r: len(r[0]["big"]) == 3_000_000 and r[0]["k7"] == 7,
    ),
    "extras_named_like_attributes": Case(
        """
        handle.handler.handle(record(name=log.name, msg="m %s", args=("x",), message="old", asctime="old",
                                     taskName="t", exc_text="rendered", host="h", producer="p", text="x"))
        """,
        lambda r: r[0]["message"] == "m x" and r[0]["exception"] == "rendered" and r[0]["producer"] == "p",
    ),
    "odd_keys": Case(
        "r = record(name=log.name, msg='odd'); r.__dict__[5] = 'five'; handle.handler.handle(r)",
        lambda r: r[0]["5"] == "five",
    ),
    # -- records
    "minimal": Case("handle.handler.handle(logging.makeLogRecord({'name': log.name}))", ""),
    "without_anything": Case(
        """
        bare = logging.makeLogRecord({"name": log.name, "msg": "bare"})
        for key in list(bare.__dict__):
            if key not in ("name", "msg", "args"): del bare.__dict__[key]
        handle.handler.handle(bare); handle.handler.emit(bare)
        """,
        "bare",
        "bare",
    ),
    "odd_types": Case(
        """
        handle.handler.handle(record(name=log.name, msg="odd", levelno="high", levelname=5, lineno="x",
                                     created="now", thread="t", process=None, pathname=None, msecs=BadTruth(),
                                     exc_info=BadTruth(), funcName=7, processName=3, stack_info=5))
        """,
        lambda r: "odd" in r[0]["message"],
    ),
    "no_record": Case(
        """
        handle.handler.handle(types.SimpleNamespace(name=log.name, msg="thing", levelno=20))
        class Slots:
            __slots__ = ("name", "msg")
        slots = Slots(); slots.name = log.name; slots.msg = "slots"
        handle.handler.handle(slots)
        """,
        "thing .*",
        "slots .*",
    ),
    "other_process": Case(
        """
        q = queue.SimpleQueue()
        listener = logging.handlers.QueueListener(q, handle.handler)
        listener.start()
        q.put(record(name=log.name, msg="from afar", process=4711, processName="Afar"))
        listener.stop()
        log.info("mine")
        """,
        lambda r: (
            [(x["process"] == 4711, x["process_name"]) for x in r] == [(True, "Afar"), (False, "MainProcess")]
        ),
    ),
    # -- factories
    "factory_attributes": Case(
        """
        def factory(*args, **kwargs):
            made = logging.LogRecord(*args, **kwargs); made.tenant = "t1"; made.odd = Failing(); return made
        with_factory(factory, log.name)
        """,
        lambda r: (r[0]["message"], r[0]["tenant"]) == ("made well", "t1"),
    ),
    "factory_missing": Case(
        """
        def factory(*args, **kwargs):
            made = logging.LogRecord(*args, **kwargs)
            for name in ("process", "thread", "created", "msecs", "processName", "exc_info", "exc_text",
                         "stack_info", "lineno", "funcName", "pathname"):
                delattr(made, name)
            return made
        with_factory(factory, log.name)
        """,
        "made well",
    ),
    "factory_subclass": Case(
        """
        class Mine(logging.LogRecord):
            def getMessage(self): return "mine: " + super().getMessage()
        with_factory(Mine, log.name)
        """,
        "mine: made well",
    ),
    "factory_failing_message": Case(
        """
        class Mine(logging.LogRecord):
            def getMessage(self): raise OSError("no message")
        with_factory(Mine, log.name)
        """,
        r"made %s \[redislogkit: arguments \('well',\) do not fit: OSError\('no message'\)\]",
    ),
    "factory_not_text": Case(
        """
        class Mine(logging.LogRecord):
            def getMessage(self): return ["a", "list"]
        with_factory(Mine, log.name)
        """,
        plain("['a', 'list']"),
    ),
    # -- filters
    "filter_raises": Case("def f(r): 1 / 0\nwith_filter(f, log.name)", "filtered"),
    "filter_odd_truth": Case("with_filter(lambda r: BadTruth(), log.name)", "filtered"),
    "filter_rejects": Case("with_filter(lambda r: False, log.name)\nlog.info('next')", "next"),
    "filter_changes": Case(
        "def f(r): r.msg = 'changed'; return True\nwith_filter(f, log.name, on=log)", "changed"
    ),
    "filter_replaces": Case(
        """
        def f(r):
            r = copy.copy(r); r.msg = "replaced"; return r
        with_filter(f, log.name)
        with_filter(f, log.name, on=log)
        """,
        *(["replaced"] * 2 if sys.version_info >= (3, 12) else ["filtered"] * 2),
    ),
    # -- levels and adapters
    "custom_level": Case(
        "logging.addLevelName(25, 'NOTICE'); log.log(25, 'n'); log.log(77, 'x'); log.setLevel(1); log.log(5, 'no')",
        lambda r: [(x["level"], x["message"]) for x in r] == [("NOTICE", "n"), ("Level 77", "x")],
    ),
    "enum_level": Case(
        "class L(enum.IntEnum): NOTE = 31\nlog.log(L.NOTE, 'enum')", lambda r: r[0]["message"] == "enum"
    ),
    "adapter": Case(
        "logging.LoggerAdapter(log, {'user': 'u'}).info('hi %s', 1)",
        lambda r: (r[0]["message"], r[0]["user"]) == ("hi 1", "u"),
    ),
    "disabled": Case(
        "logging.disable(logging.INFO); log.info('no'); log.error('yes'); logging.disable(logging.NOTSET)",
        "yes",
    ),
    "formatter": Case(
        """
        handle.handler.setFormatter(logging.Formatter("%(nothing)s"))
        log.info("formatter fails")
        handle.handler.setFormatter(None)
        """,
        "formatter fails",
    ),
}


@pytest.fixture(scope="module")
def outcome(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """One program runs all cases. What it printed, and its records by logger."""
    folder = tempfile.mkdtemp(prefix="rlk-", dir="/tmp")
    mark = uuid.uuid4().hex
    scripts = Scripts(tmp_path_factory.mktemp("nasty"))
    tree = settings(folder, f"t{uuid.uuid4().hex[:10]}", server_url)
    source = CONFIGURED + TOOLS + "cases = json.load(open(sys.argv[2]))\n"
    source += """
noted = {}
for name, code in cases.items():
    before = handle.handler.errors
    log = logging.getLogger(name)
    exec(code)
    if handle.handler.errors > before: noted[name] = handle.handler.errors - before
print(json.dumps(noted))
"""
    cases = Path(folder) / "cases.json"
    cases.write_text(json.dumps({name: case.code for name, case in CASES.items()}))
    try:
        done = scripts.run(source, json.dumps(tree), cases, env={processes.MARK: mark}, check=False)
        records = defaultdict(list)
        for entry in read(f"{folder}/app.log"):
            records[entry["logger"]].append(entry)
        yield {"done": done, "records": records}
    finally:
        scripts.close()
        processes.reap_all(mark, folder)
        shutil.rmtree(folder)


@pytest.mark.parametrize("name", CASES)
def test_call(outcome: dict[str, Any], name: str):
    records = outcome["records"][name]
    expected = CASES[name].expected
    if callable(expected[0]):
        assert records
        assert expected[0](records), str(records)[:3000]
        return
    assert len(records) == len(expected), str(records)[:3000]
    for entry, pattern in zip(records, expected, strict=True):
        assert isinstance(pattern, str)
        assert re.fullmatch(pattern, entry["message"], re.DOTALL), entry["message"][:3000]


def test_nasty_calls_leave_nothing_on_stdout_or_stderr(outcome: dict[str, Any]):
    done = outcome["done"]
    assert (done.code, done.err) == (0, "")
    assert set(json.loads(done.out)) == {"odd_types", "no_record"}  # all others could be read


# -- at odd times ---------------------------------------------------------------------------------


@pytest.fixture
def tree(state_dir: str, stream_name: str, server_url: str) -> dict[str, Any]:
    return settings(state_dir, stream_name, server_url)


def path(tree: dict[str, Any]) -> str:
    return f"{tree['state_dir']}/app.log"


STORM = """
import signal, threading
from stress.checker import message
counts = {"main": 0, "signal": 0}
inside = False
def on_signal(number, frame):
    global inside
    if inside:  # it interrupts itself: nobody could tell which record is the first
        return
    inside = True
    log.info("%s", message("r", "signal", counts["signal"], 40 + counts["signal"] % 400))
    counts["signal"] += 1
    inside = False
signal.signal(signal.SIGALRM, on_signal)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.00023)
while counts["signal"] < 3000 or counts["main"] < 3000:
    log.info("%s", message("r", "main", counts["main"], 60))
    counts["main"] += 1
signal.setitimer(signal.ITIMER_REAL, 0)
"""


def test_signal_handlers_that_log_lose_double_tear_and_disorder_nothing(
    run_python: Run, tree: dict[str, Any]
):
    tree["producer"]["spool_max_bytes"] = "64 MiB"
    done = run_python(
        CONFIGURED + STORM + "print(json.dumps([counts, handle.stats()['lost'], handle.handler.errors]))",
        json.dumps(tree),
    )
    counts, lost, errors = json.loads(done.out)
    assert (done.err, sum(lost.values()), errors) == ("", 0, 0)
    report = check([path(tree)], counts, "r")
    assert report.ok, report


CTRL_C = """
import signal
class Stop(KeyboardInterrupt): pass
def interrupt(number, frame): raise Stop
signal.signal(signal.SIGALRM, interrupt)
returned, interrupted, n = [], 0, 0
if sys.argv[2] == "warm":
    log.info("n 0")
while interrupted < 600:
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.00002 + (n % 97) * 0.000003)
        while True:
            n += 1
            log.info("n %d %s", n, "x" * 300)
            returned.append(n)
    except Stop:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0)
log.info("n %d last", n + 1)
print(json.dumps([returned + [n + 1], handle.stats()["lost"]]))
"""


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("start", ["warm", "cold"])
def test_ctrl_c_in_mid_emit_reaches_the_application_and_breaks_nothing(
    run_python: Run, tree: dict[str, Any], start: str
):
    """Every record whose call returned is there, in order; an interrupted one is there once or not at all."""
    tree["producer"] |= {"spool_max_bytes": "2 MiB", "on_full": "block", "block_timeout": 20}  # many segments
    done = run_python(CONFIGURED + CTRL_C, json.dumps(tree), start)
    returned, lost = json.loads(done.out)
    assert done.err == ""
    found = [int(text.split()[1]) for text in messages(path(tree)) if text.startswith("n ")]
    assert found == sorted(set(found))
    assert set(returned) <= set(found), (len(returned), len(found), lost)


def test_records_from_exit_hooks_and_after_shutdown_arrive(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        "import atexit, logging\natexit.register(lambda: logging.getLogger('app').info('earliest hook'))\n"
        + CONFIGURED
        + """
import atexit
atexit.register(lambda: log.info("hook"))
log.info("before")
logging.shutdown()
log.info("after shutdown")
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("", "")
    wanted = ["before", "after shutdown", "hook", "earliest hook"]
    assert arrived(path(tree), wanted[-1]) == wanted


def test_records_from_del_at_interpreter_teardown_arrive(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
class Last:
    def __init__(self, text): self.text = text
    def __del__(self, log=log): log.info("%s", self.text)
keep = Last("global")
cycle = [Last("cycle")]
cycle.append(cycle)
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("", "")
    arrived(path(tree), "global", "cycle")


def test_threads_that_outlive_the_main_thread_log_on(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + """
import threading, time
def late():
    threading.main_thread().join()
    log.info("main is gone")
threading.Thread(target=late).start()
""",
        json.dumps(tree),
    )
    assert (done.out, done.err) == ("", "")
    assert messages(path(tree)) == ["main is gone"]


@pytest.mark.usefixtures("uncovered")
def test_forked_children_log_as_producers_of_their_own(run_python: Run, tree: dict[str, Any]):
    """From a thread, from a signal handler, from a child of a child, and with os._exit."""
    done = run_python(
        CONFIGURED
        + """
import signal, threading
from stress.checker import message
def talk(who, n=200):
    for i in range(n): log.info("%s", message("r", who, i))
def fork(who, ending):
    pid = os.fork()
    if pid: return os.waitpid(pid, 0)[1]
    talk(who)
    if who == "child0" and os.fork() == 0:
        talk("grandchild"); os._exit(0)
    ending(0)
talker = threading.Thread(target=talk, args=("thread", 3000))
talker.start()
for i, ending in enumerate([os._exit, sys.exit, os._exit]):
    assert fork(f"child{i}", ending) == 0
signal.signal(signal.SIGUSR1, lambda *_: fork("from signal", os._exit))
signal.raise_signal(signal.SIGUSR1)
talker.join()
talk("parent")
""".replace("from signal", "fromsignal"),
        json.dumps(tree),
    )
    assert done.err == ""
    expected = {"thread": 3000, "child0": 200, "child1": 200, "child2": 200, "grandchild": 200}
    expected |= {"fromsignal": 200, "parent": 200}
    wait_until(lambda: len(messages(path(tree))) >= sum(expected.values()))
    report = check([path(tree)], expected, "r")
    assert report.ok, report


def test_process_killed_right_after_a_call_has_returned_loses_nothing(run_python: Run, tree: dict[str, Any]):
    done = run_python(
        CONFIGURED
        + "for i in range(50): log.info('%d', i)\nimport signal; os.kill(os.getpid(), signal.SIGKILL)",
        json.dumps(tree),
        check=False,
    )
    assert done.code == -9
    assert arrived(path(tree), "49") == [str(i) for i in range(50)]
