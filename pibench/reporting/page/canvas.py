"""A drawing of lines, marks and words in pixels, written as SVG (theme-aware, byte-identical) or handed to a raster.

Figures draw once; colours are roles of theme.py, so that one SVG serves light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from html import escape
from typing import Literal

from pibench.reporting.page.theme import COLOURS, dark_css, literal

Point = tuple[float, float]
Anchor = Literal["start", "middle", "end"]
POINTS = 0.72  # of a pixel in print: labels of 11 pixels are set in 8 points
SANS_LITERAL = "Helvetica, Arial, 'DejaVu Sans', sans-serif"


@dataclass(frozen=True)
class Shape:
    """A closed or open path through points, filled, stroked or both."""

    points: tuple[Point, ...]
    fill: str | None = None
    stroke: str | None = None
    width: float = 1.0
    dash: tuple[float, ...] = ()
    opacity: float = 1.0
    closed: bool = False
    radius: float = 0.0  # > 0: a circle around the single point
    tip: str = ""


@dataclass(frozen=True)
class Words:
    """A line of text at its baseline."""

    x: float
    y: float
    text: str
    size: float = 12.0
    anchor: Anchor = "start"
    role: str = "ink"
    bold: bool = False
    halo: bool = False


@dataclass
class Canvas:
    """Shapes and words in drawing order, y downwards."""

    width: float
    height: float
    items: list[Shape | Words] = field(default_factory=list)

    def line(
        self, x1: float, y1: float, x2: float, y2: float, role: str, width: float = 1.0, dash: tuple[float, ...] = ()
    ) -> None:
        """Draw a straight line."""
        self.items.append(Shape(((x1, y1), (x2, y2)), stroke=role, width=width, dash=dash))

    def path(
        self, points: Sequence[Point], role: str, width: float = 1.5, dash: tuple[float, ...] = (), opacity: float = 1.0
    ) -> None:
        """Draw an open path."""
        self.items.append(Shape(tuple(points), stroke=role, width=width, dash=dash, opacity=opacity))

    def area(self, points: Sequence[Point], role: str, opacity: float = 0.15, tip: str = "") -> None:
        """Fill a closed path."""
        self.items.append(Shape(tuple(points), fill=role, opacity=opacity, closed=True, tip=tip))

    def rect(self, x: float, y: float, w: float, h: float, role: str, *, opacity: float = 1.0, tip: str = "") -> None:
        """Fill a rectangle."""
        self.area(((x, y), (x + w, y), (x + w, y + h), (x, y + h)), role, opacity, tip)

    def mark(
        self, x: float, y: float, shape: str, role: str, *, size: float = 5.0, hollow: bool = False, tip: str = ""
    ) -> None:
        """Draw a marker; hollow ones are somebody else's figures or predictions."""
        outline = role if hollow else "paper"
        fill = "paper" if hollow else role
        points = ((x, y),) if shape == "circle" else _marker(x, y, shape, size)
        radius = size if shape == "circle" else 0.0
        self.items.append(
            Shape(points, fill=fill, stroke=outline, width=1.6 if hollow else 1.0, closed=True, radius=radius, tip=tip)
        )

    def text(
        self, x: float, y: float, text: str, *, size: float = 12.0, anchor: Anchor = "start", role: str = "ink",
        bold: bool = False, halo: bool = False,
    ) -> None:  # fmt: skip
        """Write a line."""
        self.items.append(Words(x, y, text, size, anchor, role, bold, halo))

    def put(self, other: Canvas, dx: float, dy: float) -> None:
        """Draw another canvas at an offset."""
        for item in other.items:
            if isinstance(item, Words):
                self.items.append(replace(item, x=item.x + dx, y=item.y + dy))
            else:
                self.items.append(replace(item, points=tuple((x + dx, y + dy) for x, y in item.points)))

    def to_svg(self, key: str, title: str, description: str, *, standalone: bool, white: bool = False) -> str:
        """Return the SVG: inside a page it takes the page's colours.

        Standing alone its colours are literal attributes, which every program draws, and rules of its own turn it dark
        where a reader prefers that; `white` (for a paper) leaves those out.
        """
        size = f'viewBox="0 0 {_n(self.width)} {_n(self.height)}"'
        if standalone:
            size += f' width="{_n(self.width * POINTS)}pt" height="{_n(self.height * POINTS)}pt"' if white else (
                f' width="{_n(self.width)}" height="{_n(self.height)}"')  # fmt: skip
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="fig" {size} role="img" '
            f'aria-labelledby="{key}-t {key}-d"><title id="{key}-t">{escape(title)}</title>'
            f'<desc id="{key}-d">{escape(description)}</desc>'
        )
        if not standalone:
            return head + "".join(_svg(item, _Variables()) for item in self.items) + "</svg>"
        ink = _Literals(white)
        style = "" if white else f"<style>{dark_css()}</style>"
        ground = f'<rect width="{_n(self.width)}" height="{_n(self.height)}" {ink.fill("paper")}/>'
        return head + style + ground + "".join(_svg(item, ink) for item in self.items) + "</svg>"


class _Variables:
    """Colours as the variables of the page around a drawing."""

    def fill(self, role: str) -> str:
        return f'style="fill:var(--{role})"'

    def shape(self, shape: Shape) -> str:
        style = f"fill:{_variable(shape.fill)};stroke:{_variable(shape.stroke)}"
        return f'style="{style}{f";stroke-width:{_n(shape.width)}" if shape.stroke else ""}"'

    def words(self, words: Words) -> str:
        classes = [c for c, on in (("muted", words.role == "muted"), ("bold", words.bold), ("halo", words.halo)) if on]
        attributes = f' class="{" ".join(classes)}"' if classes else ""
        return attributes if words.role in {"ink", "muted"} else f"{attributes} {self.fill(words.role)}"


class _Literals:
    """Colours as attributes; their roles as classes, for the rules of a dark reader."""

    def __init__(self, white: bool) -> None:
        self._white = white

    def fill(self, role: str) -> str:
        return f'class="f-{role}" fill="{literal(role, white=self._white)}"'

    def shape(self, shape: Shape) -> str:
        roles = (("f", "fill", shape.fill), ("s", "stroke", shape.stroke))
        classes = " ".join(f"{letter}-{role}" for letter, _, role in roles if role)
        colours = " ".join(
            f'{name}="{literal(role, white=self._white) if role else "none"}"' for _, name, role in roles
        )
        width = f' stroke-width="{_n(shape.width)}"' if shape.stroke else ""
        return f'class="{classes}" {colours}{width}'

    def words(self, words: Words) -> str:
        halo = words.halo
        classes = f"f-{words.role}{' s-paper' if halo else ''}"
        text = f' class="{classes}" fill="{literal(words.role, white=self._white)}" font-family="{SANS_LITERAL}"'
        text += ' font-weight="bold"' if words.bold else ""
        if halo:
            paper = literal("paper", white=self._white)
            text += f' paint-order="stroke" stroke="{paper}" stroke-width="3" stroke-linejoin="round"'
        return text


def words_width(text: str, size: float = 12.0) -> float:
    """Estimate the width of a line in pixels: no font is at hand when a figure is laid out."""
    narrow = sum(character in "iljtf.,:;'|![]() 1" for character in text)
    wide = sum(character in "MWmw@%" for character in text)
    return size * (0.56 * len(text) - 0.22 * narrow + 0.26 * wide)


def wrapped(text: str, width: float, size: float) -> list[str]:
    """Break a text into lines of about a width."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and words_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def framed(drawing: Canvas, title: str, caption: str, margin: float = 18.0) -> Canvas:
    """Return a drawing that stands alone: with its title above and its caption below."""
    size, pitch = 11.0, 15.0
    lines = wrapped(caption, drawing.width * 0.96, size)
    whole = Canvas(drawing.width + 2 * margin, drawing.height + 2 * margin + 30 + 14 + pitch * len(lines))
    whole.text(margin, margin + 14, title, size=16, bold=True)
    whole.put(drawing, margin, margin + 32)
    for index, line in enumerate(lines):
        whole.text(margin, margin + 32 + drawing.height + 18 + pitch * index, line, size=size, role="muted")
    return whole


def _marker(x: float, y: float, shape: str, size: float) -> tuple[Point, ...]:
    """Corners of a marker of about the area of a circle of that radius."""
    if shape == "square":
        a = size * 0.88
        return ((x - a, y - a), (x + a, y - a), (x + a, y + a), (x - a, y + a))
    corners, turn, reach = {
        "triangle": (3, -90.0, 1.32), "down": (3, 90.0, 1.32), "diamond": (4, -90.0, 1.25), "hexagon": (6, 0.0, 1.1),
        "pentagon": (5, -90.0, 1.15), "star": (10, -90.0, 1.4), "left": (3, 180.0, 1.32),
        "right": (3, 0.0, 1.32),
    }.get(shape, (4, -90.0, 1.25))  # fmt: skip
    points = []
    for index in range(corners):
        radius = size * reach * (0.5 if shape == "star" and index % 2 else 1.0)
        angle = math.radians(turn + 360.0 * index / corners)
        points.append((x + radius * math.cos(angle), y + radius * math.sin(angle)))
    return tuple(points)


def _n(value: float) -> str:
    """Write a coordinate shortly, and the same way every time."""
    text = f"{value:.1f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _svg(item: Shape | Words, ink: _Variables | _Literals) -> str:
    return _svg_words(item, ink) if isinstance(item, Words) else _svg_shape(item, ink)


def _svg_words(words: Words, ink: _Variables | _Literals) -> str:
    anchor = f' text-anchor="{words.anchor}"' if words.anchor != "start" else ""
    return (
        f'<text x="{_n(words.x)}" y="{_n(words.y)}" font-size="{_n(words.size)}"{ink.words(words)}{anchor}>'
        f"{escape(words.text, quote=False)}</text>"
    )


def _svg_shape(shape: Shape, ink: _Variables | _Literals) -> str:
    extra = f' stroke-dasharray="{" ".join(map(_n, shape.dash))}"' if shape.dash else ""
    extra += f' opacity="{shape.opacity:g}"' if shape.opacity != 1.0 else ""
    if shape.radius:
        (x, y), tag = shape.points[0], "circle"
        where = f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(shape.radius)}"'
    else:
        tag = "path"
        where = 'd="M' + "L".join(f"{_n(x)} {_n(y)}" for x, y in shape.points) + ("Z" if shape.closed else "") + '"'
    if not shape.tip:
        return f"<{tag} {where} {ink.shape(shape)}{extra}/>"
    return f"<{tag} {where} {ink.shape(shape)}{extra}><title>{escape(shape.tip)}</title></{tag}>"


def _variable(role: str | None) -> str:
    if role is None:
        return "none"
    assert role in COLOURS, role
    return f"var(--{role})"
