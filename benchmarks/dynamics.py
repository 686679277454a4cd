"""Pictures of adversarial training: a gradient that vanishes while D learns, and D and G that chase each other.

``python -m benchmarks.pictures vanishing`` and ``chase`` draw them.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from agents.seqgan import SeqGAN, SeqGANConfig
from benchmarks.results import image_path, table
from textgan_env.discriminators import DiscriminatorModule, fit_discriminator, make_discriminator, score_logits
from textgan_env.ops.losses import baseline, policy_gradient_sum
from textgan_env.ops.plots import heat_map, learning_curve
from textgan_env.ops.sampling import derived_generator, derived_seed
from textgan_env.policies import PolicyModule
from textgan_env.rewards import Keys, TextCredit, Texts, generate
from textgan_env.runs.loading import load_policy
from textgan_env.tasks import Task
from textgan_env.utils.errors import require


@dataclass(frozen=True)
class Picture:
    """A picture from a finished run."""

    run: Path
    """The finished run."""
    seed: int = 0
    """Of everything random."""
    name: str = ""
    """Of the PNG file in docs/images [that of the picture]."""

    @property
    def path(self) -> Path:
        """Where it is written."""
        return image_path(self.name or type(self).__name__.lower())


# Transform of D's judgement, and what is taken off it.
GRADIENTS = {name: (name, "none") for name in ("prob", "log", "logit", "rank")}
GRADIENTS["prob, baseline"] = ("prob", "leave-one-out")


@dataclass(frozen=True)
class Vanishing(Picture):
    """A D that learns its real texts by heart, and what five rewards make of the policy gradient meanwhile.

    G, the policy of the run, stands still. D, the pair discriminator without its weight decay, is fitted epoch after
    epoch to the same real texts and as many fresh ones of G. Each reward is the whole text's, given to each token.
    """

    texts: int = 2000
    """Real texts that D learns."""
    epochs: tuple[int, ...] = (0, 1, 2, 4, 8, 16)
    """Passes of D over them, after each of which the gradient is looked at."""
    batches: int = 48
    """Batches of texts of G; each gives one estimate of the gradient."""
    batch_size: int = 64
    """Texts in a batch (B)."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        rows = self.measure()
        print(table(rows))
        lines = {
            "D(text), mean": {"real_train": "real, learnt", "real_valid": "real, unseen", "written": "of G, unseen"},
            "norm of the gradient": {f"norm {name}": name for name in GRADIENTS},
            "signal / noise": {f"signal {name}": name for name in GRADIENTS},
        }
        title, log = (
            "D learns by heart: the gradient of prob shrinks, that of rank never does",
            {"norm of the gradient"},
        )
        learning_curve(rows, self.path, x="epoch", x_label="epochs of D", lines=lines, log=log, title=title)
        return self.path

    def measure(self) -> list[dict[str, float]]:
        """One row for each of `epochs`: what D makes of texts; norm, and signal to noise, of each reward's gradient."""
        require(self.batches >= 2, f"signal and noise need at least 2 batches, found {self.batches}")
        policy, task = load_policy(self.run)
        judge = pair_judge(task, self.seed)
        optimizer = judge.make_optimizer()
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0
        real_BT, unseen_BT = task.writable("train")[: self.texts], task.writable("valid")
        seeds = [derived_seed(self.seed, "gradient", number) for number in range(self.batches)]
        batches = [written(policy, task, self.batch_size, seed) for seed in seeds]
        written_BT = torch.cat([texts.tokens_BT for texts in batches])
        rows = []
        for epoch in range(max(self.epochs, default=0) + 1):
            if epoch:
                fit_epoch(judge, optimizer, policy, task, real_BT, derived_seed(self.seed, "epoch", epoch))
            if epoch not in self.epochs:
                continue
            judged = {"real_train": real_BT, "real_valid": unseen_BT, "written": written_BT}
            row = {name: float(score_logits(judge, tokens_BT).sigmoid().mean()) for name, tokens_BT in judged.items()}
            for name, estimates in gradient_estimates(policy, judge, batches).items():
                row |= {f"norm {name}": estimates.norm, f"signal {name}": estimates.signal_to_noise}
            rows.append({"epoch": epoch, **row})
        return rows


class Estimates:
    """Independent estimates of one gradient: how large they are, and how far they agree."""

    def __init__(self) -> None:
        self.count = 0
        self.sum_P: Tensor | float = 0.0
        self.squares = 0.0

    def add(self, gradient_P: Tensor) -> None:
        """Take one more."""
        self.count += 1
        self.sum_P = self.sum_P + gradient_P.double()
        self.squares += float(gradient_P.double().square().sum())

    @property
    def norm(self) -> float:
        """Root of the mean square norm of an estimate: what the optimizer sees."""
        return float((self.squares / self.count) ** 0.5)

    @property
    def signal_to_noise(self) -> float:
        """Norm of the expected gradient over the root mean square distance of an estimate from it; 0 where none shows.

        The square of the former is estimated without bias, by the mean product of two different estimates.
        """
        products = float((self.sum_P**2).sum()) - self.squares  # type: ignore[union-attr]
        signal = products / (self.count * (self.count - 1))
        noise = self.squares / self.count - signal
        if signal <= 0:
            return 0.0
        return float((signal / noise) ** 0.5) if noise > 0 else math.inf


def gradient_estimates(
    policy: PolicyModule, judge: DiscriminatorModule, batches: Sequence[Texts]
) -> dict[str, Estimates]:
    """The policy gradient under each of `GRADIENTS`, estimated once a batch of finished texts."""
    weights = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    found = {name: Estimates() for name in GRADIENTS}
    for texts in batches:
        mask_BT = texts.mask_BT
        logp_BT = policy.log_prob(texts.tokens_BT, mask_BT)
        for name, (transform, kind) in GRADIENTS.items():
            credit_BT = TextCredit(judge, transform).credit(texts, mask_BT)
            total, rows = policy_gradient_sum(logp_BT, credit_BT - baseline(kind, credit_BT, mask_BT), mask_BT)
            parts = torch.autograd.grad(total / rows, weights, retain_graph=True)
            found[name].add(torch.cat([part.flatten() for part in parts]))
    return found


@dataclass(frozen=True)
class Chase(Picture):
    """SeqGAN from a finished run of agents/mle.py; then D of each round judges the texts of G of every round."""

    rounds: int = 6
    """Adversarial rounds."""
    g_steps: int = 10
    """g-steps in a round, of 128 texts each."""
    rollouts: int = 0
    """Completions of each prefix (N); 0: each token gets the whole text's reward, which is much faster."""
    d_epochs: int = 1
    """Passes of D over fresh texts in a round."""
    learning_rate: float = 5e-3
    """Learning rate of G."""
    kl: float = 0.0
    """Weight of the KL divergence to the run."""
    transform: str = "logit"
    """What the reward makes of D's judgement."""
    texts: int = 1000
    """Texts of each G that are judged; no D was fitted to them."""

    def draw(self) -> Path:
        """Write the picture; returns its path."""
        score_DG = self.measure()
        rounds = [str(number) for number in range(self.rounds + 1)]
        said: dict[str, Any] = {
            "x_label": "texts of G after round",
            "y_label": "D after round",
            "label": "D(text), mean",
        }
        title = "Each D on the texts of every G"
        heat_map(score_DG, self.path, rows=rounds, columns=[*rounds, "real"], title=title, **said)
        print(chase_summary(score_DG))
        return self.path

    def measure(self) -> np.ndarray:
        """Mean D(text) of D after round i (rows) on texts of G after round j (columns) and, last, on unseen real text.

        In a round G learns from the D of the round before, then D from the texts of this G.
        """
        task = load_policy(self.run)[1]
        config = SeqGANConfig(
            task=task.name, pretrained=self.run, rounds=self.rounds, g_steps=self.g_steps, rollouts=self.rollouts,
            d_pretraining=3, d_epochs=self.d_epochs, learning_rate=self.learning_rate, kl_coef=self.kl,
            transform=self.transform, seed=self.seed,
        )  # fmt: skip
        agent = SeqGAN(config, task)
        judges: list[DiscriminatorModule] = []
        texts: list[Tensor] = []
        for current in agent.schedule().after(0):
            for steps, step in current.steps(self.seed):
                steps.run(step)
            if current.phase.name == "adversarial" or current.index + 1 == current.phase.rounds:
                judges.append(copy.deepcopy(agent.modules["discriminator"]))  # type: ignore[arg-type]
                seed = derived_seed(self.seed, "chase", len(judges))
                texts.append(written(agent.policy, task, self.texts, seed).tokens_BT)
        texts.append(task.writable("valid"))
        return np.array(
            [[float(score_logits(judge, part_BT).sigmoid().mean()) for part_BT in texts] for judge in judges]
        )


def chase_summary(score_DG: np.ndarray) -> str:
    """What the matrix says in means: D on its own G, on the next, on older ones, on real text."""
    own = np.diag(score_DG[:, :-1])
    after = np.diag(score_DG[:, :-1], 1)
    older = score_DG[:, :-1][np.tril_indices(len(score_DG), -1)]
    parts = {"its own G": own, "the next G": after, "older G": older, "real text": score_DG[:, -1]}
    return "mean D: " + ", ".join(f"{name} {values.mean():.3f}" for name, values in parts.items())


def written(policy: PolicyModule, task: Task, rows: int, seed: int) -> Texts:
    """Fresh texts of a policy."""
    keys = Keys.counted(seed, rows)
    tokens_BT, lengths_B = generate(policy, keys, task.max_length, end_token=task.end_token)
    return Texts.finished(tokens_BT, lengths_B, keys, task.end_token)


def pair_judge(task: Task, seed: int) -> DiscriminatorModule:
    """A D that has learnt nothing yet."""
    sizes = {"vocab_size": task.vocab_size, "max_length": task.max_length}
    return make_discriminator("pair", **sizes, seed=derived_seed(seed, "discriminator"))


def fit_epoch(
    judge: DiscriminatorModule, optimizer: torch.optim.Optimizer, policy: PolicyModule, task: Task, real_BT: Tensor,
    seed: int,
) -> None:  # fmt: skip
    """One pass of D over real texts and as many fresh ones of the policy."""
    written_BT = written(policy, task, len(real_BT), seed).tokens_BT
    steps, generator = -(-len(real_BT) // 64), derived_generator(seed, "order")
    fit_discriminator(judge, optimizer, real_BT, written_BT, steps=steps, batch_size=64, generator=generator)
