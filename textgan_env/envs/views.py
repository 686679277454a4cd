"""What an environment shows: to agents arrays, to people each token on the colour of its credit."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from textgan_env.envs.game import TextGame
from textgan_env.ops import render
from textgan_env.ops.colours import credit_limits
from textgan_env.ops.reward_kinds import TRANSFORMS

#: ``tokens`` and ``length``, and ``features`` where D leaks.
Observation = dict[str, NDArray[Any]]


def observation(game: TextGame, rows: slice | int = slice(None)) -> Observation:
    """Fresh arrays: ``tokens`` int64 (..., T), ``length`` int64 (..., 1); leaked ``features`` float32 (..., F)."""
    tokens_BT, lengths_B = game.episodes.tokens_BT, game.episodes.lengths_B
    seen: Observation = {"tokens": tokens_BT[rows].copy(), "length": lengths_B[rows][..., None].copy()}
    if game.leak_features:
        rows_B = np.zeros(len(lengths_B), dtype=np.bool_)
        rows_B[rows] = True
        features_BF = game.discriminators.features(tokens_BT, rows_B)
        seen["features"] = features_BF if isinstance(rows, slice) else features_BF[0]
    return seen


def frame(game: TextGame, row: int, mode: str) -> str | NDArray[np.uint8]:
    """One row's text with each token's credit as colour: a string for terminals, or a picture."""
    task, reward = game.task, game.reward
    tokens = game.episodes.tokens_BT[row, : game.episodes.lengths_B[row]]
    words = ["<eos>" if token == task.end_token else task.words([token])[0] for token in tokens]
    credit = None if reward.reward == "terminal" else game.credit_BT[row, : len(words)].tolist()
    # The pale middle is D = .5 in every frame; without fixed ends, the furthest value of this text sets them.
    transform = TRANSFORMS[reward.transform]
    limits = transform.limits or credit_limits(credit or (), transform.middle)
    if mode == "rgb_array":
        title = f"{task.name}, T={task.max_length}"
        label = "Q of the token" if reward.control is None else f"{reward.control} control"
        return render.rgb_array(words, credit, title=title, limits=limits, label=label)
    joined = " " if task.vocabulary is None else task.vocabulary.glue
    return render.ansi(words, credit, separator=joined, limits=limits)
