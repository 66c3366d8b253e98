"""Many records → lines: what `formatting` does for one record, for a whole reading at once. Pure.

A function is generated for each format. What a format shows of a plain record is, but for time, message and the like,
the same for everything that one logging call of one process has logged: these parts are rendered once, and the
function puts the rest between them. It takes a quarter of the time (0.3 us instead of 1.2 for a usual format), and the
lines are the same. Whatever is not plain, or fails, is rendered by `formatting`, one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias, cast

from redislogkit import formatting, json_lines
from redislogkit.config import FormatterConfig
from redislogkit.escaping import Multiline, apply_multiline
from redislogkit.formatting import Field, Parsed
from redislogkit.record import Facts, Loss, Record, encode_site, encode_thread, thread_of
from redislogkit.redaction import Redactor
from redislogkit.rendering import Formatter, nanoseconds, timestamp, timestamps_of

#: Record or loss, the facts of its producer, its sequence.
Numbered: TypeAlias = tuple[Record | Loss, Facts, int]
#: Renders what a reading brings: one text for each item, with the end of its line. Never raises ``Exception``.
Renderer: TypeAlias = Callable[[Sequence[Numbered]], list[str]]

#: Processes for which parts are kept.
_MOST_KNOWN: Final = 256
_MILLISECONDS: Final = tuple(f",{number:03d}" for number in range(1001))

#: What differs from record to record, by how generated code gets it: r record, f facts, q sequence, t time,
#: low and second the present second as number and as text.
_CHANGING: Final[Mapping[str, str]] = {
    "created": "t",
    "message": "r.message",
    "msecs": "int((t - low) * 1000) + 0.0",
    "msg": "r.message",
    "relativeCreated": "(t - f.started) * 1000",
    "sequence": "q",
    "thread": "thread_of(r.by)[0]",
    "threadName": "thread_of(r.by)[1]",
}


class _Plan(NamedTuple):
    """A format as constant parts with expressions between them."""

    parts: list[str]
    """Expressions, of what `formatting.EXPRESSIONS` are about, that are evaluated once for each site and process.

    They give one text more than there are expressions in ``between``.
    """
    between: list[str]
    """Expressions for each record."""
    begin_second: Callable[[float], tuple[float, float, str]]
    """Time → first moment for which the text of the second holds, first one for which it does not, and this text."""
    names: dict[str, Any]
    """What the expressions call."""
    finish: Callable[[str], str] | None = None
    """What is done to a line."""


def build(config: FormatterConfig, multiline: Multiline) -> Renderer:
    """Return the renderer of a writer into a file. Raises ``ConfigError`` for a format that is none."""
    one_by_one = _one_by_one(formatting.build(config), multiline)
    parsed = formatting.parse(config)
    redactor = formatting.redactor_of(config)
    if config.type == "json":
        plan = _json_plan(config, redactor)
    elif parsed is None:
        return lambda items: [one_by_one(*item) for item in items]
    else:
        plan = _text_plan(parsed, config)
        plan = plan._replace(finish=redactor.text if redactor else None)
    if multiline != "keep":
        finish = plan.finish or str
        plan = plan._replace(finish=lambda text: apply_multiline(finish(text), multiline))
    return _generate(plan, one_by_one)


def _one_by_one(formatter: Formatter, multiline: Multiline) -> Callable[[Record | Loss, Facts, int], str]:
    def render(item: Record | Loss, facts: Facts, sequence: int) -> str:
        record = formatting.loss_record(item, facts) if isinstance(item, Loss) else item
        return apply_multiline(formatter(record, facts, sequence), multiline) + "\n"

    return render


# --- plans -------------------------------------------------------------------------------------------------


def _text_plan(parsed: Parsed, config: FormatterConfig) -> _Plan:
    rfc3339 = config.datefmt == formatting.RFC3339
    asctime = "second" if config.datefmt else "second + ms[int((t - low) * 1000)]"
    if rfc3339:
        asctime = _MICROSECONDS
    changing = {**_CHANGING, "asctime": asctime}
    as_it_is = "%s" if parsed.operator == "%" else "{0}"
    known = [name for name in config.optional_fields if name in formatting.EXPRESSIONS]
    *fields, end = parsed.fields
    fields += [end._replace(spec=""), *(Field(f" - {name}: ", name, as_it_is) for name in known)]
    groups: list[list[Field]] = [[]]
    between: list[str] = []
    names: dict[str, Any] = {}
    for field in fields:
        value = changing.get(field.name) if field.spec else None
        if value is None:
            groups[-1].append(field)
            continue
        groups[-1].append(Field(field.literal, "", ""))
        groups.append([])
        if field.spec == as_it_is:
            between.append(value)
        else:
            name = f"spec{len(names)}"
            names[name] = field.spec if parsed.operator == "%" else field.spec.format
            between.append(f"{name} % ({value},)" if parsed.operator == "%" else f"{name}({value})")
    parts = [parsed._replace(fields=group).source() for group in groups]

    utc = bool(config.utc)

    def begin_second(moment: float) -> tuple[float, float, str]:
        low = _second_of(moment)
        return low, low + 1, formatting.show_second(low, config.datefmt, utc=utc)

    return _Plan(parts, between, _begin_rounded(utc=utc) if rfc3339 else begin_second, names)


#: How generated code shows a time of RFC 3339: the second is a format of its microseconds.
_MICROSECONDS: Final = "second % round((t - low) * 1000000)"
#: What stands where a record's own parts will, in the line from which those are cut that stay.
_MARK: Final = "\ue000\ufdd0redislogkit\ufdd1{}\ue001"
_MARKED_THREAD: Final = -7_203_685_477_580_123
_MARKED_TIME: Final = 1_000_000_007.123456


def _json_plan(config: FormatterConfig, redactor: Redactor | None) -> _Plan:
    """The parts are cut out of a line that `json_lines` has made, of a record with marks in place of what changes."""
    render = formatting.build(config)
    message, thread_name = _MARK.format("message"), _MARK.format("thread")
    by = encode_thread(_MARKED_THREAD, thread_name)
    otel = config.layout == "otel"
    utc = config.utc is not False
    show_time: Callable[[float], Any] = nanoseconds if otel else partial(timestamp, utc=utc)
    value: Callable[[object], object] = redactor.value if redactor else lambda it: it

    def as_json(it: object) -> str:
        return json_lines.encode_json(value(it)).decode()

    marks = {
        str(show_time(_MARKED_TIME)): "nanoseconds(t)" if otel else _MICROSECONDS,
        f'"{message}"': "js(r.message)",
        str(_MARKED_THREAD): "js(thread_of(r.by)[0])",
        f'"{thread_name}"': "js(thread_of(r.by)[1])",
    }

    def cut(record: Record, facts: Facts) -> list[str]:
        text = render(Record(_MARKED_TIME, message, record.site, by), facts, 0)
        parts = []
        for mark in order:
            part, found, text = text.partition(mark)
            if not found or mark in text:
                raise ValueError(mark)  # changed by a rule of ``redact``, or there twice
            parts.append(part)
        return [*parts, text]

    sample = render(Record(_MARKED_TIME, message, encode_site(0, "", "", "", 0, ""), by), _NOBODY, 0)
    order = sorted(marks, key=sample.find)
    names = {"js": as_json, "cut": cut, "nanoseconds": nanoseconds}
    between = [marks[mark] for mark in order]
    return _Plan(["*cut(r, f)"], between, _begin_rounded(utc=utc), names, json_lines.escape_breaks)


_NOBODY: Final = Facts("", "", 0, "", 0.0, 0)


def _begin_rounded(*, utc: bool) -> Callable[[float], tuple[float, float, str]]:
    """As a plan's ``begin_second`` for times with microseconds."""

    def begin_second(moment: float) -> tuple[float, float, str]:
        low = _second_of(moment)
        if moment >= low + _ROUNDED_UP:
            raise ValueError(moment)
        return low, low + _ROUNDED_UP, timestamps_of(low, utc=utc)

    return begin_second


#: From this part of a second on, its microseconds are those of the next one.
_ROUNDED_UP: Final = 0.9999995


def _second_of(moment: float) -> float:
    if moment < 0:  # there, the stdlib's milliseconds count the other way
        raise ValueError(moment)
    return moment // 1


# --- code --------------------------------------------------------------------------------------------------

_SOURCE: Final = """
def prepare(r, f):
    o = x = nothing
    return ({parts},)

def render(items):
    lines = []
    add = lines.append
    facts = None
    low = high = 0.0
    for r, f, q in items:
        if r.__class__ is not Record:
            add(one_by_one(r, f, q))
            continue
        try:
            if f is not facts:
                known = known_of(f)
                facts = f
            parts = known.get(r.site)
            if parts is None:
                parts = known[r.site] = prepare(r, f)
            {names}, = parts
            t = r.created
            if not low <= t < high:
                low, high, second = begin_second(t)
            add({line})
        except Exception:
            add(one_by_one(r, f, q))
    return lines
"""


def _generate(plan: _Plan, one_by_one: Callable[[Record | Loss, Facts, int], str]) -> Renderer:
    """Compile the function. Text of the configuration enters the source only by ``repr``, so that it stays data."""
    names = [f"p{index}" for index in range(len(plan.between) + 1)]
    pieces = [names[0]]
    for name, expression in zip(names[1:], plan.between, strict=True):
        pieces += [expression, name]
    line = "".join(f"{{{piece}}}" for piece in pieces)
    source = _SOURCE.format(
        parts=", ".join(plan.parts),
        names=", ".join(names),
        line=f'finish(f"{line}") + "\\n"' if plan.finish else f'f"{line}\\n"',
    )
    namespace: dict[str, Any] = {
        **formatting.FUNCTIONS,
        **plan.names,
        "Record": Record,
        "begin_second": plan.begin_second,
        "finish": plan.finish,
        "known_of": _known_of(),
        "ms": _MILLISECONDS,
        "nothing": {},
        "one_by_one": one_by_one,
        "thread_of": thread_of,
    }
    exec(source, namespace)  # noqa: S102 - the source is ours, see above
    return cast("Renderer", namespace["render"])


def _known_of() -> Callable[[Facts], dict[bytes, tuple[str, ...]]]:
    """Return the look-up of the parts of one process: site → parts."""
    processes: dict[Facts, dict[bytes, tuple[str, ...]]] = {}

    def known_of(facts: Facts) -> dict[bytes, tuple[str, ...]]:
        known = processes.get(facts)
        if known is None or len(known) > _MOST_KNOWN * 16:
            if len(processes) >= _MOST_KNOWN:
                processes.clear()
            known = processes[facts] = {}
        return known

    return known_of
