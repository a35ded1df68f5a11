"""Labels beside points that cover neither points nor each other: greedy, in a fixed order, so always the same.

A label that finds no room at its point stands farther off, with a line that leads to the point.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pibench.reporting.page.canvas import Anchor, Canvas, Shape, Words, words_width

Box = tuple[float, float, float, float]  # left, top, right, bottom
Spot = tuple[float, float, Anchor]
MARK = 6.0  # half a mark's side, with air
WIDER = 1.1  # than estimated: fonts differ from reader to reader
RINGS = (20.0, 30.0, 42.0, 56.0, 72.0, 90.0, 112.0, 140.0, 170.0, 200.0)  # pixels around a point
STEPS = 20  # directions
PASSES = 3
COVERS = 50.0  # what a square pixel of covering costs, in pixels of distance


@dataclass(frozen=True)
class Label:
    """Words that belong to a point."""

    x: float
    y: float
    text: str
    bold: bool = False
    role: str = "ink"


def words_box(words: Words) -> Box:
    """Return the rectangle (left, top, right, bottom in pixels) that a line of text covers, for the widest fonts."""
    return _box((words.x, words.y, words.anchor), words.text, words.size, words.bold)


def mark_box(shape: Shape) -> Box:
    """Return the rectangle that a mark covers."""
    xs, ys, r = [x for x, _ in shape.points], [y for _, y in shape.points], shape.radius
    return min(xs) - r, min(ys) - r, max(xs) + r, max(ys) + r


def overlap(a: Box, b: Box) -> float:
    """Return the area that two rectangles share, in square pixels."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _box(spot: Spot, text: str, size: float, bold: bool) -> Box:
    x, y, anchor = spot
    width = words_width(text, size) * (WIDER * 1.05 if bold else WIDER)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - size * 0.85, left + width, y + size * 0.25


def _outside(box: Box, bounds: Box) -> float:
    out = max(0.0, bounds[0] - box[0]) + max(0.0, box[2] - bounds[2])
    return out + max(0.0, bounds[1] - box[1]) + max(0.0, box[3] - bounds[3])


def _near(label: Label, size: float, above: bool) -> list[Spot]:
    gap, x, y = 13.0 if label.bold else 9.0, label.x, label.y  # the headline's network wears a ring
    near: list[Spot] = [
        (x + gap, y + size * 0.35, "start"), (x - gap, y + size * 0.35, "end"),
        (x, y - gap - 1.0, "middle"), (x, y + gap + size * 0.7, "middle"),
        (x + gap * 0.7, y - gap * 0.8, "start"), (x - gap * 0.7, y - gap * 0.8, "end"),
        (x + gap * 0.7, y + gap + size * 0.4, "start"), (x - gap * 0.7, y + gap + size * 0.4, "end"),
    ]  # fmt: skip
    return [near[5], near[6], *near] if above else near


def _far(label: Label, size: float) -> Iterator[tuple[float, Spot]]:
    """Yield places farther and farther away, each with its distance."""
    for radius in RINGS:
        for step in range(STEPS):
            angle = 2 * math.pi * (step + 0.5) / STEPS
            x, y = label.x + radius * math.cos(angle), label.y + radius * math.sin(angle)
            yield radius, (x, y + size * 0.35, "start" if math.cos(angle) > 0 else "end")


def place(
    canvas: Canvas,
    labels: Sequence[Label],
    bounds: Box,
    *,
    size: float = 11.0,
    above: bool = False,
    obstacles: Sequence[tuple[float, float]] = (),
) -> None:
    """Write labels at the place that covers least, near their points if there is room; all of them are written.

    `above`: first try above to the left, then below to the right, out of the way of a staircase.
    `obstacles`: marks without a label. Marks and words that stand there already are kept clear of.
    """
    marks = [*((label.x, label.y) for label in labels), *obstacles]
    taken = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in marks]
    taken += [mark_box(item) for item in canvas.items if isinstance(item, Shape) and item.tip and item.closed]
    taken += [words_box(item) for item in canvas.items if isinstance(item, Words)]
    ordered = sorted(labels, key=lambda label: not label.bold)
    spots: dict[Label, tuple[float, Spot]] = {}
    for _ in range(PASSES):  # again: a place that was free at first may be better taken by another one
        for label in ordered:
            placed = [(other, there) for other, (_, there) in spots.items() if other != label]
            others = [_box(there, other.text, size, other.bold) for other, there in placed]
            spots[label] = _best(label, size, above, bounds, [*taken, *others])
    for label, (radius, (x, y, anchor)) in spots.items():
        if radius:
            (x1, y1), (x2, y2) = _leader(label, (x, y, anchor), size)
            canvas.line(x1, y1, x2, y2, "k-waiting")
    for label, (_, (x, y, anchor)) in spots.items():
        canvas.text(x, y, label.text, size=size, anchor=anchor, role=label.role, bold=label.bold, halo=True)


def _best(label: Label, size: float, above: bool, bounds: Box, taken: Sequence[Box]) -> tuple[float, Spot]:
    """Return the cheapest place of a label, and how far off it is (0: at its point)."""
    spots = [(2.0 * order, 0.0, spot) for order, spot in enumerate(_near(label, size, above))]
    spots += [(20.0 + radius, radius, spot) for radius, spot in _far(label, size)]
    best, found = math.inf, spots[0]
    for option in spots:
        price, away, there = option
        if price >= best:
            break  # prices rise
        cost = price + _covering(label, there, away > 0, size, bounds, taken)
        if cost < best:
            best, found = cost, option
    return found[1], found[2]


def _covering(label: Label, spot: Spot, led: bool, size: float, bounds: Box, taken: Sequence[Box]) -> float:
    """Return what a label costs that covers others, leaves the plot, or whose line runs through others."""
    box = _box(spot, label.text, size, label.bold)
    covered = COVERS * (sum(overlap(box, other) for other in taken) + 10.0 * _outside(box, bounds))
    if covered or not led:
        return covered
    line = _leader(label, spot, size)
    return 30.0 * sum(_crosses(line, other) for other in taken)


def _leader(label: Label, spot: Spot, size: float) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the line from a mark's edge to a label that stands off."""
    end = (spot[0] + (-2.0 if spot[2] == "start" else 2.0), spot[1] - size * 0.35)
    far = math.hypot(end[0] - label.x, end[1] - label.y) or 1.0
    share = min(MARK / far, 1.0)
    return (label.x + (end[0] - label.x) * share, label.y + (end[1] - label.y) * share), end


def _crosses(line: tuple[tuple[float, float], tuple[float, float]], box: Box) -> bool:
    """Whether a line runs through a rectangle, looked at in twelve points of it."""
    (x1, y1), (x2, y2) = line
    points = ((x1 + (x2 - x1) * k / 11, y1 + (y2 - y1) * k / 11) for k in range(1, 12))
    return any(box[0] < x < box[2] and box[1] < y < box[3] for x, y in points)
