"""The answer in words: what a ReLU budget buys in a record, computed from it, with its interval and its fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pibench.mpc.spec import is_private, order
from pibench.numbers import percent, seconds, short, size, times
from pibench.reporting.cells import NOISY, Cell, Ladder
from pibench.reporting.view import View

WITHIN_POINTS = 1.0


@dataclass(frozen=True)
class Answer:
    """The first screen of a report."""

    ladder: Ladder
    headline: str
    sentences: tuple[str, ...]
    chosen: Cell | None  # fastest network within one point of the full one


def main_ladder(ladders: Sequence[Ladder], protocol: str | None = None, link: str | None = None) -> Ladder | None:
    """Return the ladder that the report is about: the asked one, else private, at least three budgets, fastest kind."""
    asked = [
        ladder
        for ladder in ladders
        if protocol in (None, ladder.setting.protocol) and link in (None, ladder.setting.link)
    ]

    def rank(ladder: Ladder) -> tuple[float, ...]:
        setting = ladder.setting
        budgets = len({c.relu_count for c in ladder.cells})
        labelled, place, _ = order(setting.protocol)
        scored = sum(c.score is not None for c in ladder.cells)
        local = not ladder.cells[0].rtt_ms
        return (
            not is_private(setting.protocol), budgets < 3, place, labelled, not local, setting.batch, -scored, -budgets,
        )  # fmt: skip

    return min(asked, key=rank, default=None)


def fastest_within(ladder: Ladder, points: float = WITHIN_POINTS) -> Cell | None:
    """Return the fastest network at most `points` below the most accurate trained one; None where none is trained."""
    best = ladder.best
    if best is None or best.score is None:
        return None
    floor = best.score.percent - points - 1e-9
    near = [c for c in ladder.cells if c.score and c.score.percent >= floor]
    return min(near, key=lambda c: c.online_s, default=None)


def where(ladder: Ladder) -> str:
    """Return protocol and link in words."""
    return f"{ladder.setting.protocol} over {ladder.setting.link}"


def answer(view: View, ladder: Ladder) -> Answer:
    """Return the answer for one ladder."""
    chosen, best = fastest_within(ladder), ladder.best
    if chosen is not None and best is not None and chosen is not best and not apart(best, chosen):
        chosen = best  # what cannot be told from the most accurate one is not ringed as faster
    sentences = [_price_sentence(ladder), _choice_sentence(ladder, chosen), _wire_sentence(ladder)]
    sentences.append(_others_sentence(view, ladder))
    return Answer(ladder, _headline(ladder), tuple(s for s in sentences if s), chosen)


def _headline(ladder: Ladder) -> str:
    if ladder.explains:
        return f"1,000 ReLUs cost {seconds(ladder.fit.slope_s)}"
    if len({c.relu_count for c in ladder.cells}) < 3:
        return _two(ladder)
    if ladder.noisy:
        return "Too noisy here to price a ReLU"
    if ladder.close:
        firm = ladder.fit.slope_interval[0] > 0
        return f"1,000 ReLUs cost roughly {seconds(ladder.fit.slope_s)}" if firm else "No firm price of a ReLU here"
    if ladder.joint and ladder.joint.firm and ladder.joint.r2 >= 0.9:
        return f"1,000 ReLUs cost {seconds(ladder.joint.relu_s)}, and are not what decides here"
    return "The ReLU count does not decide latency here" if ladder.unrelated else "No firm price of a ReLU here"


def _two(ladder: Ladder) -> str:
    """Say what one or two networks show: no line goes through them that could be wrong."""
    first, last = ladder.full, min(ladder.cells, key=lambda c: c.relu_count)
    if first.relu_count == last.relu_count or not first.relu_count:
        return f"{first.network}: {seconds(first.online_s)} online"
    if not apart(first, last):
        return f"Cannot tell {first.network} and {last.network} apart here"
    share, left = last.relu_count / first.relu_count, last.online_s / first.online_s
    return f"With {percent(share)} of the ReLUs, {percent(left)} of the time"


def apart(one: Cell, other: Cell) -> bool:
    """Whether two latencies can be told apart: their intervals do not overlap; those of one session say too little."""
    if one.online is None or other.online is None or min(one.online.n_sessions, other.online.n_sessions) < 2:
        return False
    return one.online.high < other.online.low or other.online.high < one.online.low


def _price_sentence(ladder: Ladder) -> str:
    fit, batch = ladder.fit, ladder.setting.batch
    setting = f"Online, {where(ladder)}" + (f", batch {batch}" if batch > 1 else "")
    if fit.n < 3:
        return _difference_sentence(ladder, setting)
    low, high = (seconds(v) for v in fit.slope_interval)
    if ladder.explains:
        base = f", on top of {seconds(fit.intercept_s)} for a network without any" if fit.intercept_s > 0 else ""
        return (
            f"{setting}: 95 % interval {low} to {high}; the ReLU count alone explains {percent(fit.r2)} of the "
            f"differences between {fit.n} networks{base}."
        )
    if ladder.close and not ladder.noisy:
        return (
            f"{setting}: the ReLU count explains {percent(fit.r2)} of the differences between {fit.n} networks, too "
            f"few or too noisy for a firm price: the 95 % interval is {low} to {high}."
        )
    if ladder.noisy:
        return (
            f"{setting}: half of the networks have intervals beyond ±{NOISY * 100:.0f} % of their median, so no price "
            "is quoted. Counted figures (bytes, rounds, accuracy) hold; more sessions would tell "
            "(`--precision 5%`)."
        )
    text = f"{setting}: a line through {fit.n} networks explains only {percent(max(fit.r2, 0.0))} of their differences."
    if not ladder.unrelated:
        text += " That may be chance: more networks or more sessions (`--precision 5%`) would tell."
    joint = ladder.joint
    if joint and joint.firm and joint.r2 >= 0.8:
        relu_low, relu_high = (seconds(v) for v in joint.relu_interval)
        mac_low, mac_high = (seconds(v) for v in joint.mmac_interval)
        text += (
            f" ReLUs and multiply-accumulates together explain {percent(joint.r2)}: 1,000 ReLUs cost "
            f"{seconds(joint.relu_s)} (95 % interval {relu_low} to {relu_high}), a million multiply-accumulates "
            f"{seconds(joint.mmac_s)} ({mac_low} to {mac_high})."
        )
    return text


def _difference_sentence(ladder: Ladder, setting: str) -> str:
    """Say what the difference between two networks comes to; one network has none."""
    first, last = ladder.full, min(ladder.cells, key=lambda c: c.relu_count)
    fewer, saved = first.relu_count - last.relu_count, first.online_s - last.online_s
    if fewer <= 0 or saved <= 0:
        return f"{setting}: too few networks for a price of a ReLU."
    price = 1e3 * saved / (fewer * ladder.setting.batch)
    return (
        f"{setting}: {last.network} has {fewer:,} ReLUs fewer than {first.network} and takes {seconds(saved)} less, "
        f"{seconds(price)} for 1,000. Two networks make no line: other differences are in it."
    )


def _choice_sentence(ladder: Ladder, chosen: Cell | None) -> str:
    best = ladder.best
    if best is None or best.score is None or chosen is None or chosen.score is None:
        return "No network of this record is trained, so nothing is said about what a budget buys."
    base = f"{best.network} ({best.score.percent:.1f} % of {best.score.n:,} images, {seconds(best.online_s)})"
    if len(ladder.cells) == 1:
        return ""  # nothing to choose from
    if chosen is best:
        return f"Within {WITHIN_POINTS:g} point of {base}, the most accurate network here, none is firmly faster."
    ratio, share = best.online_s / chosen.online_s, chosen.relu_count / best.relu_count if best.relu_count else 0.0
    return (
        f"Within {WITHIN_POINTS:g} point of {base}, the fastest is {chosen.network}: {chosen.score.percent:.1f} %, "
        f"{seconds(chosen.online_s)}, {times(ratio)} faster with {percent(share)} of the ReLUs "
        f"({short(chosen.relu_count)})."
    )


def _wire_sentence(ladder: Ladder) -> str:
    """Say what goes over the wire: counted, so the same on any machine."""
    parts = [
        f"{size(c.sent_bytes)} a party and {c.rounds} rounds for {c.network}" for c in (ladder.full, ladder.cells[-1])
        if c.sent_bytes is not None and c.rounds is not None
    ]  # fmt: skip
    return f"On the wire: {', '.join(dict.fromkeys(parts))}." if parts else ""


def _others_sentence(view: View, ladder: Ladder) -> str:
    """Say what 1,000 ReLUs cost elsewhere in the same record."""
    parts = []
    for other in view.ladders():
        same = (other.setting.dataset, other.setting.batch, other.setting.device) == (
            ladder.setting.dataset, ladder.setting.batch, ladder.setting.device
        )  # fmt: skip
        if other.setting == ladder.setting or not same or not other.cells[0].private_protocol:
            continue
        if ladder.fit.n < 3 and other.fit.n > 1 and not other.noisy:
            parts.append(f"{percent(other.cells[-1].online_s / other.full.online_s)} with {where(other)}")
        elif ladder.fit.n >= 3 and other.explains:
            parts.append(f"{seconds(other.fit.slope_s)} with {where(other)}")
    if not parts:
        return _elsewhere(view, ladder)
    lead = "Elsewhere in this record, of the time:" if ladder.fit.n < 3 else "1,000 ReLUs elsewhere in this record:"
    return f"{lead} {'; '.join(parts[:6])}."


def _elsewhere(view: View, ladder: Ladder) -> str:
    """Say what the reference network takes in the other private settings."""
    here = ladder.full
    others = [
        c for c in view.cells
        if c.usable and c.private_protocol and c.network == here.network and c.setting != here.setting
        and c.batch == here.batch and c.device == here.device
    ]  # fmt: skip
    parts = [f"{seconds(c.online_s)} with {c.protocol} over {c.link}" for c in others]
    return f"{here.network} elsewhere in this record: {'; '.join(parts[:6])}." if parts else ""
