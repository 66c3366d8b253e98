"""The supervisor's status and the stream's overview → families of metrics. Pure.

Counters are those of the supervisor, which goes on counting when a child is started again; they begin at zero with the
supervisor, whose start is ``redislogkit_start_time_seconds``. What is not known is left out and never 0: a gap in a
graph is true, a fall to zero is not.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from redislogkit.spool.header import CAUSES
from redislogkit.stream.client import Overview

Status = Mapping[str, Any]
Samples = Iterable[tuple[Sequence[str], float | None]]

#: Of a writer: key of the status, name, what it says.
_WRITER_COUNTERS: Final = (
    ("written", "records_written", "Records that the writer has written, notices of losses included."),
    ("bytes", "written_bytes", "Bytes that the writer has written."),
    (
        "rejected",
        "records_rejected",
        "Records that a writer of your own has refused; they are in its dead-letter file.",
    ),
    ("rotations", "rotations", "Rotations of the writer's file."),
)
#: Of the shipper.
_SHIPPER_GAUGES: Final = (
    ("producers", "producers", "Living producers on this host."),
    ("spools", "spools", "Spools on this host, those of dead producers included."),
    ("outstanding", "spools_outstanding", "Spools with records that are not safe yet."),
    ("spool_bytes", "spool_bytes", "Bytes that the spools of this host take on the disk."),
)


def families(status: Status | None, stream: Overview | None, version: str) -> Iterator[Metric]:
    """Yield every family. ``status`` is None where the supervisor does not answer, ``stream`` where redis does not."""
    yield _info(version)
    yield _gauge("up", "1 when the supervisor answers.", float(status is not None))
    yield _gauge("redis_up", "1 when redis answers.", float(stream is not None))
    if status is not None:
        yield from _of_supervisor(status)
        yield from _of_children(status["children"])
        yield from _of_shipper(status)
        yield from _of_writers([each for each in status["children"] if each["kind"] == "writer"])
    if stream is not None:
        yield from _of_stream(stream)


def _info(version: str) -> Metric:
    family = InfoMetricFamily("redislogkit_build", "Version of redislogkit, and of the Python that runs it.")
    family.add_metric((), {"version": version, "python": platform.python_version()})
    return family


def _of_supervisor(status: Status) -> Iterator[Metric]:
    yield _gauge(
        "start_time_seconds", "When the supervisor was started, seconds since the epoch.", status["since"]
    )
    yield _gauge(
        "config_loaded_timestamp_seconds",
        "When the configuration in force was loaded, seconds since the epoch.",
        status.get("config_loaded"),
    )
    yield _gauge(
        "config_reload_ok", "0 when the newest reload was refused.", float(not status.get("config_error"))
    )


def _of_children(children: Sequence[Status]) -> Iterator[Metric]:
    labels = ("child", "kind")
    each = [((child["name"], child["kind"]), child) for child in children]
    yield _family(
        GaugeMetricFamily,
        "child_up",
        "1 when the child runs.",
        labels,
        ((key, float(child["state"] == "running")) for key, child in each),
    )
    yield _family(
        GaugeMetricFamily,
        "child_set_aside",
        "1 when the child has failed too often, and is tried again at a slow pace.",
        labels,
        ((key, float(child["state"] == "set aside")) for key, child in each),
    )
    yield _family(
        CounterMetricFamily,
        "child_restarts",
        "How often the child was started again.",
        labels,
        ((key, child.get("restarts")) for key, child in each),
    )


def _of_shipper(status: Status) -> Iterator[Metric]:
    shipper: Status = next((child for child in status["children"] if child["kind"] == "shipper"), {})
    dropped: Mapping[str, int] = status.get("dropped") or {}
    shipped = shipper.get("shipped")
    if shipped is not None:  # from the beginning on: `increase()` does not see how a series begins
        dropped = {**dict.fromkeys(CAUSES, 0), **dropped}
    emitted = None if shipped is None else shipped + sum(dropped.values())
    yield _counter(
        "records_emitted", "Records that have left the spools of this host: shipped or dropped.", emitted
    )
    yield _counter(
        "records_shipped",
        "Records that this host has put into the stream, notices of losses included.",
        shipped,
    )
    yield _family(
        CounterMetricFamily,
        "records_dropped",
        "Records of this host that were dropped, by cause.",
        ("cause",),
        (((cause,), number) for cause, number in dropped.items()),
    )
    for key, name, text in _SHIPPER_GAUGES:
        yield _gauge(name, text, shipper.get(key))


def _of_writers(writers: Sequence[Status]) -> Iterator[Metric]:
    for key, name, text in _WRITER_COUNTERS:
        samples = (((writer["name"],), writer.get(key)) for writer in writers)
        yield _family(CounterMetricFamily, name, text, ("writer",), samples)
    yield _family(
        GaugeMetricFamily,
        "last_write_timestamp_seconds",
        "When the writer has written last, seconds since the epoch.",
        ("writer",),
        (((writer["name"],), writer.get("last_write")) for writer in writers),
    )
    yield _family(
        CounterMetricFamily,
        "records_skipped",
        "Records that a writer of terminals has not shown, by cause.",
        ("writer", "cause"),
        (
            ((writer["name"], cause), number)
            for writer in writers
            for cause, number in (writer.get("skipped") or {}).items()
        ),
    )
    latency = HistogramMetricFamily(
        "redislogkit_latency_seconds",
        "Age of the newest record of each reading when it was written.",
        labels=("writer",),
    )
    for writer in writers:
        if found := writer.get("latency"):
            buckets = [(str(float(le)), float(number)) for le, number in found["buckets"]]
            latency.add_metric((writer["name"],), [*buckets, ("+Inf", float(found["count"]))], found["sum"])
    yield latency


def _of_stream(stream: Overview) -> Iterator[Metric]:
    yield _gauge(
        "stream_entries", "Entries in the stream now; each carries many records.", float(stream.entries)
    )
    yield _counter(
        "stream_overflow",
        "Records that were dropped from a full stream without writers.",
        float(stream.overflow),
    )
    for name, text, value in (
        ("lag_records", "Records in the stream that the writer has not written.", stream.behind),
        (
            "lag_seconds",
            "From the newest entry that the writer has written to the newest one in the stream.",
            stream.lag,
        ),
        (
            "oldest_unread_seconds",
            "Age of the oldest entry that the writer has not written; 0 for none.",
            stream.oldest_unread,
        ),
    ):
        samples = [((group,), float(value(group))) for group in stream.writers]
        yield _family(GaugeMetricFamily, name, text, ("group",), samples)


def _gauge(name: str, text: str, value: float | None) -> Metric:
    return _family(GaugeMetricFamily, name, text, (), [((), value)])


def _counter(name: str, text: str, value: float | None) -> Metric:
    return _family(CounterMetricFamily, name, text, (), [((), value)])


def _family(kind: Any, name: str, text: str, labels: Sequence[str], samples: Samples) -> Metric:
    family: Metric = kind(f"redislogkit_{name}", text, labels=labels)
    for key, value in samples:
        if value is not None:
            family.add_metric(key, value)  # type: ignore[attr-defined]
    return family
