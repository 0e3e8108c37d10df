"""The difference of two rows, paired by seed, and what may be said of it, alone or among several."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, replace

from scipy.stats import t as student

SIGNIFICANT = 0.05
FEWEST_SEEDS = 3  # for a verdict
SAME = 1e-9  # differences of scores that lie no further apart are equal, but for rounding
NO_DIFFERENCE = "no difference found"


@dataclass(frozen=True)
class Difference:
    """A policy minus the baseline over the seeds they share, with the 95% interval of the mean."""

    mean: float
    half_width: float | None  # None: one seed, or equal differences, say nothing about the spread
    seeds: int
    higher_is_better: bool = True
    p_value: float | None = None  # of Student's t, two-sided, corrected or not; None where nothing tells the spread

    @property
    def is_claim(self) -> bool:
        """Whether there are seeds enough for a verdict."""
        return self.p_value is not None and self.seeds >= FEWEST_SEEDS

    @property
    def verdict(self) -> str:
        """In words; nothing is claimed that the figures do not carry."""
        if self.p_value is None or not self.is_claim:
            equal = "equal difference" if self.seeds >= FEWEST_SEEDS else "seed"
            return f"{self.seeds} {equal}{'s' * (self.seeds > 1)}: no claim"
        if self.p_value >= SIGNIFICANT:
            return NO_DIFFERENCE
        return "better" if (self.mean > 0) == self.higher_is_better else "worse"


def paired_difference(
    values: dict[int, float], base: dict[int, float], higher_is_better: bool = True
) -> Difference | None:
    """Mean difference over shared seeds and the half width of its 95% interval (Student's t)."""
    differences = [values[seed] - base[seed] for seed in sorted(values.keys() & base.keys())]
    if not differences:
        return None
    mean, count = statistics.fmean(differences), len(differences)
    if count == 1:
        return Difference(mean, None, count, higher_is_better)
    spread = statistics.stdev(differences)
    if spread <= SAME < abs(mean):  # as of scores that count few images
        return Difference(mean, None, count, higher_is_better)
    error = spread / math.sqrt(count)
    half_width = float(student.ppf(1 - SIGNIFICANT / 2, count - 1)) * error
    p_value = 2 * float(student.sf(abs(mean) / error, count - 1)) if spread > SAME else 1.0
    return Difference(mean, half_width, count, higher_is_better, p_value)


def corrected_by_holm(differences: Mapping[str, Difference]) -> dict[str, Difference]:
    """The same with p-values for all rows together: if none truly differs, one is below .05 in at most 5 % of cases.

    Holm (1979): the smallest of m p-values is multiplied by m, the next by m - 1, and so on; none falls below the one
    before it.
    """
    claims = {name: one.p_value for name, one in differences.items() if one.is_claim and one.p_value is not None}
    corrected, highest = dict(differences), 0.0
    for place, (name, p_value) in enumerate(sorted(claims.items(), key=lambda claim: claim[1])):
        highest = max(highest, min(1.0, (len(claims) - place) * p_value))
        corrected[name] = replace(differences[name], p_value=highest)
    return corrected
