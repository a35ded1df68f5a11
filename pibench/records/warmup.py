"""A sample looked at before it is summarised: warm-up excluded with a word, outliers reported and never dropped."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pibench.records.stats import Sessions

WARMUP_MARGIN = 0.05  # slower than the steady half by less than this is not worth excluding
WARMUP_NOISE = 4.0  # and it must stand out of the steady half by so many robust deviations
MILD, SEVERE = 1.5, 3.0  # Tukey's fences, in interquartile ranges
MAD_TO_SIGMA = 1.4826


@dataclass(frozen=True)
class Outliers:
    """Inferences outside Tukey's fences around their own session; all of them stay in the sample."""

    low_severe: int
    low_mild: int
    high_mild: int
    high_severe: int
    n: int

    @property
    def count(self) -> int:
        """All of them together."""
        return self.low_severe + self.low_mild + self.high_mild + self.high_severe

    def sentence(self) -> str:
        """Return one line for a table's foot, or nothing when there is nothing to say."""
        if not self.count:
            return ""
        parts = [
            f"{number} {word}"
            for number, word in (
                (self.high_severe, "far above"), (self.high_mild, "above"),
                (self.low_mild, "below"), (self.low_severe, "far below"),
            )
            if number
        ]  # fmt: skip
        word = "outlier" if self.count == 1 else "outliers"
        return f"{self.count} {word} in {self.n} inferences ({', '.join(parts)}); kept"


def warmup_length(sessions: Sessions) -> int:
    """Return how many inferences at the start of every session are still warming up (at most a third of it).

    A position counts when, in the median session, it is slower than the steady second half by a clear margin; one
    number for all sessions, so that no session's bad luck is taken for warm-up.
    """
    shortest = min((len(session) for session in sessions), default=0)
    if shortest < 6:
        return 0
    relative = [np.asarray(s, dtype=np.float64) / np.median(s[len(s) // 2 :]) for s in sessions]
    steady = np.concatenate([r[len(r) // 2 :] for r in relative])
    noise = MAD_TO_SIGMA * float(np.median(np.abs(steady - 1.0))) / len(sessions) ** 0.5
    bar = 1.0 + max(WARMUP_MARGIN, WARMUP_NOISE * noise)
    length = 0
    while length < shortest // 3 and float(np.median([r[length] for r in relative])) > bar:
        length += 1
    return length


def without_warmup(sessions: Sessions, length: int | None = None) -> tuple[list[list[float]], str]:
    """Return the sessions without their warm-up, and the word that says so ("" when nothing was excluded)."""
    length = warmup_length(sessions) if length is None else length
    if not length:
        return [list(session) for session in sessions], ""
    word = "inference" if length == 1 else "inferences"
    return [list(s[length:]) for s in sessions], f"warm-up: first {length} {word} of every session excluded"


def outliers(sessions: Sessions) -> Outliers:
    """Count inferences outside the fences, each relative to its own session's median."""
    kept = [np.asarray(s, dtype=np.float64) for s in sessions if len(s)]
    if not kept:
        return Outliers(0, 0, 0, 0, 0)
    values = np.concatenate([s / np.median(s) for s in kept])
    q1, q3 = np.percentile(values, [25, 75])
    spread = q3 - q1
    low_severe, high_severe = int((values < q1 - SEVERE * spread).sum()), int((values > q3 + SEVERE * spread).sum())
    low, high = int((values < q1 - MILD * spread).sum()), int((values > q3 + MILD * spread).sum())
    return Outliers(low_severe, low - low_severe, high - high_severe, high_severe, int(values.size))
