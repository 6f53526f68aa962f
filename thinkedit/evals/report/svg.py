"""Small charts as inline SVG. Colours are CSS classes, so that a chart follows the page's theme."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 42, 10, 10, 24

Scale = Callable[[float], float]


@dataclass(frozen=True, slots=True)
class Series:
    """One line: points (x, y), NaN or None left out; `css` names its colour class."""

    name: str
    x: Sequence[float]
    y: Sequence[float | None]
    css: str = "c-accent"
    low: Sequence[float] = field(default_factory=tuple)  # of an interval around each point, if known
    high: Sequence[float] = field(default_factory=tuple)

    def points(self) -> list[tuple[float, float]]:
        return [(x, y) for x, y in zip(self.x, self.y, strict=True) if y is not None and math.isfinite(y)]


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers that cover [low, high]."""
    if high <= low:  # a flat line: room on both sides
        low, high = low - (abs(low) or 1.0) / 2, high + (abs(high) or 1.0) / 2
    raw = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float | None, digits: int = 2) -> str:
    """A short number for people: 0.83, 12.4, 3.1e-5, or a dash."""
    if value is None or not math.isfinite(value):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    if value and abs(value) < 10**-digits / 2:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{min(digits, 1)}f}" if abs(value) >= 20 else f"{value:.{digits}f}"


def line_chart(
    series: Sequence[Series],
    *,
    low: float | None = None,
    high: float | None = None,
    log: bool = False,
    limit: float | None = None,
    limit_label: str = "",
    x_label: str = "step",
    integer_x: bool = False,
    smooth: bool = False,
    width: int = WIDTH,
    height: int = HEIGHT,
) -> Markup:
    """Lines over a common x, with hover values.

    Args:
        low, high: fixed ends of the y axis; else from the data.
        log: logarithmic y; points at or below zero are left out.
        limit: a dashed horizontal line, such as an alarm threshold.
        smooth: draw the raw line faint and an exponential average (span of a tenth) on top.
    """
    lines = [s.points() for s in series]
    if log:
        lines = [[(x, y) for x, y in points if y > 0] for points in lines]
    if not any(lines):
        return Markup('<p class="none">not recorded</p>')
    xs = [x for points in lines for x, _ in points]
    ys = [y for points in lines for _, y in points]
    for s in series:
        ys += [v for v in (*s.low, *s.high) if math.isfinite(v) and (v > 0 or not log)]
    if limit is not None:
        ys.append(limit)
    y_of, y_ticks = _scale(min(ys) if low is None else low, max(ys) if high is None else high, log, height)
    x_low, x_high = min(xs), max(xs)
    span = (x_high - x_low) or 1.0
    x_ticks = sorted({round(x) for x in xs}) if integer_x else ticks(x_low, x_high)

    def x_of(x: float) -> float:
        return LEFT + (x - x_low) / span * (width - LEFT - RIGHT)

    parts = [
        f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y_of(t):.1f}" y2="{y_of(t):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y_of(t) + 3.5:.1f}" text-anchor="end">{_tick(t, log)}</text>'
        for t in y_ticks
    ]
    parts += [
        f'<text class="tick" x="{x_of(t):.1f}" y="{height - 7}" text-anchor="middle">{t:g}</text>'
        for t in x_ticks
        if x_low <= t <= x_high
    ]
    if limit is not None:
        y = y_of(limit)
        parts.append(f'<line class="limit" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick limit-label" x="{width - RIGHT}" y="{y - 4:.1f}" text-anchor="end">'
            f"{Markup.escape(limit_label)}</text>"
        )
    for s, points in zip(series, lines, strict=True):
        if not points:
            continue
        for x, a, b in zip(s.x, s.low, s.high, strict=False):
            parts.append(
                f'<line class="whisker {s.css}" x1="{x_of(x):.1f}" x2="{x_of(x):.1f}" '
                f'y1="{y_of(a):.1f}" y2="{y_of(b):.1f}"/>'
            )
        faint = smooth and len(points) >= 12
        parts.append(_polyline(points, x_of, y_of, f"line {s.css}" + (" faint" if faint else "")))
        if faint:
            parts.append(_polyline(_average(points), x_of, y_of, f"line {s.css}"))
        if len(points) <= 8:
            parts += [
                f'<circle class="dot {s.css}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3"/>'
                for x, y in points
            ]
    hover = {
        "x": sorted(set(xs)),
        "left": LEFT,
        "right": width - RIGHT,
        "label": x_label,
        "series": [
            {"name": s.name, "css": s.css, "y": {f"{x:g}": number(y, 3) for x, y in points}}
            for s, points in zip(series, lines, strict=True)
            if points
        ],
    }
    names = ", ".join(s.name for s in series)
    return Markup(
        f'<svg class="chart" viewBox="0 0 {width} {height}" role="img" aria-label="{Markup.escape(names)}" '
        f'data-hover="{Markup.escape(json.dumps(hover))}">{"".join(parts)}'
        f'<line class="cursor" y1="{TOP}" y2="{height - BOTTOM}" x1="-9" x2="-9"/></svg>'
    )


def interval_bar(
    mean: float, low: float | None, high: float | None, css: str, *, top: float = 10.0, width: int = 220
) -> Markup:
    """A bar from 0 to `mean` with its interval as a whisker, on a scale up to `top`."""

    def x_of(value: float) -> float:
        return 1 + max(0.0, min(value, top)) / top * (width - 2)

    whisker = ""
    if low is not None and high is not None:
        whisker = (
            f'<line class="ci" x1="{x_of(low):.1f}" x2="{x_of(high):.1f}" y1="9" y2="9"/>'
            f'<line class="ci" x1="{x_of(low):.1f}" x2="{x_of(low):.1f}" y1="5.5" y2="12.5"/>'
            f'<line class="ci" x1="{x_of(high):.1f}" x2="{x_of(high):.1f}" y1="5.5" y2="12.5"/>'
        )
    return Markup(
        f'<svg class="bar" viewBox="0 0 {width} 18" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" x="0" y="4" width="{width}" height="10" rx="3"/>'
        f'<rect class="fill {css}" x="0" y="4" width="{x_of(mean):.1f}" height="10" rx="3"/>{whisker}</svg>'
    )


def _scale(low: float, high: float, log: bool, height: int) -> tuple[Scale, list[float]]:
    """A function from value to y, and the ticks of the axis."""
    if log:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        last = max(last, first + 1)
        every = max(1, (last - first) // 4)
        y_ticks = [10.0**i for i in range(first, last + 1, every)]
        a, b = float(first), float(last)
    else:
        y_ticks = ticks(low, high)
        a, b = y_ticks[0], y_ticks[-1]

    def y_of(value: float) -> float:
        position = math.log10(value) if log else value
        return TOP + (b - position) / (b - a) * (height - TOP - BOTTOM)

    return y_of, y_ticks


def _polyline(points: list[tuple[float, float]], x_of: Scale, y_of: Scale, css: str) -> str:
    path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
    return f'<polyline class="{css}" points="{path}"/>'


def _average(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    weight = 2 / (max(3, len(points) // 10) + 1)
    smoothed, mean = [], points[0][1]
    for x, y in points:
        mean += weight * (y - mean)
        smoothed.append((x, mean))
    return smoothed


def _tick(value: float, log: bool) -> str:
    return f"1e{round(math.log10(value))}" if log else f"{value:g}"
