"""The comparison as a drawing: a bar for each contender's rate, a whisker for its spread. Pure; no dependency.

Text and axis take the colour of the page that the drawing stands on, as far as that says whether it is light or dark.
"""

from __future__ import annotations

import math
from typing import Final
from xml.sax.saxutils import escape, quoteattr

from stress.bench.contenders.entry import FAST, OWN
from stress.bench.figures import Spread
from stress.bench.results import Results, Standing

_WIDTH: Final = 860
_LEFT: Final = 280
_RIGHT: Final = 150
_TOP: Final = 58
_ROW: Final = 30
_BAR: Final = 16
_BOTTOM: Final = 34
_MOST_TICKS: Final = 8
_NAMESPACE: Final = "http://www.w3.org/2000/svg"
_EXPLANATION: Final = (
    "rate into the files against a FileHandler with a file of its own for each process; median and spread"
)

_STYLE: Final = """\
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #59636e }
.title { font-size: 15px; font-weight: 600 }
.axis { stroke: #d1d9e0 } .one { stroke: #59636e; stroke-dasharray: 4 3 }
.bar { fill: #9aa4af } .own { fill: #1a7f64 } text.loss { fill: #b3331d }
.whisker { stroke: #1f2328; stroke-width: 1.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 }
  .axis { stroke: #3d444d } .one { stroke: #9198a1 }
  .bar { fill: #656c76 } .own { fill: #3fb68f } text.loss { fill: #f08a76 }
  .whisker { stroke: #e6edf3 }
}"""


def draw(results: Results) -> str:
    """Return the drawing of the contenders that were measured."""
    bars = _rates(results)
    height = _TOP + _ROW * len(bars) + _BOTTOM
    most = max((rate.high for _, rate in bars), default=1.0)
    step = _step(most)
    scale = (_WIDTH - _LEFT - _RIGHT) / (step * math.ceil(most / step))
    parts = [
        _element("style", _STYLE),
        _text(
            16, 26, f"{results.shape.producers} processes, one destination: higher is better", kind="title"
        ),
        _text(16, 45, _EXPLANATION, kind="small"),
        *_axis(step, most, scale, height - _BOTTOM),
    ]
    for number, (standing, rate) in enumerate(bars):
        parts += _bar(standing, rate, scale, _TOP + _ROW * (number + 0.5))
    box = f"0 0 {_WIDTH} {height}"
    return _element("svg", "\n" + "\n".join(parts) + "\n", xmlns=_NAMESPACE, viewBox=box, role="img") + "\n"


def _rates(results: Results) -> list[tuple[Standing, Spread]]:
    yardstick = results.yardstick
    if yardstick is None:
        return []
    return [
        (standing, standing.against(yardstick, lambda run: run.rate))
        for standing in results.standings
        if len(standing.runs) == len(yardstick.runs)
    ]


def _step(most: float) -> float:
    """Return the distance of two ticks of the axis."""
    return next((step for step in (0.1, 0.25, 0.5, 1.0, 2.0) if most / step <= _MOST_TICKS), 5.0)


def _axis(step: float, most: float, scale: float, bottom: float) -> list[str]:
    parts = []
    for tick in range(math.ceil(most / step) + 1):
        x = _LEFT + tick * step * scale
        parts.append(_line(x, _TOP, x, bottom, "one" if tick * step == 1 else "axis"))
        parts.append(_text(x, bottom + 18, f"{tick * step:g}", kind="small", anchor="middle"))
    return parts


def _bar(standing: Standing, rate: Spread, scale: float, middle: float) -> list[str]:
    kind = "own" if standing.name in (OWN, FAST) else "bar"
    end = _LEFT + rate.high * scale
    bar = {"x": f"{_LEFT}", "y": f"{middle - _BAR / 2:.1f}", "width": f"{rate.median * scale:.1f}"}
    remark = ", loses lines" if standing.findings().lost else ""
    return [
        _text(_LEFT - 10, middle + 4, standing.title, anchor="end"),
        _element("rect", "", **{"class": kind}, **bar, height=f"{_BAR}", rx="2"),
        _line(_LEFT + rate.low * scale, middle, end, middle, "whisker"),
        _text(end + 8, middle + 4, f"{rate.median:.2f}{remark}", kind="loss" if remark else ""),
    ]


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    places = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    return _element("line", "", **{"class": kind}, **{name: f"{place:.1f}" for name, place in places.items()})


def _text(x: float, y: float, text: str, *, kind: str = "", anchor: str = "start") -> str:
    place = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    return _element("text", escape(text), **{"class": kind}, **place)


def _element(name: str, content: str, **attributes: str) -> str:
    words = "".join(f" {key}={quoteattr(value)}" for key, value in attributes.items() if value)
    return f"<{name}{words}>{content}</{name}>"
