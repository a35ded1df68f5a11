"""Colours, markers and type of every figure and of the page: one table, light and dark, contrast held by a test."""

from __future__ import annotations

# role -> (light, dark). Text roles reach 4.5:1 on paper, marks 3:1, in both.
COLOURS: dict[str, tuple[str, str]] = {
    "paper": ("#fdfcf9", "#15171c"),
    "panel": ("#f4f2ec", "#1d2027"),
    "ink": ("#1b1d22", "#ecebe6"),
    "muted": ("#565c68", "#a7adb8"),
    "rule": ("#d9d6cc", "#383d47"),
    "grid": ("#e7e4db", "#2a2e36"),
    "accent": ("#a33b12", "#f2956a"),
    "link": ("#1f5a99", "#86b6ec"),
    "good": ("#1d6b45", "#6cc79b"),
    "m-full": ("#1b1d22", "#ecebe6"),
    "m-deepreduce": ("#b4431f", "#f08c5e"),
    "m-deepreshape": ("#2263a8", "#7aaef0"),
    "m-snl": ("#0f7668", "#4fc3ae"),
    "m-senet": ("#8347a0", "#c9a0e2"),
    "m-coordinate": ("#4652b8", "#a3adf7"),
    "m-taylor": ("#3d7317", "#98cf62"),
    "m-pruning": ("#7d6614", "#cdbb5c"),
    "m-poly": ("#b12c68", "#f084b4"),
    "m-other": ("#5b6472", "#9aa3b2"),
    "k-linear": ("#2f6db3", "#5f9fe6"),
    "k-relu": ("#b4431f", "#f08c5e"),
    "k-truncation": ("#9a7408", "#d3b04a"),
    "k-other": ("#6b7280", "#8b93a1"),
    "k-waiting": ("#818fa1", "#6d7a8c"),
    "p-1": ("#b4431f", "#f08c5e"),
    "p-2": ("#2263a8", "#7aaef0"),
    "p-3": ("#0f7668", "#4fc3ae"),
    "p-4": ("#8347a0", "#c9a0e2"),
    "p-5": ("#7d6614", "#cdbb5c"),
    "paperwork": ("#565c68", "#a7adb8"),
}

MARKERS: dict[str, str] = {
    "full": "circle",
    "deepreduce": "square",
    "deepreshape": "triangle",
    "snl": "diamond",
    "senet": "hexagon",
    "coordinate": "left",
    "taylor": "right",
    "pruning": "down",
    "poly": "star",
}
METHOD_TITLES: dict[str, str] = {
    "full": "full network",
    "deepreduce": "DeepReDuce",
    "deepreshape": "DeepReShape",
    "snl": "SNL",
    "senet": "SENet",
    "coordinate": "coordinate descent",
    "taylor": "Taylor importance",
    "pruning": "channel pruning",
    "poly": "polynomial",
}
KIND_TITLES: dict[str, str] = {
    "linear": "linear",
    "relu": "ReLU",
    "truncation": "truncation",
    "other": "other",
    "waiting": "waiting (wire, peer)",
}
PROTOCOL_MARKERS = ("square", "circle", "triangle", "diamond", "hexagon")

SANS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
SERIF = "'Iowan Old Style', 'Palatino Linotype', Palatino, 'URW Palladio L', 'Book Antiqua', Georgia, serif"


def method_role(method: str) -> str:
    """Return the colour role of a method; those that are not known here share one."""
    return f"m-{method}" if method in MARKERS else "m-other"


def method_marker(method: str) -> str:
    """Return the marker of a method; those that are not known here share one."""
    return MARKERS.get(method, "pentagon")


def _variables(index: int) -> str:
    return "".join(f"--{role}:{pair[index]};" for role, pair in COLOURS.items())


def colour_css(selector: str = ":root") -> str:
    """Return the colours as CSS variables: light, dark where the reader prefers it, light again on paper."""
    light, dark = f"{selector}{{{_variables(0)}}}", f"{selector}{{{_variables(1)}}}"
    return f"{light}@media (prefers-color-scheme:dark){{{dark}}}@media print{{{light}}}"


def literal(role: str, *, white: bool = False) -> str:
    """Return a role's light colour as it is, for programs that know no CSS variables; `white`: a paper's ground."""
    return "#ffffff" if white and role == "paper" else COLOURS[role][0]


def dark_css(selector: str = "svg.fig") -> str:
    """Return the rules that turn the literal colours of a drawing that stands alone dark, where a reader prefers it."""
    rules = [f"{selector} .f-{role}{{fill:{pair[1]}}}{selector} .s-{role}{{stroke:{pair[1]}}}"
             for role, pair in COLOURS.items()]  # fmt: skip
    return f"@media (prefers-color-scheme:dark){{{''.join(rules)}}}"


def figure_css(selector: str = "svg.fig") -> str:
    """Return the classes that figures use, on top of the colour variables."""
    rules = [
        f"{selector} text{{fill:var(--ink);font-family:{SANS};font-variant-numeric:tabular-nums}}",
        f"{selector} .muted{{fill:var(--muted)}}",
        f"{selector} .bold{{font-weight:650}}",
        f"{selector} .halo{{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}}",
    ]
    return "".join(rules)
