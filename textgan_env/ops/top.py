"""What a budget of calls has found: means of the best values so far, and the area under them.

Axis letter: C calls, in their order. Source: Gao et al. (2022), "Sample Efficiency Matters" (arXiv 2206.12411).
"""

import heapq
from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from textgan_env.utils.errors import require, require_at_least


def of_different(value_C: ArrayLike, names: Sequence[Hashable | None]) -> NDArray[np.float64]:
    """Values as they count where a thing can be found once only: 0 where it came before, or there is none.

    Args:
        value_C: What each call was answered, 0 or more.
        names: What each call was about: equal for the same thing, None for nothing (a text that is no molecule).

    Returns:
        float64 (C,).
    """
    seen: set[Hashable | None] = {None}
    values = np.array(value_C, dtype=np.float64)
    require(values.shape == (len(names),), f"expected a value for each of {len(names)} names, found {values.shape}")
    for call, name in enumerate(names):
        if name in seen:
            values[call] = 0.0
        seen.add(name)
    return values


def top_means(value_C: ArrayLike, count: int) -> NDArray[np.float64]:
    """The mean of the ``count`` best values of the calls so far, after each call; places without a value count as 0.

    Args:
        value_C: 0 or more, such as `of_different` gives.
        count: 1 for the best, 10 for the top 10.

    Returns:
        float64 (C,), which never falls.
    """
    require_at_least(1, count=count)
    best, total, means = [0.0] * count, 0.0, []
    for value in np.asarray(value_C, dtype=np.float64).tolist():
        total += value - heapq.heappushpop(best, value)
        means.append(total / count)
    return np.array(means, dtype=np.float64)


def area(mean_C: ArrayLike, budget: int) -> float:
    """The mean height of a curve over all calls of a budget; calls that were not made have its last height.

    Of values between 0 and 1 it is between 0 and 1: MolOpt's AUC of the top 10, where the curve is that of `top_means`
    with 10. (MolOpt reads the curve at each 100th call and joins these points by lines.)
    """
    heights = np.asarray(mean_C, dtype=np.float64)
    require(0 < len(heights) <= budget, f"expected 1 to {budget:,} calls, found {len(heights):,}")
    return float((heights.sum() + (budget - len(heights)) * heights[-1]) / budget)
