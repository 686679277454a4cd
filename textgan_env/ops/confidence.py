"""How sure a difference is: intervals over seeds, and over the texts of one run.

Axis letters: N seeds, B texts, K measures, R resamples.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from textgan_env.ops.metrics import Floats

#: Lower and upper end of an interval; None: too little is known for one.
Ends = tuple[float, float] | None

_RESAMPLES = 2_000
#: Seeds below which there is no interval: two differences say next to nothing of how far others would lie.
FEWEST_SEEDS = 3
#: Texts below which there is none: the bootstrap is too narrow for so few.
FEWEST_TEXTS = 30
# Seeds from which the bootstrap covers skewed differences better than t, and normal ones as well.
_BOOTSTRAP_FROM = 10
# 97.5 % quantiles of Student's t with 2 to 8 degrees of freedom.
_T = (4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004)
_AT_ONCE = 50  # resamples, whose counts are held together


def interval(values: ArrayLike, *, resamples: int = _RESAMPLES, seed: int = 0) -> Ends:
    """95 % interval of the mean over seeds.

    Student's t below 10 seeds, the studentised bootstrap above (Efron and Tibshirani 1993, chapter 12). The percentile
    and BCa bootstraps are too narrow for so few.

    Args:
        values: One number a seed; of two arms their differences, paired by seed.
        resamples: Of the bootstrap.
        seed: Of its draws.

    Returns:
        Lower and upper end; None below 3 seeds.
    """
    found_N = np.asarray(values, dtype=np.float64)
    seeds = len(found_N)
    if seeds < FEWEST_SEEDS:
        return None
    mean, error = found_N.mean(), found_N.std(ddof=1) / math.sqrt(seeds)
    if seeds < _BOOTSTRAP_FROM:
        lower_t, upper_t = -_T[seeds - FEWEST_SEEDS], _T[seeds - FEWEST_SEEDS]
    else:
        drawn_RN = found_N[np.random.default_rng(seed).integers(seeds, size=(resamples, seeds))]
        errors_R = drawn_RN.std(axis=1, ddof=1) / math.sqrt(seeds)
        spread_R = errors_R > 0  # a resample of one number again and again has no t
        t_R = (drawn_RN.mean(axis=1) - mean)[spread_R] / errors_R[spread_R]
        lower_t, upper_t = np.quantile(t_R, (0.025, 0.975)) if len(t_R) else (0.0, 0.0)
    return float(mean - upper_t * error), float(mean - lower_t * error)


def intervals_over_texts(
    now: Mapping[str, Floats], before: Mapping[str, Floats], *, resamples: int = 1_000, seed: int = 0
) -> dict[str, Ends]:
    """95 % intervals of differences between two policies, over their texts: the percentile bootstrap.

    A measure is the ratio of two sums over texts (nats and tokens, for example), so that long texts weigh more. Where
    both sides have as many texts, text b of one side is drawn together with text b of the other (paired: the same real
    text, or texts generated from the same random numbers); elsewhere the sides are drawn apart. Source: Efron and
    Tibshirani (1993), chapter 13.

    Args:
        now: Name -> numerators and denominators, float64 (2, B).
        before: Likewise, of the other policy.
        resamples: R.
        seed: Of the draws.

    Returns:
        Name -> interval of the measure now less before, for the names of both; None below 30 texts.
    """
    found: dict[str, Ends] = dict.fromkeys(name for name in now if name in before)
    enough = [name for name in found if min(now[name].shape[1], before[name].shape[1]) >= FEWEST_TEXTS]
    sizes = {name: (now[name].shape[1], before[name].shape[1]) for name in enough}
    for size in dict.fromkeys(sizes.values()):
        names = [name for name in enough if sizes[name] == size]
        sides = (np.concatenate([side[name] for name in names]) for side in (now, before))
        seeds = (seed, seed if size[0] == size[1] else seed + 1)
        now_RK, before_RK = (_resampled(*given, resamples) for given in zip(sides, seeds, strict=True))
        ends_2K = np.quantile(now_RK - before_RK, (0.025, 0.975), axis=0)
        found |= {name: (float(low), float(high)) for name, (low, high) in zip(names, ends_2K.T, strict=True)}
    return found


def _resampled(sums_KB: Floats, seed: int, resamples: int) -> Floats:
    """K ratios of each resample, float64 (R, K), from rows of numerators and denominators in turn."""
    texts, draw = sums_KB.shape[1], np.random.default_rng(seed)
    found = []
    for first in range(0, resamples, _AT_ONCE):
        some = min(_AT_ONCE, resamples - first)
        drawn_RB = draw.integers(texts, size=(some, texts)) + texts * np.arange(some)[:, None]
        count_RB = np.bincount(drawn_RB.ravel(), minlength=some * texts).reshape(some, texts).astype(np.float64)
        sums_RK = count_RB @ sums_KB.T
        found.append(sums_RK[:, ::2] / sums_RK[:, 1::2])
    return np.concatenate(found)
