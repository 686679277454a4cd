"""What the single and the vector environment share around the game: their manual, arguments, spaces and input."""

from dataclasses import fields
from inspect import signature
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from textgan_env.envs.game import TextGame
from textgan_env.envs.views import Observation
from textgan_env.ops.episodes import Bools, Ints
from textgan_env.policies.base import Policy
from textgan_env.rewards import RewardSpec
from textgan_env.tasks import Task, shared_task
from textgan_env.utils.errors import InputError, require, require_known
from textgan_env.utils.reading import preview

#: Arguments of an environment that are not its task's.
OF_GAME = frozenset(
    {field.name for field in fields(RewardSpec)}
    | {name for name, part in signature(TextGame).parameters.items() if part.kind == part.KEYWORD_ONLY}
)


class GameEnv:
    """Base of both environments, and their manual: a `TextGame`, made of plain arguments, and what is asked of it.

    Action space: ``Discrete(A)``, the next token: each of the A tokens that can be generated, at every step. That is
    all V but UNK, which can only be read, so A is V or V-1; action a is the token ``token_of_action[a]``, and where
    there is no UNK, a itself. ``info["action_mask"]``, int8 (A,), is 1 for all of them.

    Observation space: a ``Dict`` of ``tokens``, int64 (T,), PAD = V after the prefix, and ``length``, int64 (1,).

    Rewards: ``terminal`` pays R(text) = f(D(text)) at the end, without completions; ``difference`` pays the change of Q
    and sums exactly to R(text): learn with gamma 1. ``rollout`` pays Q(prefix, token), the mean of R over N completions
    of the prefix, R itself at the last token; it is a return to go, so learn with gamma 0 (SeqGAN's objective).

    Starting state: the empty prefix, or ``reset(options={"prefix": "some words"})`` (or a list of tokens).

    Episode end: terminated with the end token or with the T-th token; never truncated. At the end
    ``info["score_real"]`` is D's probability that the text is real.

    Arguments:
        | name | default | meaning |
        |---|---|---|
        | task | "oracle" | a name of `textgan_env.tasks.TASKS`, or a `Task` |
        | reward | "terminal" | see above |
        | transform | "prob" | f: prob, logit, log, minimax, 2p-1, rank |
        | rollouts | 16 | N, completions of each prefix |
        | q_interval | 1 | tokens from one Q to the next: above 1 only every so many-th prefix is completed |
        | gamma | 1.0 | discount: credit counts gamma^k R of a text that ends k tokens later |
        | control | None | constant, random or shuffled: rewards that know nothing, to compare with |
        | objective | None | what texts are to be like beside real: a function of texts, or a name such as "regex:^a" |
        | objective_weight | 0.5 | w in R = (1 - w) f(D(text)) + w O(text); 1 leaves D out |
        | objective_control | None | as control, in place of what the objective says |
        | score_precision | "float32" | of completions: bf16 is faster with the CNN where the processor has it |
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
    #: The token that each action generates, int64 (A,), rising.
    token_of_action: Ints
    #: ``reward``, which says how to learn.
    reward_mode: str

    def _begin_game(
        self, rows: int, task: str | Task, render_mode: str | None, options: dict[str, Any]
    ) -> tuple[spaces.Space[Observation], spaces.Discrete]:
        """Make task and game of an environment's arguments; returns the spaces of one text."""
        if render_mode is not None:
            require_known("render mode", render_mode, self.metadata["render_modes"])  # type: ignore[attr-defined]
        self.render_mode = render_mode
        self.task = shared_task(task, **{name: value for name, value in options.items() if name not in OF_GAME})
        self.game = TextGame(rows, self.task, **{name: options[name] for name in options if name in OF_GAME})
        self.reward_mode = self.game.reward.reward
        self.token_of_action = np.flatnonzero(self.game.episodes.writable_V)
        parts: dict[str, spaces.Space[Any]] = {
            "tokens": spaces.Box(0, self.task.vocab_size, (self.task.max_length,), np.int64),
            "length": spaces.Box(0, self.task.max_length, (1,), np.int64),
        }
        if self.game.leak_features:
            parts["features"] = spaces.Box(-np.inf, np.inf, (self.game.discriminator.feature_size,), np.float32)
        return cast("spaces.Space[Observation]", spaces.Dict(parts)), spaces.Discrete(len(self.token_of_action))

    def _tokens(self, actions: Any, rows_B: Bools, expected: str) -> Ints:
        """The tokens of some rows' actions, int64 (B,); what other rows were given is not looked at.

        Raises:
            InputError: If they are no whole numbers, not one a row, or out of range; the sentence begins with
                ``expected``.
        """
        most = len(self.token_of_action) - 1
        expected = f"{expected} from 0 to {most}"
        actions_B = whole_numbers(actions, expected)
        require(actions_B.shape == rows_B.shape, f"{expected}, found {actions_B.dtype} of shape {actions_B.shape}")
        wrong = actions_B[rows_B & ((actions_B < 0) | (actions_B > most))]
        require(not len(wrong), f"{expected}, found {int(wrong[0]) if len(wrong) else ''}")
        tokens_B: Ints = self.token_of_action[actions_B.clip(0, most)]
        return tokens_B

    def action_masks(self) -> Bools:
        """``info["action_mask"]`` as sb3-contrib asks for it, bool (A,), in the vector environment (num_envs, A)."""
        return np.ones((*self.action_space.shape, len(self.token_of_action)), dtype=np.bool_)  # type: ignore[attr-defined]

    def set_rollout_policy(self, policy: Policy | None) -> None:
        """See `TextGame.set_rollout_policy`."""
        self.game.set_rollout_policy(policy)


#: The manual of both environments, below their own first lines.
MANUAL = "\n\n" + (GameEnv.__doc__ or "").partition("\n\n")[2]


def whole_numbers(values: Any, expected: str) -> Ints:
    """What a user gave as whole numbers, int64 of any shape.

    Raises:
        InputError: If they are none; the sentence begins with ``expected``.
    """
    try:
        array = np.asarray(values)
    except ValueError:  # lists of several lengths
        raise InputError(f"{expected}, found {preview(values)} of several lengths") from None
    whole = np.issubdtype(array.dtype, np.integer) or array.size == 0
    require(whole, f"{expected}, found {_seen(values, array)}")
    return array.astype(np.int64)


def _seen(values: Any, array: NDArray[Any]) -> str:
    """What was given, as a sentence can hold it."""
    return (
        f"{type(values).__name__} {preview(array.item())}"
        if array.ndim == 0
        else f"{array.dtype} of shape {array.shape}"
    )


def given_seed(seed: Any) -> int | None:
    """A seed as Gymnasium takes it, also one of numpy's whole numbers.

    Raises:
        InputError: If it is no whole number of at least 0.
    """
    if seed is None:
        return None
    whole = isinstance(seed, int | np.integer) and int(seed) >= 0
    require(whole, f"a seed must be None or a whole number of at least 0, found {preview(seed)}")
    return int(seed)


def given_options(options: Any) -> dict[str, Any]:
    """A copy of the options of ``reset``.

    Raises:
        InputError: If they are neither None nor a dict.
    """
    found = options is None or isinstance(options, dict)
    require(found, f"options of reset must be None or a dict such as {{'prefix': ...}}, found {preview(options)}")
    return dict(options or {})


def given_prefix(task: Task, options: dict[str, Any]) -> Ints | None:
    """The tokens of ``options["prefix"]``, a text or a list of tokens.

    Raises:
        InputError: If there are other options, or the prefix is neither.
    """
    unknown = sorted(map(preview, set(options) - {"prefix"}))
    known = "'prefix' (and 'reset_mask' in a vector env)"
    require(not unknown, f"unknown reset options {', '.join(unknown)}, expected {known}")
    prefix = options.get("prefix")
    if prefix is None:
        return None
    expected = "a prefix must be a text or whole numbers in a list"
    tokens = whole_numbers(task.encode(prefix) if isinstance(prefix, str) else prefix, expected)
    require(tokens.ndim == 1, f"{expected}, found {_seen(prefix, tokens)}")
    return tokens
