"""Small drawings as inline SVG: colours come from the page's style, so that it has a dark side too.

A drawing library would bring megabytes of script, or pictures with colours of their own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Point = tuple[float, float]

STYLES = ("a", "b", "c", "d", "e", "f")
"""Classes with a colour each."""

_LINE_WIDTH, _LINE_HEIGHT = 132, 30
_SIDE, _EDGE, _NAME_ROOM = 300, 22, 14
_COLOURS = """<style>
svg { font: 11px sans-serif; background: #fff; }
.grid { stroke: #e3e3dd; } .tick { fill: #59626d; } .line { fill: none; stroke-width: 2; }
.a { stroke: #1d6fa5; } .b { stroke: #b4552d; } .c { stroke: #4d8a4a; }
.d { stroke: #7a5aa6; } .e { stroke: #8a8a8a; }
</style>"""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 230, 46, 12, 12, 34


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Attributes:
        name: for the legend.
        points: (x, y), in the order of x.
        style: its class: "a" (ours), "b" (what it is compared with), "c", or "mark", dashed.
        has_dots: whether each point is marked.
        margins: half the interval around each point; none are drawn when empty.
    """

    name: str
    points: Sequence[Point]
    style: str = "a"
    has_dots: bool = False
    margins: Sequence[float] = ()


@dataclass(frozen=True)
class Cluster:
    """Points of a scatter that belong together.

    Attributes:
        name: a character or two, written beside them.
        points: (x, y).
        centre: where they should lie.
        style: one of `STYLES`.
    """

    name: str
    points: Sequence[Point]
    centre: Point
    style: str


def sparkline(values: Sequence[float | None], label: str) -> Markup:
    """Draw a trend without axes; nothing where there are fewer than two values.

    Args:
        values: oldest first; None leaves a gap.
        label: what it shows, for who does not see it.
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    low, high = min(known), max(known)
    spread = (high - low) or 1.0
    width, height = _LINE_WIDTH - 8, _LINE_HEIGHT - 8
    points = [
        (4 + width * place / (len(values) - 1), _LINE_HEIGHT - 4 - height * (value - low) / spread)
        if high > low
        else (4 + width * place / (len(values) - 1), _LINE_HEIGHT / 2)
        for place, value in enumerate(values)
        if value is not None
    ]
    x, y = points[-1]
    return _svg(
        _LINE_WIDTH,
        _LINE_HEIGHT,
        "spark",
        label,
        [
            Markup('<polyline class="line a" points="{}"/>').format(_path(points)),
            Markup('<circle class="dot a" cx="{}" cy="{}" r="3"/>').format(_n(x), _n(y)),
        ],
    )


def bar(
    value: float,
    most: float,
    label: str,
    style: str = "a",
    interval: Sequence[float] | None = None,
) -> Markup:
    """Draw a bar of ``value`` out of ``most``, with the ends of an interval where it has one."""
    width, height = 160, 14
    scale = width / most if most > 0 else 0.0
    parts = [
        Markup('<rect class="track" x="0" y="3" width="{}" height="8" rx="2"/>').format(width),
        Markup('<rect class="fill {}" x="0" y="3" width="{}" height="8" rx="2"/>').format(
            style, _n(max(0.0, value * scale))
        ),
    ]
    if interval:
        low, high = (min(width - 1, end * scale) for end in interval)
        for x1, x2, y1, y2 in ((low, high, 7, 7), (low, low, 2, 12), (high, high, 2, 12)):
            parts.append(
                Markup('<line class="whisker" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                    _n(x1), _n(x2), y1, y2
                )
            )
    return _svg(width, height, "bar", label, parts)


def chart(
    series: Sequence[Series],
    label: str,
    *,
    x_name: str,
    y_format: Callable[[float], str],
    x_format: Callable[[float], str],
    mark: float | None = None,
    x_ticks: Sequence[float] = (),
) -> Markup:
    """Draw lines over two axes, y from 0 on, with a legend where there are several.

    Args:
        series: the lines.
        label: what the chart shows, for who does not see it.
        x_name: what the x axis counts.
        y_format: a value of y as text.
        x_format: a value of x as text.
        mark: an x that gets a vertical line.
        x_ticks: values of x to write below the axis; the first and the last when empty.
    """
    parts = _lines(series, x_name, x_format, y_format, mark, x_ticks)
    if not parts:
        return Markup("")
    drawing = _svg(_WIDTH, _HEIGHT, "chart", label, parts)
    return drawing + (_legend(series) if len(series) > 1 else Markup(""))


def scatter(clusters: Sequence[Cluster], extent: Sequence[Point], label: str) -> Markup:
    """Draw points without axes, each cluster in its colour, with a cross where it should lie.

    Args:
        clusters: what is drawn.
        extent: points that fill the drawing, so that several can have one scale.
        label: what it shows, for who does not see it.
    """
    (left, right), (low, high) = (
        (min(values), max(values)) for values in zip(*extent, strict=True)
    )
    scale = (_SIDE - 2 * _EDGE) / (max(right - left, high - low) or 1.0)

    def place(point: Point) -> Point:
        (x, y), middle = point, _SIDE / 2
        return middle + scale * (x - (left + right) / 2), middle - scale * (y - (low + high) / 2)

    parts = [Markup('<rect class="frame" width="{0}" height="{0}" rx="8"/>').format(_SIDE)]
    for one in clusters:
        parts += [
            Markup('<circle class="dot draw {}" cx="{}" cy="{}" r="3"/>').format(
                one.style, *map(_n, place(point))
            )
            for point in one.points
        ]
    named: list[Point] = []
    for one in clusters:
        cross = Markup('<path class="cross {}" d="M{} {}m-4 -4l8 8m0 -8l-8 8"/>')
        parts.append(cross.format(one.style, *map(_n, place(one.centre))))
        xs, ys = zip(*one.points, strict=True)
        x, y = place((sum(xs) / len(xs), sum(ys) / len(ys)))
        if all(math.hypot(x - a, y - b) > _NAME_ROOM for a, b in named):  # else unreadable
            named.append((x, y))
            name = Markup('<text class="name" x="{}" y="{}" dx="7" dy="-5">{}</text>')
            parts.append(name.format(_n(x), _n(y), one.name))
    return _svg(_SIDE, _SIDE, "scatter", label, parts)


def picture(
    series: Sequence[Series],
    label: str,
    *,
    x_name: str,
    y_format: Callable[[float], str],
    x_format: Callable[[float], str],
) -> str:
    """Draw the same as a file of its own, with colours and a legend; styles may be a to e."""
    parts = _lines(series, x_name, x_format, y_format)
    for nth, one in enumerate(series):
        y = _HEIGHT + 14 + 16 * nth
        parts.append(
            Markup(
                '<line class="line {0}" x1="{1}" x2="{2}" y1="{3}" y2="{3}"/>'
                '<text class="tick" x="{4}" y="{5}">{6}</text>'
            ).format(one.style, _LEFT, _LEFT + 20, y, _LEFT + 28, y + 4, one.name)
        )
    height = _HEIGHT + 10 + 16 * len(series)
    drawing = _svg(_WIDTH, height, "chart", label, [Markup(_COLOURS), *parts])  # noqa: S704 - ours
    return str(drawing).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1) + "\n"


def _lines(
    series: Sequence[Series],
    x_name: str,
    x_format: Callable[[float], str],
    y_format: Callable[[float], str],
    mark: float | None = None,
    x_ticks: Sequence[float] = (),
) -> list[Markup]:
    """Return axes and lines; nothing where there is no point."""
    points = [point for one in series for point in one.points]
    if not points:
        return []
    xs, ys = [x for x, _ in points], [y for _, y in points]
    ys += [y + half for one in series for (_, y), half in zip(one.points, one.margins)]  # noqa: B905 - margins may be empty
    step = _step(max(ys))
    place = _Scale(min(xs), max(xs), step, max(1, math.ceil(max(ys) / step - 1e-9)))
    parts = _axes(place, x_name, x_format, y_format, x_ticks)
    if mark is not None:
        parts.append(
            Markup('<line class="mark" x1="{0}" x2="{0}" y1="{1}" y2="{2}"/>').format(
                _n(place.x(mark)), _TOP, _HEIGHT - _BOTTOM
            )
        )
    for one in series:
        drawn = [(place.x(x), place.y(y)) for x, y in one.points]
        parts.append(
            Markup('<polyline class="line {}" points="{}"/>').format(one.style, _path(drawn))
        )
        for (x, y), half in zip(one.points, one.margins):  # noqa: B905 - as above
            parts.append(
                Markup('<line class="interval {0}" x1="{1}" x2="{1}" y1="{2}" y2="{3}"/>').format(
                    one.style, _n(place.x(x)), _n(place.y(max(0, y - half))), _n(place.y(y + half))
                )
            )
        if one.has_dots:
            parts += [
                Markup('<circle class="dot {}" cx="{}" cy="{}" r="2.5"/>').format(
                    one.style, _n(x), _n(y)
                )
                for x, y in drawn
            ]
    return parts


def _axes(
    place: _Scale,
    x_name: str,
    x_format: Callable[[float], str],
    y_format: Callable[[float], str],
    x_ticks: Sequence[float],
) -> list[Markup]:
    parts = []
    for y in place.ticks():
        at = place.y(y)
        parts.append(
            Markup(
                '<line class="grid" x1="{0}" x2="{1}" y1="{2}" y2="{2}"/>'
                '<text class="tick" x="{3}" y="{4}" text-anchor="end">{5}</text>'
            ).format(_LEFT, _WIDTH - _RIGHT, _n(at), _LEFT - 7, _n(at + 4), y_format(y))
        )
    ends = ((place.x_low, "start"), (place.x_high, "end"))
    for x, anchor in [(tick, "middle") for tick in x_ticks] or ends:
        parts.append(
            Markup('<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                _n(place.x(x)), _HEIGHT - 16, anchor, x_format(x)
            )
        )
    parts.append(
        Markup('<text class="tick" x="{}" y="{}" text-anchor="middle">{}</text>').format(
            _n((_LEFT + _WIDTH - _RIGHT) / 2), _HEIGHT - 3, x_name
        )
    )
    return parts


@dataclass(frozen=True)
class _Scale:
    x_low: float
    x_high: float
    step: float
    steps: int

    def x(self, value: float) -> float:
        spread = (self.x_high - self.x_low) or 1.0
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (value - self.x_low) / spread

    def y(self, value: float) -> float:
        height = _HEIGHT - _TOP - _BOTTOM
        return _HEIGHT - _BOTTOM - height * value / (self.step * self.steps)

    def ticks(self) -> list[float]:
        return [self.step * number for number in range(self.steps + 1)]


def _step(most: float) -> float:
    """Return the least of 1, 2, 5, 10, 20 ... of which five reach from 0 to ``most``."""
    if most <= 0:
        return 1.0
    size = 10.0 ** math.floor(math.log10(most / 5))
    return next(size * part for part in (1, 2, 5, 10) if size * part * 5 >= most * (1 - 1e-9))


def _legend(series: Sequence[Series]) -> Markup:
    entries = [
        Markup('<li><span class="key {}"></span>{}</li>').format(one.style, one.name)
        for one in series
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("").join(entries))


def _svg(width: int, height: int, kind: str, label: str, parts: Sequence[Markup]) -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        kind, width, height, escape(label), Markup("").join(parts)
    )


def _path(points: Sequence[Point]) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in points)


def _n(value: float) -> str:
    """Return a coordinate in few characters."""
    return f"{value:.1f}".rstrip("0").rstrip(".")
