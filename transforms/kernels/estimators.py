"""Standard errors of a total estimated from the sample, one for each draw."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def pareto_standard_error(values: Floats, inclusion: Floats) -> float:
    """Returns the standard error of sum of values / pi for a Pareto sample.

    s/(s-1) sum (1 - pi)(l/pi - B)^2 with B = sum (1 - pi) l/pi / sum (1 - pi): Rosén, "Asymptotic theory for order sampling" (JSPI 62, 1997).

    Args:
        values: l of each drawn record, float64, (s,).
        inclusion: pi of each drawn record, (s,); certain records (pi = 1) add nothing.
    """
    values, inclusion = values[inclusion < 1], inclusion[inclusion < 1]
    s = len(values)
    if s < 2:
        return 0.0 if s == 0 else float("nan")
    expanded, left = values / inclusion, 1 - inclusion
    center = np.sum(left * expanded) / np.sum(left)
    return float(np.sqrt(s / (s - 1) * np.sum(left * (expanded - center) ** 2)))


def multinomial_standard_error(values: Floats, expected: Floats, multiplicity: NDArray[np.int64]) -> float:
    """Returns the standard error of sum of multiplicity x values / expected for s independent draws: sum_t (l/p - L)^2 / (s (s - 1)).

    Args:
        values: l of each distinct drawn record, float64, (m,).
        expected: expected multiplicity s p, (m,).
        multiplicity: times drawn, (m,), summing to s.
    """
    s = int(multiplicity.sum())
    if s < 2:
        return float("nan")
    per_draw = s * values / expected
    total = np.sum(multiplicity * per_draw) / s
    return float(np.sqrt(np.sum(multiplicity * (per_draw - total) ** 2) / (s * (s - 1))))
