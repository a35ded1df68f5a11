"""The same drawing as PNG or PDF: matplotlib paints a canvas, light colours, no dates, fonts embedded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pibench.errors import UsageError
from pibench.reporting.page.canvas import Canvas, Shape, Words
from pibench.reporting.page.theme import literal

SCALE = 2.0  # pixels of the picture for one of the drawing
_DPI = 100.0


def missing_extra(package: str) -> UsageError:
    """Return the error for a report without its optional packages."""
    return UsageError(
        f"{package} is not installed, and this needs it", remedy="install the extra: pip install 'pibench[report]'"
    )


def save_picture(canvas: Canvas, path: Path, *, white: bool = False) -> None:
    """Write a canvas as PNG or PDF, by the name's ending; `white`: on a paper's white ground, not the page's."""
    try:
        from matplotlib import rc_context
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib") from error
    figure = Figure(figsize=(canvas.width / _DPI, canvas.height / _DPI), dpi=_DPI * SCALE)
    figure.set_facecolor(literal("paper", white=white))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0.0, canvas.width)
    axes.set_ylim(canvas.height, 0.0)
    axes.set_axis_off()
    for order, item in enumerate(canvas.items):
        if isinstance(item, Words):
            _write(axes, item, order, white)
        else:
            _paint(axes, item, order, white)
    pdf = path.suffix == ".pdf"
    without = {"CreationDate": None, "Producer": None, "Creator": None} if pdf else {"Software": None}
    with rc_context({"pdf.fonttype": 42}):  # TrueType, embedded: what journals ask for
        figure.savefig(path, format=path.suffix[1:], metadata=without)


def _points(pixels: float) -> float:
    return pixels * 72.0 / _DPI


def _paint(axes: Any, shape: Shape, order: int, white: bool) -> None:
    from matplotlib.patches import Circle, PathPatch
    from matplotlib.path import Path as Outline

    style: dict[str, Any] = {
        "facecolor": literal(shape.fill, white=white) if shape.fill else "none",
        "edgecolor": literal(shape.stroke, white=white) if shape.stroke else "none",
        "linewidth": _points(shape.width) if shape.stroke else 0.0, "alpha": shape.opacity, "zorder": order,
    }  # fmt: skip
    if shape.dash:
        style["linestyle"] = (0, tuple(part / max(shape.width, 0.1) for part in shape.dash))
    if shape.radius:
        axes.add_patch(Circle(shape.points[0], shape.radius, **style))
        return
    points = [*shape.points, shape.points[0]] if shape.closed else list(shape.points)
    axes.add_patch(PathPatch(Outline(points, closed=shape.closed), **style))


def _write(axes: Any, words: Words, order: int, white: bool) -> None:
    from matplotlib import patheffects

    paper = literal("paper", white=white)
    effects = [patheffects.withStroke(linewidth=_points(3.0), foreground=paper)] if words.halo else []
    axes.text(
        words.x, words.y, words.text.replace("$", r"\$"), fontsize=_points(words.size * 0.94), zorder=order,
        color=literal(words.role), ha={"start": "left", "middle": "center", "end": "right"}[words.anchor],
        va="baseline", fontweight="bold" if words.bold else "normal", path_effects=effects, family="DejaVu Sans",
    )  # fmt: skip
