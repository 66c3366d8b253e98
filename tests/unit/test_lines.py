"""What is rendered at once equals what is rendered one by one."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from redislogkit import formatting, lines
from redislogkit.config import FormatterConfig
from redislogkit.errors import ConfigError
from redislogkit.escaping import apply_multiline
from redislogkit.lines import Numbered
from redislogkit.record import Loss, Record
from tests.helpers.formats import (
    CREATED,
    EXTRAS,
    FACTS,
    datefmts,
    log_records,
    make_log_record,
    set_created,
    styles_and_formats,
    through_the_stream,
)

OTHER = replace(FACTS, producer="beef", pid=7, process_name="Worker-1", host="web2")
modes = st.sampled_from(["keep", "keep", "escape", "indent"])
rules = st.sampled_from([(), (), ("password", "a"), (r"\d+",), ("message", r"\w"), ("credit-card", "bearer")])


def one_by_one(config: FormatterConfig, mode, items: list[Numbered]) -> list[str]:
    formatter = formatting.build(config)
    return [
        apply_multiline(
            formatter(
                formatting.loss_record(item, facts) if isinstance(item, Loss) else item, facts, sequence
            ),
            mode,
        )
        + "\n"
        for item, facts, sequence in items
    ]


@st.composite
def readings(draw: st.DrawFn) -> list[Numbered]:
    records = draw(st.lists(log_records(plain=True) | log_records(), min_size=1, max_size=4))
    items: list[Record | Loss] = [through_the_stream(record) for record in records]
    items += draw(st.lists(st.just(Loss(3, 4, "shed", CREATED)), max_size=1))
    return [
        (item, draw(st.sampled_from([FACTS, OTHER])), draw(st.integers(1, 99)))
        for item in [*items, *items[:2]]  # the second time, the parts are known
    ]


@pytest.mark.usefixtures("untraced")
@settings(max_examples=150, deadline=None)
@given(
    style_and_format=styles_and_formats,
    datefmt=datefmts | st.just("rfc3339"),
    optional=st.lists(st.sampled_from([*EXTRAS, "lineno", "threadName", "missing"]), max_size=3),
    mode=modes,
    redact=rules,
    utc=st.booleans(),
    items=readings(),
)
def test_lines_rendered_at_once_equal_those_rendered_one_by_one(
    style_and_format, datefmt, optional, mode, redact, utc, items
):
    style, fmt = style_and_format
    try:
        config = FormatterConfig(
            format=fmt, style=style, datefmt=datefmt, optional_fields=tuple(optional), redact=redact, utc=utc
        )
        render = lines.build(config, mode)
    except ConfigError:
        return
    assert render(items) == one_by_one(config, mode, items)


@pytest.mark.usefixtures("untraced")
@settings(max_examples=60, deadline=None)
@given(
    items=readings(),
    mode=modes,
    layout=st.sampled_from(["plain", "plain", "ecs", "otel"]),
    redact=rules,
    utc=st.sampled_from([None, True, False]),
)
def test_json_rendered_at_once_equals_json_rendered_one_by_one(items, mode, layout, redact, utc):
    fields = {"service.name": "shop", "user": 7} if utc else {}
    config = FormatterConfig(type="json", layout=layout, redact=redact, utc=utc, fields=fields)
    rendered = lines.build(config, mode)(items)
    assert rendered == one_by_one(config, mode, items)
    for line in rendered:
        assert line.count("\n") == 1
        json.loads(line)


@pytest.mark.parametrize(
    "settings", [{}, {"datefmt": "rfc3339"}, {"type": "json"}, {"type": "json", "layout": "otel"}]
)
@pytest.mark.parametrize("created", [0.0, -0.5, 0.9999999, 1.9999995, 4e9 + 0.9999998, 2.5e11, -6e10])
def test_the_edges_of_a_second_are_those_of_the_stdlib(settings, created):
    record = make_log_record()
    set_created(record, created)
    carried = through_the_stream(record)
    config = FormatterConfig(**settings)
    items: list[Numbered] = [(carried, FACTS, 1), (carried, FACTS, 2)]
    assert lines.build(config, "keep")(items) == one_by_one(config, "keep", items)


@pytest.mark.usefixtures("untraced")
def test_names_made_up_at_run_time_do_not_fill_the_memory():
    render = lines.build(FormatterConfig(format="%(name)s"), "keep")
    kept = render.__globals__["known_of"].__closure__
    for number in range(20_000):
        record = logging.LogRecord(f"n{number}", 20, "p", number, "m", None, None)
        record.process, record.processName = FACTS.pid, FACTS.process_name
        facts = replace(FACTS, pid=number % 700)
        render([(through_the_stream(record), facts, 1)])
    processes = next(cell.cell_contents for cell in kept if isinstance(cell.cell_contents, dict))
    assert sum(map(len, processes.values())) < 6000
