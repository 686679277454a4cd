"""What the single and the vector environment share around the game: their manual, arguments, spaces and input."""

from dataclasses import fields
from inspect import signature
from typing import Any, cast

import numpy as np
from gymnasium import spaces

from textgan_env.envs.game import TextGame
from textgan_env.envs.views import Observation
from textgan_env.ops.episodes import Ints
from textgan_env.policies.base import Policy
from textgan_env.rewards import RewardSpec
from textgan_env.tasks import Task, shared_task
from textgan_env.utils.errors import InputError, require, require_known

#: What a wrong action is told.
ACTIONS = "actions must be whole numbers, one a text"
#: Arguments of an environment that are not its task's.
OF_GAME = frozenset(
    {field.name for field in fields(RewardSpec)}
    | {name for name, part in signature(TextGame).parameters.items() if part.kind == part.KEYWORD_ONLY}
)


class GameEnv:
    """Base of both environments, and their manual: a `TextGame`, made of plain arguments, and what is asked of it.

    Action space: ``Discrete(V)``, the next token. UNK is never allowed (`action_masks`).

    Observation space: a ``Dict`` of ``tokens``, int64 (T,), PAD = V after the prefix, and ``length``, int64 (1,).

    Rewards: ``rollout`` pays Q(prefix, token), the mean of R = f(D(text)) over N completions of the prefix, R itself at
    the last token; it is a return to go, so learn with gamma 0 (SeqGAN's objective). ``difference`` pays the change of
    Q and sums exactly to R(text), ``terminal`` pays R(text) at the end without completions: gamma 1 for both.

    Starting state: the empty prefix, or ``reset(options={"prefix": "some words"})`` (or a list of tokens).

    Episode end: terminated with the end token or with the T-th token; never truncated. At the end
    ``info["score_real"]`` is D's probability that the text is real.

    Arguments:
        | name | default | meaning |
        |---|---|---|
        | task | "oracle" | a name of `textgan_env.tasks.TASKS`, or a `Task` |
        | reward | "rollout" | see above |
        | transform | "prob" | f: prob, logit, log, minimax, 2p-1, rank |
        | rollouts | 16 | N, completions of each prefix |
        | gamma | 1.0 | discount: credit counts gamma^k R of a text that ends k tokens later |
        | control | None | constant, random or shuffled: rewards that know nothing, to compare with |
        | sources | () | further `textgan_env.rewards.CreditSource`, such as KL: see `RewardSpec` |
        | rollout_policy | None | completes prefixes; None: a bigram model of the training texts |
        | discriminator | None | D; None: a small judge of words and word pairs, see `default_discriminator` |
        | discriminator_seed | 0 | of that default |
        | leak_features | False | observations get ``features``, float32 (F,): D's features of the prefix |
        | render_mode | None | ansi, human (one text only), rgb_array: the text, each token's Q as colour |
        | others | | options of the task, such as max_length=, seed=, path= |

    Version history: v0, the first.
    """

    task: Task
    game: TextGame
    render_mode: str | None

    def _begin_game(
        self, rows: int, task: str | Task, render_mode: str | None, options: dict[str, Any]
    ) -> tuple[spaces.Space[Observation], spaces.Discrete]:
        """Make task and game of an environment's arguments; returns the spaces of one text."""
        if render_mode is not None:
            require_known("render mode", render_mode, self.metadata["render_modes"])  # type: ignore[attr-defined]
        self.render_mode = render_mode
        self.task = shared_task(task, **{name: value for name, value in options.items() if name not in OF_GAME})
        self.game = TextGame(rows, self.task, **{name: options[name] for name in options if name in OF_GAME})
        parts: dict[str, spaces.Space[Any]] = {
            "tokens": spaces.Box(0, self.task.vocab_size, (self.task.max_length,), np.int64),
            "length": spaces.Box(0, self.task.max_length, (1,), np.int64),
        }
        if self.game.leak_features:
            parts["features"] = spaces.Box(-np.inf, np.inf, (self.game.discriminator.feature_size,), np.float32)
        return cast("spaces.Space[Observation]", spaces.Dict(parts)), spaces.Discrete(self.task.vocab_size)

    def set_rollout_policy(self, policy: Policy | None) -> None:
        """See `TextGame.set_rollout_policy`."""
        self.game.set_rollout_policy(policy)


#: The manual of both environments, below their own first lines.
MANUAL = "\n\n" + (GameEnv.__doc__ or "").partition("\n\n")[2]


def tokens_given(values: Any, expected: str) -> Ints:
    """What a user gave as tokens, int64 (any number,).

    Raises:
        InputError: If they are none; the sentence begins with ``expected``.
    """
    try:
        array = np.asarray(values)
    except ValueError:  # lists of several lengths
        raise InputError(f"{expected}, found {values!r}") from None
    whole = np.issubdtype(array.dtype, np.integer) or array.size == 0
    require(array.ndim == 1 and whole, f"{expected}, found {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def given_prefix(task: Task, options: dict[str, Any] | None) -> Ints | None:
    """The tokens of ``options["prefix"]``, a text or a list of tokens."""
    unknown = set(options or {}) - {"prefix"}
    known = "'prefix' (and 'reset_mask' in a vector env)"
    require(not unknown, f"unknown reset options {sorted(unknown)}, expected {known}")
    prefix = (options or {}).get("prefix")
    if prefix is None:
        return None
    tokens = task.encode(prefix) if isinstance(prefix, str) else prefix
    return tokens_given(tokens, "a prefix must be whole numbers in a list")
