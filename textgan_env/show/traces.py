"""How one text came to be: the credit of each token, the completions behind it, and what the discriminator saw.

What the pages of `textgan report` show, as plain numbers; any other page can show the same. Q is asked of
`RolloutCredit.estimate`, as everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from textgan_env.discriminators import (
    DiscriminatorModule,
    DiscriminatorReport,
    Part,
    discriminator_report,
    score_features,
    score_logits,
)
from textgan_env.envs import default_discriminator
from textgan_env.evaluation import generate_texts
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies import Policy
from textgan_env.rewards import Estimate, Keys, RolloutCredit, Texts, generate
from textgan_env.show.saved import SavedRun
from textgan_env.tasks import Task
from textgan_env.text.dataset import Split
from textgan_env.utils.errors import require

#: Texts that a discriminator is measured on, and that a plane is laid through.
REAL_TEXTS = 1000


def real_texts(task: Task) -> tuple[Split, Tensor]:
    """Real texts to show beside generated ones, at most `REAL_TEXTS`, and the split that they are from.

    The test split; the training split where fewer than two test texts are without unknown words, which a
    discriminator is never shown.

    Returns:
        The split, and int64 (B, T).

    Raises:
        InputError: If the training texts hold unknown words, too, all of them.
    """
    unknown_B = torch.isin(task.split("test").tokens_BT, torch.tensor(task.forbidden, dtype=torch.int64)).any(1)
    split: Split = "test" if int((~unknown_B).sum()) >= 2 else "train"
    return split, task.writable(split)[:REAL_TEXTS]


@dataclass(frozen=True)
class RunDiscriminator:
    """A discriminator, and how far it can be trusted.

    Attributes:
        network: D, in eval mode, without gradients.
        own: Whether it is the run's own D; else it is the task's default discriminator.
        report: How it tells real texts of the test split from as many fresh ones of the run's policy: it has seen
            neither. None where the test split has too few texts without unknown words.
        texts: How many of each.
    """

    network: DiscriminatorModule
    own: bool
    report: DiscriminatorReport | None
    texts: int

    @classmethod
    def of_run(
        cls, run: SavedRun, *, own: bool = True, policy: Policy | None = None, seed: int = 0
    ) -> "RunDiscriminator":
        """The D that a run has trained, or the default discriminator of its task where it has trained none.

        Args:
            run: The run.
            own: False asks for the default discriminator in any case: only the scores of one discriminator compare.
            policy: Generates the fresh texts; None: the run's policy as it is.
            seed: Of these texts, and of the default discriminator.

        Raises:
            InputError: If the run holds no whole checkpoint.
        """
        task, policy = run.task, policy or run.policy
        trained = run.discriminator if own else None
        discriminator = default_discriminator(task, seed) if trained is None else trained
        assert isinstance(discriminator, DiscriminatorModule)
        split, real_BT = real_texts(task)
        if split != "test":
            return cls(discriminator, trained is not None, None, 0)
        keys = Keys.counted(derived_seed(seed, "unseen"), len(real_BT))
        fresh_BT, _ = generate(policy, keys, task.max_length, end_token=task.end_token)
        report = discriminator_report(discriminator, real_BT, fresh_BT)
        return cls(discriminator, trained is not None, report, len(real_BT))


@dataclass(frozen=True)
class Completion:
    """One way in which a text could have gone on.

    Attributes:
        tokens: What was generated after the prefix, the end token included.
        score_real: D's probability that the whole text is real.
    """

    tokens: tuple[int, ...]
    score_real: float


@dataclass(frozen=True)
class Trace:
    """One text of t tokens, seen from each of them.

    Attributes:
        tokens: The text; the end token counts.
        q: Q of each token: the mean score of its completions; at the token that ends the text, the text's own score.
        completions: Of each token N completions of the prefix that ends with it; none at the token that ends the text.
        stopped: D's score of each prefix as if it were a whole text, 0 to t tokens long: t + 1 numbers. (D reads whole
            texts only: the score of a prefix says little about what it may become, which Q does.)
        parts: What D's logit of the whole text is the sum of.
        features_SF: float (t + 1, F); D's features of each prefix, likewise.
    """

    tokens: tuple[int, ...]
    q: tuple[float, ...]
    completions: tuple[tuple[Completion, ...], ...]
    stopped: tuple[float, ...]
    parts: tuple[Part, ...]
    features_SF: Tensor

    @property
    def score_real(self) -> float:
        """D's probability that the text is real."""
        return self.stopped[-1]


def write_traces(
    policy: Policy,
    task: Task,
    discriminator: DiscriminatorModule,
    count: int,
    *,
    rollouts: int = 16,
    seed: int = 0,
) -> list[Trace]:
    """Let a policy generate texts and trace them; they are those of `textgan sample` with the same seed.

    Args:
        policy: Generates, and completes.
        task: Says how long texts are.
        discriminator: D.
        count: How many texts.
        rollouts: N, completions behind each token.
        seed: Of all draws.

    Raises:
        InputError: If a number is below 1.
    """
    texts = generate_texts(policy, task, count, seed)
    rows = [texts[row : row + 1] for row in range(count)]
    return [
        trace(policy, task, discriminator, one.tokens_BT[one.mask_BT].tolist(), rollouts=rollouts, keys=one.keys)
        for one in rows
    ]


def trace(
    policy: Policy,
    task: Task,
    discriminator: DiscriminatorModule,
    tokens: Sequence[int],
    *,
    rollouts: int = 16,
    keys: Keys | None = None,
) -> Trace:
    """Trace one text of any origin.

    Args:
        policy: Completes the prefixes.
        task: Says how long texts are, and which token ends one.
        discriminator: D.
        tokens: The text, whole or not; an end token, where there is one, is the last.
        rollouts: N, completions behind each token.
        keys: Of its draws, one row; None: seed 0.

    Raises:
        InputError: If the text is empty, too long, or holds a token that the task does not have, or N is below 1.
    """
    length = len(tokens)
    require(1 <= length <= task.max_length, f"a text to trace has 1 to T={task.max_length} tokens, found {length}")
    wrong = [token for token in tokens if not 0 <= token < task.vocab_size]
    require(not wrong, f"tokens must be 0 to {task.vocab_size - 1}, found {wrong[:1]}")
    text_T = torch.full((task.max_length,), task.vocab_size)
    text_T[:length] = torch.tensor(tokens)
    ended = length == task.max_length or tokens[-1] == task.end_token
    keys = Keys.counted(0, 1) if keys is None else keys
    text = Texts(text_T[None], torch.tensor([length]), torch.tensor([ended]), keys, task.end_token)
    found = RolloutCredit(policy, discriminator, rollouts=rollouts).estimate(text, text.mask_BT)
    # Row s holds the first s tokens.
    is_in_ST = torch.arange(task.max_length) < torch.arange(length + 1)[:, None]
    prefixes_ST = torch.where(is_in_ST, text_T, task.vocab_size)
    return Trace(
        tokens=tuple(tokens),
        q=tuple(found.q_BT[0, :length].tolist()),
        completions=_by_token(found, length),
        stopped=tuple(score_logits(discriminator, prefixes_ST).sigmoid().tolist()),
        parts=tuple(discriminator.parts(text_T)),
        features_SF=score_features(discriminator, prefixes_ST),
    )


def _by_token(estimate: Estimate, length: int) -> tuple[tuple[Completion, ...], ...]:
    """Of each of the text's tokens the completions of the prefix that ends with it."""
    done = estimate.completions
    found: list[list[Completion]] = [[] for _ in range(length)]
    rows = (done.tokens_RT.tolist(), done.prefix_R.tolist(), done.lengths_R.tolist(), estimate.reward_R.tolist())
    for tokens, prefix, end, score in zip(*rows, strict=True):
        found[prefix - 1].append(Completion(tuple(tokens[prefix:end]), score))
    return tuple(map(tuple, found))


@dataclass(frozen=True)
class Plane:
    """The two directions in which D's features of real texts differ most (principal components).

    Attributes:
        middle_F: float; the mean.
        onto_F2: float (F, 2); orthonormal columns, each with the sign that makes its largest number positive.
        shares: What of the variance of real texts each direction holds.
    """

    middle_F: Tensor
    onto_F2: Tensor
    shares: tuple[float, float]

    @classmethod
    def through(cls, features_BF: Tensor) -> "Plane":
        """Lay the plane through the features of real texts.

        Args:
            features_BF: float; at least 2 rows and 2 features.

        Raises:
            InputError: If there are fewer.
        """
        require(min(features_BF.shape) >= 2, f"a plane needs 2 texts and 2 features, found {tuple(features_BF.shape)}")
        middle_F = features_BF.mean(0)
        _, size_D, directions_DF = torch.linalg.svd(features_BF - middle_F, full_matrices=False)
        largest_21 = directions_DF[:2].abs().argmax(1, keepdim=True)
        onto_2F = directions_DF[:2] * directions_DF[:2].gather(1, largest_21).sign()
        variance_D = size_D.square()
        first, second = (variance_D[:2] / variance_D.sum().clamp(min=1e-30)).tolist()
        return cls(middle_F, onto_2F.t(), (first, second))

    def project(self, features: Tensor) -> Tensor:
        """Where features lie on the plane: float (..., F) to (..., 2)."""
        return (features - self.middle_F) @ self.onto_F2
