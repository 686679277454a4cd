"""TextGAN as a game: state = prefix, action = next token, reward = the discriminator's judgement."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from gymnasium.utils import seeding
from numpy.typing import NDArray
from torch import Tensor

from textgan_env.discriminators import Discriminator
from textgan_env.envs.defaults import default_discriminator, default_rollout_policy
from textgan_env.envs.queue import DiscriminatorQueue
from textgan_env.objectives import ObjectiveLike
from textgan_env.ops.episodes import Bools, Episodes, Ints
from textgan_env.ops.parallel import by_rows
from textgan_env.policies.base import Policy
from textgan_env.rewards import AskedObjective, CreditSource, Keys, RewardSpec, Texts, generate
from textgan_env.tasks import Task
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class EpisodeBatch(Texts):
    """B whole texts, generated and judged in one go by `TextGANVectorEnv.collect`.

    Attributes:
        credit_BT: float32; what each token is worth from there to the end, further ``sources`` included.
        reward_BT: float32; what `step` would have paid at each token.
        own_credit_BT: float32; the part of ``credit_BT`` that is not from ``sources``.
    """

    credit_BT: Tensor
    reward_BT: Tensor
    own_credit_BT: Tensor


class TextGame:
    """What the single and the vector environment share: tokens in, rewards out, for B texts side by side.

    Args:
        rows: B.
        task: What real text is.
        rollout_policy: Completes prefixes; None: `default_rollout_policy`, or, in `collect`, the policy that generates.
        discriminator: D; None: `default_discriminator`.
        discriminator_seed: Of that default.
        leak_features: Observations hold D's features of the prefix, and policies that read them may be used.
        objective: What texts are to be like beside real; an `AskedObjective` is shared with whoever else holds it.
        **reward: Of `RewardSpec`.

    Raises:
        InputError: If a name is unknown, a number out of range, or policy, discriminator and task do not fit.
    """

    def __init__(
        self,
        rows: int,
        task: Task,
        *,
        rollout_policy: Policy | None = None,
        discriminator: Discriminator | None = None,
        discriminator_seed: int = 0,
        leak_features: bool = False,
        objective: ObjectiveLike | AskedObjective | None = None,
        **reward: Any,
    ) -> None:
        self.task, self.leak_features = task, leak_features
        asked = None if objective is None else AskedObjective.of(objective, task.text)
        self.reward = RewardSpec(objective=asked, **reward)
        self.reward.check_rows(rows)
        self.episodes = Episodes(rows, task.max_length, task.vocab_size, task.end_token, task.forbidden)
        #: Credit of the reward itself, as far as it is known, else NaN.
        self.credit_BT: NDArray[np.float64] = np.full((rows, task.max_length), np.nan)
        #: The texts that the last `step` ended, int64 (any number, T): their rows may hold others already.
        self.just_ended_BT: Ints = self.episodes.tokens_BT[:0]
        self.discriminators = DiscriminatorQueue(rows, task, leaks=leak_features)
        if self.reward.judged or leak_features:
            first = default_discriminator(task, discriminator_seed) if discriminator is None else discriminator
            self.queue_discriminator(first)
        self.set_rollout_policy(rollout_policy)

    @property
    def discriminator(self) -> Discriminator:
        """The newest D: every text that starts from now on is judged by it."""
        require(bool(self.discriminators.versions), f"{self.reward.without_discriminator} has no discriminator")
        return self.discriminators.versions[-1]

    def set_rollout_policy(self, policy: Policy | None) -> None:
        """Complete prefixes with this policy as it is, so that its training shows at once; None: the default.

        Raises:
            InputError: If it writes another vocabulary, or reads features that are not leaked.
        """
        if policy is not None:
            check_policy(policy, "rollout policy", self.task, leaks=self.leak_features)
        self.rollout_policy: Policy | None = policy

    def queue_discriminator(self, discriminator: Discriminator) -> bool:
        """Let each row take a new D when it next starts a text, see `DiscriminatorQueue.add`.

        Raises:
            InputError: If this reward has no use for a discriminator, or it does not fit.
        """
        useless = f"{self.reward.without_discriminator} has no use for a discriminator"
        require(self.reward.judged or self.leak_features, useless)
        self.reward.check_discriminator(discriminator)
        return self.discriminators.add(discriminator, self.episodes.started_B & ~self.episodes.ended_B)

    def begin(self, rows_B: Bools, prefix: Ints | None = None) -> None:
        """Start a new text in some rows; they take the newest D."""
        self.episodes.begin(rows_B, prefix)
        self.credit_BT[rows_B] = np.nan
        self.discriminators.begin(rows_B)

    def step(self, rows_B: Bools, tokens_B: Ints) -> NDArray[np.float64]:
        """Append one token in some rows and pay for it.

        Returns:
            reward_B: float64; 0 in the other rows.

        Raises:
            InputError: If a token may not be appended, or the reward cannot be paid at each step.
        """
        self.reward.check_steps()
        self.episodes.append(rows_B, tokens_B)
        self.just_ended_BT = self.episodes.tokens_BT[rows_B & self.episodes.ended_B]
        paid_B = rows_B & self.reward.due(self.episodes.lengths_B, self.episodes.ended_B)
        reward_B = np.zeros(len(rows_B))
        if not paid_B.any():
            return reward_B
        check_level(self.reward, self.episodes.lengths_B, rows_B, paid_B)
        default = self.rollout_policy is None and self.reward.completes
        policy = default_rollout_policy(self.task) if default else self.rollout_policy
        texts = Texts.of(self.episodes, torch.device("cpu") if policy is None else policy.device)
        rows, last = paid_B.nonzero()[0], self.episodes.lengths_B[paid_B] - 1
        credit_BT = credit_source(self.reward, self.discriminators, policy).credit(texts, _cells(texts, rows, last))
        self.credit_BT[rows, last] = credit_BT.cpu().numpy()[rows, last]
        # Nothing has been paid for a text before its first token, also after a given prefix.
        own_BT, first_B = torch.from_numpy(np.nan_to_num(self.credit_BT)), self.episodes.given_B
        # What further sources say is to go: at the first token it is that of the whole text.
        asked_BT = _cells(texts, rows, first_B[rows] if self.reward.reward == "terminal" else last)
        all_BT = self.reward.with_sources(own_BT, texts, asked_BT)
        paid_BT = self.reward.payments(own_BT, all_BT, texts.to(own_BT.device), torch.from_numpy(first_B))
        reward_B[rows] = paid_BT.numpy()[rows, last]
        return reward_B

    def collect(self, policy: Policy, positions: Sequence[int] | None = None) -> EpisodeBatch:
        """Start a new text in every row, let a policy generate them all, and judge every token, in one pass each.

        Draws are keyed as everywhere, so this gives what stepping with the same draws gives.

        Args:
            policy: Generates; without a rollout policy of the environment's own it completes the prefixes, too.
            positions: Tokens (0 to T-1) whose credit is asked for, with the ``rollout`` reward only: the others' is 0.
                None: all.

        Returns:
            The texts with their credit.

        Raises:
            InputError: If the policy writes another vocabulary or reads features that are not leaked, a position is
                out of range, or `reset` was never called.
        """
        require(bool(self.episodes.started_B.all()), "collect was called before reset: call reset(seed=...) first")
        check_policy(policy, "policy", self.task, leaks=self.leak_features)
        asked_T = asked_columns(self.reward, self.task.max_length, positions, policy.device)
        self.begin(np.ones(len(self.credit_BT), dtype=np.bool_))
        texts = generated(policy, Keys.of(self.episodes, policy.device), self.task)
        asked_BT = texts.mask_BT & asked_T
        completing = policy if self.rollout_policy is None else self.rollout_policy
        source, there = credit_source(self.reward, self.discriminators, completing), completing.device
        own_BT = source.credit(texts.to(there), asked_BT.to(there)).to(policy.device)
        credit_BT = self.reward.with_sources(own_BT, texts, asked_BT, policy)
        reward_BT = self.reward.payments(own_BT, credit_BT, texts, torch.zeros_like(texts.lengths_B))
        # What stepping and pictures need to know: the only place where texts and credit leave their device.
        known_BT = own_BT.masked_fill(~asked_BT, torch.nan)
        # Together, as a GPU is waited for; float64 holds every token's number.
        tokens_BT, credit_now_BT = torch.stack([texts.tokens_BT.double(), known_BT.double()]).cpu().numpy()
        self.episodes.fill(tokens_BT.astype(np.int64))
        self.credit_BT[:] = credit_now_BT
        parts = (texts.tokens_BT, texts.lengths_B, texts.ended_B, texts.keys, texts.end_token)
        return EpisodeBatch(*parts, credit_BT, reward_BT, own_BT)

    def score_real(self, rows_B: Bools) -> NDArray[np.float64]:
        """The probability that each of some rows' texts is real, by the D that judges it."""
        if self.reward.is_score and self.episodes.ended_B[rows_B].all():
            # The credit of the last token: D need not read again.
            return self.credit_BT[rows_B, self.episodes.lengths_B[rows_B] - 1]
        return self.discriminators.score_real(self.episodes.tokens_BT, rows_B)


def keys_of(seeds: Sequence[int]) -> NDArray[np.int64]:
    """The keys of rows that are seeded as `gymnasium.Env.reset` does it, one for each seed."""
    keys = [int(seeding.np_random(seed)[0].integers(2**63 - 1)) for seed in seeds]
    return np.array(keys, dtype=np.int64)


def generated(policy: Policy, keys: Keys, task: Task) -> Texts:
    """Whole texts of a policy, one for each key; processes that train together share them out."""
    of_keys = partial(generate, policy, max_length=task.max_length, end_token=task.end_token)
    tokens_BT, lengths_B = by_rows(of_keys, keys)
    return Texts.finished(tokens_BT, lengths_B, keys, task.end_token)


def credit_source(reward: RewardSpec, discriminators: DiscriminatorQueue, completing: Policy | None) -> CreditSource:
    """Who says what tokens are worth, further sources aside.

    Args:
        reward: How the environment pays.
        discriminators: Who judges which text.
        completing: Completes the prefixes; None where the reward needs no completions.
    """
    of_version = partial(reward.discriminator_credit, completing=completing)
    return reward.with_objective(lambda: discriminators.credit_source(of_version), completing)


def check_policy(policy: Policy, name: str, task: Task, *, leaks: bool) -> None:
    """Refuse a policy that writes another vocabulary, or reads features that are not there.

    Raises:
        InputError: If it does; the sentence begins with ``name``.
    """
    expected = f"the {name} must write the V={task.vocab_size} tokens of task '{task.name}'"
    require(policy.vocab_size == task.vocab_size, f"{expected}, found V={policy.vocab_size}")
    blind = f"the {name} reads the discriminator's features: make the environment with leak_features=True"
    require(leaks or not getattr(policy, "reads_features", False), blind)


def check_level(reward: RewardSpec, lengths_B: Ints, rows_B: Bools, paid_B: Bools) -> None:
    """Refuse to compare texts of which some are further than others: what they are paid would be an accident.

    Raises:
        InputError: If the reward compares texts, and they are not at one position.
    """
    level = bool((paid_B == rows_B).all()) and len(np.unique(lengths_B[rows_B])) == 1
    why = "the rank transform and the shuffled control compare texts at one position"
    require(level or not reward.compares_rows, f"{why}: let all rows start and end together, or use collect")


def asked_columns(reward: RewardSpec, max_length: int, positions: Sequence[int] | None, device: torch.device) -> Tensor:
    """The columns whose credit `TextGame.collect` is asked for, bool (T,).

    Raises:
        InputError: If a position is out of range, or the reward needs the credit of all.
    """
    if positions is None:
        return torch.ones(max_length, dtype=torch.bool, device=device)
    found = reward.reward
    require(found == "rollout", f"credit of some positions alone needs reward='rollout', found '{found}'")
    wrong = [position for position in positions if not 0 <= position < max_length]
    require(not wrong, f"positions must be 0 to {max_length - 1}, found {wrong}")
    asked_T = torch.zeros(max_length, dtype=torch.bool, device=device)
    for position in positions:
        asked_T[position] = True
    return asked_T


def _cells(texts: Texts, rows: Ints, columns: Ints) -> Tensor:
    """True at one column of each of some rows, bool (B, T)."""
    cells_BT = torch.zeros_like(texts.tokens_BT, dtype=torch.bool)
    cells_BT[torch.from_numpy(rows), torch.from_numpy(columns)] = True
    return cells_BT
