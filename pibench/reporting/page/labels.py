"""Labels beside points that do not cover points or each other: greedy, in a fixed order, so always the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pibench.reporting.page.canvas import Anchor, Canvas, Words, words_width

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Label:
    """Words that belong to a point."""

    x: float
    y: float
    text: str
    bold: bool = False
    role: str = "ink"


def _box(x: float, y: float, text: str, anchor: Anchor, size: float) -> Box:
    width = words_width(text, size)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - size * 0.85, left + width, y + size * 0.25


def _overlap(a: Box, b: Box) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _outside(box: Box, bounds: Box) -> float:
    out = max(0.0, bounds[0] - box[0]) + max(0.0, box[2] - bounds[2])
    return out + max(0.0, bounds[1] - box[1]) + max(0.0, box[3] - bounds[3])


def _places(label: Label, size: float, above: bool) -> list[tuple[float, float, Anchor]]:
    gap, x, y = 13.0 if label.bold else 9.0, label.x, label.y  # the headline's network wears a ring
    near: list[tuple[float, float, Anchor]] = [
        (x + gap, y + size * 0.35, "start"), (x - gap, y + size * 0.35, "end"),
        (x, y - gap, "middle"), (x, y + gap + size * 0.7, "middle"),
        (x + gap * 0.7, y - gap * 0.8, "start"), (x - gap * 0.7, y - gap * 0.8, "end"),
        (x + gap * 0.7, y + gap + size * 0.4, "start"), (x - gap * 0.7, y + gap + size * 0.4, "end"),
    ]  # fmt: skip
    return [near[5], near[6], *near] if above else near


def place(
    canvas: Canvas,
    labels: Sequence[Label],
    bounds: Box,
    *,
    size: float = 11.0,
    above: bool = False,
    obstacles: Sequence[tuple[float, float]] = (),
) -> None:
    """Write labels at the place that covers least; a label that would cover much is left to the point's tooltip.

    `above`: first try above to the left, then below to the right, out of the way of a staircase.
    `obstacles`: marks without a label. Words that stand there already are kept clear of.
    """
    marks = [*((label.x, label.y) for label in labels), *obstacles]
    taken = [(x - 6, y - 6, x + 6, y + 6) for x, y in marks]
    taken += [_box(w.x, w.y, w.text, w.anchor, w.size) for w in canvas.items if isinstance(w, Words)]
    for label in labels:
        best: tuple[float, tuple[float, float, Anchor], Box] | None = None
        for order, spot in enumerate(_places(label, size, above)):
            box = _box(spot[0], spot[1], label.text, spot[2], size)
            cost = sum(_overlap(box, other) for other in taken) + 40.0 * _outside(box, bounds) + order * 2.0
            if best is None or cost < best[0]:
                best = (cost, spot, box)
        if best is None or best[0] > size * 12.0:
            continue
        x, y, anchor = best[1]
        canvas.text(x, y, label.text, size=size, anchor=anchor, role=label.role, bold=label.bold, halo=True)
        taken.append(best[2])
