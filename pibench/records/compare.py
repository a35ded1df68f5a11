"""Two records compared: what differs around them first, then a verdict for each measure of each case.

Exact measures are judged by equality within their tolerance, on any machine. Statistical ones need all of: the same
machine key, an interval of the ratio wholly beyond the tolerance, and p below alpha after Holm over the whole
comparison. What a sample cannot see is said instead of "no change".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from pibench.records import power, stats
from pibench.records import warmup as samples
from pibench.records.measures import MEASURES, Measure, named
from pibench.records.pairs import log_ratios, paired_ratio
from pibench.records.record import Case, Record
from pibench.records.thresholds import Threshold, tolerance_of


class Verdict(StrEnum):
    """What is known about a measure after the comparison."""

    SAME = "same"
    WORSE = "regression"
    BETTER = "improvement"
    UNCLEAR = "unclear"  # the interval reaches over the threshold: more sessions would tell
    TOO_FEW = "too few sessions"  # no slowdown, whatever its size, could have been called one
    ELSEWHERE = "not comparable"  # another machine, thread count or link
    MISSING = "missing"  # in the base only
    NEW = "new"
    FAILED = "failed"  # did not run, or gave wrong answers


@dataclass(frozen=True)
class Difference:
    """Something around the numbers that is not the same in both records."""

    what: str
    base: str
    head: str
    forbids_time: bool = False  # times of the two are not comparable at all


@dataclass(frozen=True)
class Row:
    """One measure of one case. Exact measures have values only; statistical ones estimates, ratio and p too."""

    case: str
    measure: Measure
    verdict: Verdict
    base: float | None
    head: float | None
    tolerance: float
    base_estimate: stats.Estimate | None = None
    head_estimate: stats.Estimate | None = None
    ratio: stats.Estimate | None = None
    p: float | None = None
    p_holm: float | None = None
    notes: tuple[str, ...] = ()

    @property
    def change(self) -> float | None:
        """Relative change of the point (absolute for shares); None where either side has no value."""
        if self.base is None or self.head is None:
            return None
        if self.measure.unit == "share":
            return self.head - self.base
        if self.ratio is not None:
            return self.ratio.point - 1.0
        return self.head / self.base - 1.0 if self.base else (0.0 if self.head == self.base else None)


@dataclass(frozen=True)
class Comparison:
    """The outcome: `rows` in the order of the head's cases."""

    base_name: str
    head_name: str
    differences: tuple[Difference, ...]
    rows: tuple[Row, ...]
    paired: bool
    rule: power.Rule
    tests: int  # how many p-values Holm corrected for

    def of(self, *verdicts: Verdict) -> list[Row]:
        """Return the rows with one of these verdicts."""
        return [row for row in self.rows if row.verdict in verdicts]

    @property
    def regressed(self) -> bool:
        """Whether anything is worse; a failed case is, one that was not run is not known."""
        return bool(self.of(Verdict.WORSE, Verdict.FAILED))

    @property
    def incomplete(self) -> bool:
        """Whether the head lacks something that the base has: then it is not shown to be as good."""
        return bool(self.of(Verdict.MISSING))

    @property
    def changed(self) -> bool:
        """Whether anything is better or worse: where any change is to be looked at."""
        return self.regressed or bool(self.of(Verdict.BETTER))


@dataclass(frozen=True)
class Options:
    """How to compare."""

    measures: tuple[Measure, ...] = tuple(m for m in MEASURES.values() if m.gated)
    thresholds: tuple[Threshold, ...] = ()
    rule: power.Rule = field(default_factory=power.Rule)
    seed: int = 0
    paired: bool = False  # session i of both sides ran side by side
    judge_time: bool = True

    @classmethod
    def of(cls, names: Sequence[str] | None, thresholds: Iterable[Threshold] = (), **others: Any) -> Options:
        """Return options for measures by name; a threshold makes its measure one of those judged."""
        given = tuple(thresholds)
        asked = [MEASURES[threshold.measure] for threshold in given if names is None]
        return cls(tuple(dict.fromkeys([*named(names), *asked])), given, **others)


def compare(base: Record, head: Record, options: Options | None = None) -> Comparison:
    """Compare two records case by case (cases are matched by id)."""
    options = options or Options()
    around = differences(base, head)
    elsewhere = any(difference.forbids_time for difference in around)
    if elsewhere or not options.judge_time:
        options = replace(options, judge_time=False)
    bases, heads = ({case.id: case for case in record.cases} for record in (base, head))
    rows: list[Row] = []
    for case_id in [*heads, *(missing for missing in bases if missing not in heads)]:
        rows += _case_rows(case_id, bases.get(case_id), heads.get(case_id), options)
    judged, tests = _judge(rows, bases, heads, options)
    return Comparison(base.id, head.id, tuple(around), tuple(judged), options.paired, options.rule, tests)


def differences(base: Record, head: Record) -> list[Difference]:
    """Return what differs in machine, versions, suite, tree and links, machine first."""
    pairs: list[tuple[str, Any, Any, bool]] = [
        ("machine", base.machine.key, head.machine.key, True),
        ("cpu", base.machine.cpu, head.machine.cpu, True),
        ("cores", base.machine.cores, head.machine.cores, True),
        ("memory_bytes", base.machine.memory_bytes, head.machine.memory_bytes, False),
        ("os", base.machine.os, head.machine.os, False),
        ("governor", base.machine.governor, head.machine.governor, False),
        ("pibench", base.pibench_version, head.pibench_version, False),
    ]
    names = sorted({*base.versions, *head.versions})
    pairs += [(name, base.versions.get(name), head.versions.get(name), False) for name in names]
    pairs += [("suite", _short(base.suite.sha256), _short(head.suite.sha256), False)]
    pairs += [("commit", _commit(base), _commit(head), False)]
    found = [Difference(what, str(a), str(b), forbids) for what, a, b, forbids in pairs if a != b]
    return found + _case_differences(base, head)


def _case_differences(base: Record, head: Record) -> list[Difference]:
    found = []
    heads = {case.id: case for case in head.cases}
    for case in base.cases:
        other = heads.get(case.id)
        if other is None:
            continue
        for what, a, b in (
            ("card", _short(case.network.sha256), _short(other.network.sha256)),
            ("weights", _short(case.network.weights_sha256), _short(other.network.weights_sha256)),
            ("options", case.options, other.options),
            ("threads", case.threads, other.threads),
            ("link", case.link.nominal, other.link.nominal),
        ):
            if a != b:
                found.append(Difference(f"{what} of {case.id}", str(a), str(b)))
    return found


def _case_rows(case_id: str, base: Case | None, head: Case | None, options: Options) -> list[Row]:
    """Return the rows of one case, statistical ones still without verdict."""
    status = _status(base, head)
    if status is not None:
        verdict, note = status
        return [Row(case_id, options.measures[0], verdict, None, None, 0.0, notes=(note,) if note else ())]
    assert base is not None
    assert head is not None
    rows = []
    for measure in options.measures:
        tolerance, _ = tolerance_of(measure, head, options.thresholds)
        if not measure.samples(base) and not measure.samples(head):
            continue
        make = _exact if measure.exact else _timed
        rows.append(make(measure, base, head, tolerance, options))
    return rows


def _status(base: Case | None, head: Case | None) -> tuple[Verdict, str] | None:
    if head is None:
        return Verdict.MISSING, "in the base record only"
    if head.status in ("failed", "invalid"):
        return Verdict.FAILED, head.error or head.status
    if base is None or base.status != "done":
        return Verdict.NEW, "" if base is None else f"the base's run of it was {base.status}"
    if head.status != "done":
        return Verdict.MISSING, head.error or f"the head's run of it was {head.status}"
    return None


def _exact(measure: Measure, base: Case, head: Case, tolerance: float, options: Options) -> Row:
    before, after = measure.value(base), measure.value(head)
    notes = tuple(
        f"not the same in every inference of the {side}" for side, case in (("base", base), ("head", head))
        if measure.varies(case)
    )  # fmt: skip
    if before is None or after is None:
        missing = Verdict.NEW if before is None else Verdict.MISSING
        return Row(head.id, measure, missing, before, after, tolerance, notes=notes)
    room = tolerance if measure.unit == "share" else tolerance * abs(before)
    if measure.answers:
        one, other = measure.answers(base), measure.answers(head)
        if one.n != other.n:
            note = f"of {one.n:,} answers and of {other.n:,}: not the same images"
            return Row(head.id, measure, Verdict.ELSEWHERE, before, after, tolerance, notes=(*notes, note))
        room = max(room, (max(one.ties, other.ties) + 1) / one.n)  # one image on the edge is no regression
    verdict = Verdict.SAME
    if abs(after - before) > room + 1e-12 * abs(before):
        verdict = Verdict.WORSE if measure.worse(before, after) else Verdict.BETTER
    return Row(head.id, measure, verdict, before, after, tolerance, notes=notes)


def _timed(measure: Measure, base: Case, head: Case, tolerance: float, options: Options) -> Row:
    """Return a row with estimates and p; its verdict waits for Holm."""
    before, after, notes = _steady(measure, base, head, options.paired)
    seed, level = options.seed, options.rule.level
    if options.paired:
        ratio = paired_ratio(before, after, seed, level)
        test = stats.signed_rank_exact(list(log_ratios(before, after)))
    else:
        ratio = stats.ratio_of_medians(before, after, seed, level)
        test = stats.mann_whitney_exact(list(stats.session_medians(before)), list(stats.session_medians(after)))
    low, high = stats.median_interval(before, seed, level), stats.median_interval(after, seed, level)
    return Row(
        head.id,
        measure,
        Verdict.UNCLEAR,
        low.point,
        high.point,
        tolerance,
        low,
        high,
        ratio,
        test.p,
        None,
        tuple(notes),
    )


def _steady(measure: Measure, base: Case, head: Case, paired: bool) -> tuple[stats.Sessions, stats.Sessions, list[str]]:
    """Return both samples without warm-up (as much of it on either side), and the words that say so."""
    before, after = measure.samples(base), measure.samples(head)
    if paired:  # a session that one side lost takes its partner with it
        shared = min(len(before), len(after))
        before, after = before[:shared], after[:shared]
    warmup = max(samples.warmup_length(before), samples.warmup_length(after))
    before, word = samples.without_warmup(before, warmup)
    after, _ = samples.without_warmup(after, warmup)
    notes = [word] if word else []
    for side, values in (("base", before), ("head", after)):
        if sentence := samples.outliers(values).sentence():
            notes.append(f"{side}: {sentence}")
    return before, after, notes


def _judge(rows: list[Row], bases: dict[str, Case], heads: dict[str, Case], options: Options) -> tuple[list[Row], int]:
    """Give the statistical rows their verdicts, with Holm over all of them."""
    timed = []
    for index, row in enumerate(rows):
        if row.p is None:
            continue
        if options.judge_time and _alike(bases[row.case], heads[row.case]):
            timed.append(index)
        else:
            rows[index] = replace(row, verdict=Verdict.ELSEWHERE)
    adjusted = stats.holm([rows[index].p or 0.0 for index in timed])
    for index, p_holm in zip(timed, adjusted, strict=True):
        row = replace(rows[index], p_holm=p_holm)
        rows[index] = _verdict(row, bases[row.case], heads[row.case], options, len(timed))
    return rows, len(timed)


def _verdict(row: Row, base: Case, head: Case, options: Options, tests: int) -> Row:
    assert row.ratio is not None
    assert row.p_holm is not None
    before, after, _ = _steady(row.measure, base, head, options.paired)
    _, target = tolerance_of(row.measure, head, options.thresholds)
    rule = replace(options.rule, tolerance=row.tolerance)
    spread = (power.spread_paired if options.paired else power.spread_independent)(before, after)
    sample = power.power_of(spread, min(len(before), len(after)), target, rule, paired=options.paired, tests=tests)
    # "beyond" is symmetric in the logarithm: twice as slow and twice as fast are equally far
    beyond, worse = 1.0 + row.tolerance, row.measure.better == "lower"
    if row.p_holm < rule.alpha and row.ratio.low > beyond:
        return replace(row, verdict=Verdict.WORSE if worse else Verdict.BETTER)
    if row.p_holm < rule.alpha and row.ratio.high < 1.0 / beyond:
        return replace(row, verdict=Verdict.BETTER if worse else Verdict.WORSE)
    if sample.sees == float("inf"):
        return replace(row, verdict=Verdict.TOO_FEW, notes=(*row.notes, sample.sentence()))
    within = row.ratio.high < 1.0 + target and row.ratio.low > 1.0 / (1.0 + target)
    notes = row.notes if within or sample.enough else (*row.notes, sample.sentence())
    return replace(row, verdict=Verdict.SAME if within else Verdict.UNCLEAR, notes=notes)


def _alike(base: Case, head: Case) -> bool:
    """Whether times of the two may be compared: same threads, same nominal link."""
    return base.setting == head.setting


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def _commit(record: Record) -> str:
    commit = record.git.commit[:10] if record.git.commit else "none"
    return f"{commit} (modified)" if record.git.dirty else commit
