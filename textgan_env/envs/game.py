"""TextGAN as a Gymnasium environment: state = prefix, action = next token, reward = the discriminator's judgement."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.utils import seeding
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators import (
    Discriminator,
    fit_discriminator,
    make_discriminator,
    score_features,
    score_logits,
)
from textgan_env.ops import render
from textgan_env.ops.episodes import Bools, Episodes, Ints
from textgan_env.ops.parallel import by_rows
from textgan_env.ops.sampling import derived_generator, derived_seed
from textgan_env.policies.base import Policy
from textgan_env.policies.ngram import NGramPolicy
from textgan_env.rewards import (
    CONTROLS,
    ConstantCredit,
    CreditSource,
    Keys,
    RandomCredit,
    RolloutCredit,
    ShuffledCredit,
    TextCredit,
    Texts,
    check_gamma,
    check_transform,
    generate,
)
from textgan_env.tasks import Task, fit_ngram
from textgan_env.utils.errors import InputError, require

#: What a wrong action is told.
ACTIONS = "actions must be whole numbers, one a text"
#: How an environment pays, see `step_rewards`.
REWARDS = ("rollout", "difference", "terminal")
# What credit can be, where it has ends: the scale of colours when text is shown.
_CREDIT_LIMITS = {"prob": (0.0, 1.0), "rank": (0.0, 1.0), "2p-1": (-1.0, 1.0)}
#: ``tokens`` and ``length``, and ``features`` where D leaks.
Observation = dict[str, NDArray[Any]]

#: Of the default discriminator: two passes over 10,000 texts. With more steps, or fewer written texts, it learns its
#: own by heart: held-out AUC falls (benchmarks/results/default_judge.md has today's).
DEFAULT_DISCRIMINATOR_STEPS = 150
#: Texts of each side in a step of the default discriminator.
DEFAULT_DISCRIMINATOR_BATCH = 128


@dataclass(frozen=True)
class EpisodeBatch:
    """B whole texts, written and judged in one go by `TextGANVectorEnv.collect`.

    Attributes:
        tokens_BT: int64, PAD after the end.
        lengths_B: int64.
        mask_BT: bool; the tokens written.
        credit_BT: float32; what each token is worth from there to the end.
        reward_BT: float32; what `step` would have paid at each token.
        keys: Of the draws of each text.
        end_token: The token that ends a text early, or None.
    """

    tokens_BT: Tensor
    lengths_B: Tensor
    mask_BT: Tensor
    credit_BT: Tensor
    reward_BT: Tensor
    keys: Keys
    end_token: int | None

    @property
    def texts(self) -> Texts:
        """The texts, as sources of further credit take them."""
        ended_B = torch.ones_like(self.lengths_B, dtype=torch.bool)
        return Texts(self.tokens_BT, self.lengths_B, ended_B, self.keys, self.end_token)


def default_rollout_policy(task: Task) -> NGramPolicy:
    """A bigram model of the training texts: what completes prefixes when the environment is given no policy."""
    return fit_ngram(task, order=2)


@lru_cache(maxsize=4)
def default_discriminator(task: Task, seed: int) -> Discriminator:
    """A small judge, fitted to tell the training texts from texts of uni- and bigram models of them.

    It can tell which words and which pairs of near words are usual. It has seen no other kind of error, so it cannot
    judge grammar over long distances, sense, or whether a text is copied. It is fitted once for each task object and
    seed, and the last four stay in the process: never train it, train a copy.

    Args:
        task: Gives the texts.
        seed: Of its initial weights, the texts it is fitted against, and the order of both.

    Returns:
        A discriminator without gradients, in eval mode.
    """
    real_BT = task.writable("train")
    half = (len(real_BT) + 1) // 2
    fakes = []
    for number, policy in enumerate((fit_ngram(task, order=1), default_rollout_policy(task))):
        keys = Keys.counted(derived_seed(seed, "judge", number), half)
        fakes.append(generate(policy, keys, task.max_length, end_token=task.end_token)[0])
    judge = make_discriminator("pair", vocab_size=task.vocab_size, max_length=task.max_length, seed=seed)
    fit_discriminator(
        judge,
        judge.make_optimizer(),
        real_BT,
        torch.cat(fakes),
        steps=DEFAULT_DISCRIMINATOR_STEPS,
        batch_size=DEFAULT_DISCRIMINATOR_BATCH,
        generator=derived_generator(seed, "judge", "order"),
    )
    return judge.eval().requires_grad_(False)


class TextGame:
    """What the single and the vector environment share: tokens in, rewards out, for B texts side by side.

    Args:
        rows: B.
        task: What real text is.
        reward: ``rollout``, ``difference`` or ``terminal``.
        transform: A name of `textgan_env.rewards.TRANSFORMS`.
        rollouts: N.
        gamma: Discount of R for each token that is still to come; 1 with ``difference``.
        control: None, ``constant``, ``random`` or ``shuffled``.
        rollout_policy: Completes prefixes; None: `default_rollout_policy`, or, in `collect`, the policy that writes.
        discriminator: D; None: `default_discriminator`.
        discriminator_seed: Of that default.
        leak_features: Observations hold D's features of the prefix, and policies that read them may be used.

    Raises:
        InputError: If a name is unknown, a number out of range, or policy, discriminator and task do not fit.
    """

    def __init__(
        self,
        rows: int,
        *,
        task: Task,
        reward: str,
        transform: str,
        rollouts: int,
        gamma: float,
        control: str | None,
        rollout_policy: Policy | None,
        discriminator: Discriminator | None,
        discriminator_seed: int,
        leak_features: bool = False,
    ) -> None:
        if reward not in REWARDS:
            raise InputError(f"unknown reward mode '{reward}', expected one of: {', '.join(REWARDS)}")
        if control is not None and control not in CONTROLS:
            raise InputError(f"unknown control '{control}', expected one of: {', '.join(CONTROLS)}")
        check_transform(transform)
        require(rows >= 2 or control != "shuffled", "the shuffled control needs at least 2 texts side by side, found 1")
        require(rows >= 2 or transform != "rank", "the rank transform needs at least 2 texts side by side, found 1")
        require(
            rollouts >= 1,
            f"rollouts must be at least 1, found {rollouts}: reward='terminal' asks for the whole text's score",
        )
        self.task = task
        self.reward = reward
        self.transform = transform
        check_gamma(gamma)
        require(
            gamma == 1 or reward != "difference",
            f"reward='difference' sums to R(text) with gamma 1 only, found gamma {gamma}",
        )
        self.rollouts = rollouts
        self.gamma = gamma
        self.control = control
        self.leak_features = leak_features
        self.episodes = Episodes(rows, task.max_length, task.vocab_size, task.end_token, task.forbidden)
        self.credit_BT: NDArray[np.float64] = np.full((rows, task.max_length), np.nan)
        self.rollout_policy: Policy | None = None
        self.judges: list[Discriminator] = []
        self.version_B: Ints = np.zeros(rows, dtype=np.int64)
        if self.judged or leak_features:
            if discriminator is None:
                discriminator = default_discriminator(task, discriminator_seed)
            self.queue_discriminator(discriminator)
        if rollout_policy is not None:
            self.set_rollout_policy(rollout_policy)

    @cached_property
    def _default_policy(self) -> Policy:
        return default_rollout_policy(self.task)

    @property
    def judged(self) -> bool:
        """Whether a discriminator has a part in the reward."""
        return self.control not in ("constant", "random")

    @property
    def discriminator(self) -> Discriminator:
        """The newest D: every text that starts from now on is judged by it."""
        require(bool(self.judges), f"the '{self.control}' control has no discriminator")
        return self.judges[-1]

    def set_rollout_policy(self, policy: Policy | None) -> None:
        """Complete prefixes with this policy from now on; it is used as it is, so its training shows at once.

        Args:
            policy: None goes back to the default.

        Raises:
            InputError: If it writes another vocabulary, or reads features that are not leaked.
        """
        if policy is not None:
            self._check_policy(policy, "rollout policy")
        self.rollout_policy = policy

    def queue_discriminator(self, discriminator: Discriminator) -> bool:
        """Let each row take a new D when it next starts a text, so that no text is judged by two.

        At most two are alive: while rows that began under an older D are still being judged by it, nothing is queued.

        Args:
            discriminator: Is not to be trained any more; train a copy.

        Returns:
            Whether it was queued; if not, ask again after more texts have ended.

        Raises:
            InputError: If it reads another vocabulary or another T, its weights are not all on one device, or this
                reward has no use for it.
        """
        require(self.judged or self.leak_features, f"the '{self.control}' control has no use for a discriminator")
        for name in ("vocab_size", "max_length"):
            has, needs = getattr(discriminator, name), getattr(self.task, name)
            require(has == needs, f"the discriminator must have {name}={needs} as task '{self.task.name}', found {has}")
        _check_place(discriminator)
        if self.leak_features and self.judges:
            has, needs = discriminator.feature_size, self.judges[-1].feature_size
            require(has == needs, f"the discriminator must have feature_size={needs} as the one before, found {has}")
        if len(self.judges) < 2:
            self.judges.append(discriminator)
        elif not (self._busy & (self.version_B == 0)).any():  # the older one has no text left to judge
            self.judges = [self.judges[1], discriminator]
            self.version_B[:] = 0
        elif not (self._busy & (self.version_B == 1)).any():  # the newer one has not judged any yet
            self.judges[1] = discriminator
        else:
            return False
        return True

    def seed(self, rows_B: Bools, seeds: Sequence[int]) -> None:
        """Seed some rows as `gymnasium.Env.reset` does."""
        keys = [int(seeding.np_random(seed)[0].integers(2**63 - 1)) for seed in seeds]
        self.episodes.seed(rows_B, np.array(keys, dtype=np.int64))

    def begin(self, rows_B: Bools, prefix: Ints | None = None) -> None:
        """Start a new text in some rows; they take the newest D."""
        self.episodes.begin(rows_B, prefix)
        self.credit_BT[rows_B] = np.nan
        self.version_B[rows_B] = len(self.judges) - 1

    def step(self, rows_B: Bools, tokens_B: Ints) -> NDArray[np.float64]:
        """Write one token in some rows and pay for it.

        Returns:
            reward_B: float64; 0 in the other rows.
        """
        self.episodes.append(rows_B, tokens_B)
        paid_B = rows_B & self.episodes.ended_B if self.reward == "terminal" else rows_B
        reward_B = np.zeros(len(rows_B))
        if not paid_B.any():
            return reward_B
        self._check_level(rows_B, paid_B)
        rows, columns = paid_B.nonzero()[0], self.episodes.lengths_B[paid_B] - 1
        wanted_BT = np.zeros(self.credit_BT.shape, dtype=np.bool_)
        wanted_BT[rows, columns] = True
        credit_BT = self._source(self.rollout_policy).credit(self._texts(), self._tensor(wanted_BT)).cpu().numpy()
        self.credit_BT[rows, columns] = reward_B[rows] = credit_BT[rows, columns]
        if self.reward == "difference":
            # Nothing has been paid for a text before its first written token, also after a given prefix.
            before = np.where(columns > 0, self.credit_BT[rows, columns - 1], 0.0)
            reward_B[rows] -= np.nan_to_num(before)
        return reward_B

    def collect(self, policy: Policy, positions: Sequence[int] | None = None) -> EpisodeBatch:
        """Start a new text in every row, let a policy write them all, and judge every token, in one pass each.

        Draws are keyed as everywhere, so this gives what stepping with the same draws gives.

        Args:
            policy: Writes; without a rollout policy of the environment's own it completes the prefixes, too.
            positions: Tokens (0 to T-1) whose credit is asked for, with the ``rollout`` reward only: the others' is 0.
                None: all.

        Returns:
            The texts with their credit.

        Raises:
            InputError: If the policy writes another vocabulary or reads features that are not leaked, a position is
                out of range, or `reset` was never called.
        """
        require(bool(self.episodes.started_B.all()), "collect was called before reset: call reset(seed=...) first")
        self._check_policy(policy, "policy")
        asked_T = self._asked(positions)
        everywhere_B = np.ones(len(self.version_B), dtype=np.bool_)
        self.begin(everywhere_B)
        texts = self._texts(policy.device)
        tokens_BT, lengths_B = by_rows(
            len(everywhere_B),
            lambda rows: generate(policy, texts.keys.rows(rows), self.task.max_length, end_token=self.task.end_token),
        )
        self.episodes.fill(tokens_BT.cpu().numpy(), lengths_B.cpu().numpy())
        completing = policy if self.rollout_policy is None else self.rollout_policy
        texts = self._texts(completing.device)
        credit_BT = self._source(completing).credit(texts, texts.mask_BT & asked_T.to(completing.device))
        credit_BT = credit_BT.to(policy.device)
        texts = self._texts(policy.device)
        known_BT = texts.mask_BT & asked_T.to(policy.device)
        self.credit_BT[:] = np.where(known_BT.cpu().numpy(), credit_BT.cpu().numpy(), np.nan)
        reward_BT = step_rewards(self.reward, credit_BT, texts)
        return EpisodeBatch(tokens_BT, lengths_B, texts.mask_BT, credit_BT, reward_BT, texts.keys, texts.end_token)

    def score_real(self, rows_B: Bools) -> NDArray[np.float64]:
        """The probability that each of some rows' texts is real, by the D that judges it."""
        score_B = np.zeros(len(rows_B))
        for version, judge in enumerate(self.judges):
            chosen_B = rows_B & (self.version_B == version)
            if chosen_B.any():
                tokens = self._tensor(self.episodes.tokens_BT[chosen_B])
                score_B[chosen_B] = score_logits(judge, tokens).sigmoid().cpu().numpy()
        return score_B[rows_B]

    def observation(self, rows: slice | int | Bools = slice(None)) -> Observation:
        """Fresh arrays: ``tokens`` int64 (..., T), ``length`` int64 (..., 1); leaked ``features`` float32 (..., F)."""
        seen = {
            "tokens": self.episodes.tokens_BT[rows].copy(),
            "length": self.episodes.lengths_B[rows][..., None].copy(),
        }
        return {**seen, "features": self._features(rows)} if self.leak_features else seen

    def _features(self, rows: slice | int | Bools) -> NDArray[np.float32]:
        """What D makes of some rows' prefixes, by the D that judges them, float32 (..., F)."""
        tokens, version = self.episodes.tokens_BT[rows], self.version_B[rows]
        features = np.zeros((*np.shape(version), self.discriminator.feature_size), dtype=np.float32)
        for number, judge in enumerate(self.judges):
            chosen = version == number
            if np.any(chosen):
                found = score_features(judge, self._tensor(tokens[chosen].reshape(-1, self.task.max_length)), tile=32)
                features[chosen] = found.float().cpu().numpy().reshape(features[chosen].shape)
        return features

    def _check_policy(self, policy: Policy, name: str) -> None:
        require(
            policy.vocab_size == self.task.vocab_size,
            f"the {name} must write the V={self.task.vocab_size} tokens of task '{self.task.name}', "
            f"found V={policy.vocab_size}",
        )
        require(
            self.leak_features or not getattr(policy, "reads_features", False),
            f"the {name} reads the discriminator's features, but this environment leaks none: "
            "make it with leak_features=True",
        )

    def _asked(self, positions: Sequence[int] | None) -> Tensor:
        """The columns whose credit `collect` is asked for, bool (T,)."""
        if positions is None:
            return torch.ones(self.task.max_length, dtype=torch.bool)
        require(
            self.reward == "rollout",
            f"credit of some positions alone needs reward='rollout', found '{self.reward}'",
        )
        wrong = [position for position in positions if not 0 <= position < self.task.max_length]
        require(not wrong, f"positions must be 0 to {self.task.max_length - 1}, found {wrong}")
        return torch.zeros(self.task.max_length, dtype=torch.bool).index_fill(
            0, torch.tensor([*positions]).long(), True
        )

    def frame(self, row: int, mode: str) -> str | NDArray[np.uint8]:
        """One row's text with each token's credit as colour: a string for terminals, or a picture."""
        words = [self._word(token) for token in self.episodes.tokens_BT[row, : self.episodes.lengths_B[row]]]
        credit = None if self.reward == "terminal" else self.credit_BT[row, : len(words)].tolist()
        # The same colour means the same value in every frame; without fixed ends, the values of this text set them.
        limits = _CREDIT_LIMITS.get(self.transform)
        if mode == "rgb_array":
            title = f"{self.task.name}, T={self.task.max_length}"
            label = "Q of the token" if self.control is None else f"{self.control} control"
            return render.rgb_array(words, credit, title=title, limits=limits, label=label)
        joined = "" if self.task.vocabulary is not None and self.task.vocabulary.mode == "char" else " "
        return render.ansi(words, credit, separator=joined, limits=limits)

    def _check_level(self, rows_B: Bools, paid_B: Bools) -> None:
        """Refuse to compare texts of which some are further than others: what they are paid would be an accident."""
        if self.transform == "rank" or self.control == "shuffled":
            require(
                bool((paid_B == rows_B).all()) and len(np.unique(self.episodes.lengths_B[rows_B])) == 1,
                "the rank transform and the shuffled control compare texts at one position: let all rows start and end "
                "together, or write them with collect",
            )

    @property
    def _busy(self) -> Bools:
        return self.episodes.started_B & ~self.episodes.ended_B

    def _word(self, token: int) -> str:
        return "<eos>" if token == self.task.end_token else self.task.words([token])[0]

    def _tensor(self, array: NDArray[Any], device: torch.device | None = None) -> Tensor:
        policy = self.rollout_policy
        return torch.from_numpy(array).to(device or (policy.device if policy is not None else torch.device("cpu")))

    def _texts(self, device: torch.device | None = None) -> Texts:
        state = self.episodes
        tokens_BT, lengths_B, ended_B, seed_B, episode_B = (
            self._tensor(part.copy(), device)
            for part in (state.tokens_BT, state.lengths_B, state.ended_B, state.seed_B, state.episode_B)
        )
        return Texts(tokens_BT, lengths_B, ended_B, Keys(seed_B, episode_B), self.task.end_token)

    def _source(self, policy: Policy | None) -> CreditSource:
        source: CreditSource
        if self.control == "constant":
            return ConstantCredit()
        if self.control == "random":
            return RandomCredit()
        source = _ByVersion([self._judge_source(judge, policy) for judge in self.judges], self.version_B)
        return ShuffledCredit(source) if self.control == "shuffled" else source

    def _judge_source(self, judge: Discriminator, policy: Policy | None) -> CreditSource:
        if self.reward == "terminal":
            return TextCredit(judge, self.transform, self.gamma)
        policy = self._default_policy if policy is None else policy
        return RolloutCredit(policy, judge, self.transform, self.rollouts, self.gamma)


@dataclass(frozen=True)
class _ByVersion:
    """Asks each row's own source: the D that was newest when its text began."""

    sources: Sequence[CreditSource]
    version_B: Ints

    def credit(self, texts: Texts, wanted_BT: Tensor) -> Tensor:
        version_B = torch.from_numpy(self.version_B).to(wanted_BT.device)
        credit_BT = torch.zeros_like(wanted_BT, dtype=torch.float32)
        for version, source in enumerate(self.sources):
            chosen_BT = wanted_BT & (version_B == version)[:, None]
            if chosen_BT.any():
                credit_BT += source.credit(texts, chosen_BT)
        return credit_BT


def step_rewards(reward: str, credit_BT: Tensor, texts: Texts) -> Tensor:
    """What `step` pays at each token, from the credit to go.

    ``rollout`` pays the credit itself: learn with gamma 0, as SeqGAN does. ``difference`` pays what the token added,
    and sums to R(text); ``terminal`` pays R(text) at the end: learn with gamma 1.

    Args:
        reward: The mode.
        credit_BT: float32; 0 after the end.
        texts: The finished texts.

    Returns:
        float32 (B, T); 0 after the end.
    """
    if reward == "rollout":
        return credit_BT
    if reward == "terminal":
        return credit_BT * texts.last_BT
    before_BT = functional.pad(credit_BT[:, :-1], (1, 0))
    return (credit_BT - before_BT) * texts.mask_BT


#: The manual page of both environments.
MANUAL = """

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
        | rollout_policy | None | completes prefixes; None: a bigram model of the training texts |
        | discriminator | None | D; None: a small judge of words and word pairs, see `default_discriminator` |
        | discriminator_seed | 0 | of that default |
        | control | None | constant, random or shuffled: rewards that know nothing, to compare with |
        | leak_features | False | observations get ``features``, float32 (F,): D's features of the prefix |
        | render_mode | None | ansi, human (one text only), rgb_array: the text, each token's Q as colour |
        | others | | options of the task, such as max_length=, seed=, path= |

    Version history: v0, the first.
    """


def spaces_of(game: TextGame) -> tuple[spaces.Space[Observation], spaces.Discrete]:
    """Observation and action space of one text."""
    task = game.task
    parts: dict[str, spaces.Space[Any]] = {
        "tokens": spaces.Box(0, task.vocab_size, (task.max_length,), np.int64),
        "length": spaces.Box(0, task.max_length, (1,), np.int64),
    }
    if game.leak_features:
        parts["features"] = spaces.Box(-np.inf, np.inf, (game.discriminator.feature_size,), np.float32)
    return cast("spaces.Space[Observation]", spaces.Dict(parts)), spaces.Discrete(task.vocab_size)


def tokens_given(values: Any, expected: str) -> Ints:
    """What a person gave as tokens, int64 (any number,); a sentence that begins with ``expected`` if it is none."""
    try:
        array = np.asarray(values)
    except ValueError:  # lists of several lengths
        raise InputError(f"{expected}, found {values!r}") from None
    whole = np.issubdtype(array.dtype, np.integer) or array.size == 0
    require(array.ndim == 1 and whole, f"{expected}, found {array.dtype} of shape {array.shape}")
    return array.astype(np.int64)


def _check_place(discriminator: Discriminator) -> None:
    """A D may be on any device: what it is shown is brought there. But it must be in one place."""
    if isinstance(discriminator, nn.Module):
        parts = (*discriminator.parameters(), *discriminator.buffers())
        places = sorted({str(part.device) for part in parts})
        require(
            len(places) <= 1 and "meta" not in places,
            "the discriminator must have all its weights on one device that holds numbers, "
            f"found {' and '.join(places)}",
        )


def given_prefix(task: Task, options: dict[str, Any] | None) -> Ints | None:
    """The tokens of ``options["prefix"]``, a text or a list of tokens."""
    unknown = set(options or {}) - {"prefix"}
    require(
        not unknown, f"unknown reset options {sorted(unknown)}, expected 'prefix' (and 'reset_mask' in a vector env)"
    )
    prefix = (options or {}).get("prefix")
    if prefix is None:
        return None
    return tokens_given(
        task.encode(prefix) if isinstance(prefix, str) else prefix, "a prefix must be whole numbers in a list"
    )


def checked_render_mode(mode: str | None, modes: Sequence[str] = ("ansi", "human", "rgb_array")) -> str | None:
    """The mode, or a sentence that it is none of these."""
    if mode is not None and mode not in modes:
        raise InputError(f"unknown render mode '{mode}', expected one of: {', '.join(modes)}")
    return mode
