"""The policies and discriminators behind `benchmarks.bound`, and what is measured of a pair of them.

All on laws that are known: every gain has a true one beside it.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from agents import mle
from textgan_env.discriminators import Discriminator, fit_discriminator, score_logits
from textgan_env.evaluation import DiscriminatorWorth, discriminator_worth, nll
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies import LSTMPolicy, RatioDiscriminator
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import OracleTask, make_task
from textgan_env.utils.kinds import DISCRIMINATORS

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class Recipe:
    """A policy of maximum likelihood.

    Attributes:
        texts: Training texts.
        width: Of embedding and LSTM.
        epochs: Passes over them.
        dropout: Share of the LSTM's inputs and outputs that is left out.
        weight_decay: Of Adam.
    """

    texts: int
    width: int
    epochs: int
    dropout: float = 0.0
    weight_decay: float = 0.0


@dataclass(frozen=True)
class Fit:
    """A discriminator, fitted once to a policy.

    Attributes:
        kind: Its network; "policy": it is the log ratio of another policy, the law's good one from other initial
            weights, and this one; "law": it is the true log p / q.
        steps: Batches of 64 texts of each side.
        texts: Real texts that it learns from, and as many of the policy; None: the policy's own training texts.
    """

    kind: str
    steps: int = 0
    texts: int | None = None


@dataclass(frozen=True)
class Law:
    """A known distribution, and who is measured on it.

    Attributes:
        task: Its name in `textgan_env.tasks`.
        options: Of the task.
        samples: Texts of each side that a pair is measured on.
        policies: Name -> recipe.
        fits: Name -> discriminator.
    """

    task: str
    options: Mapping[str, int]
    samples: int
    policies: Mapping[str, Recipe]
    fits: Mapping[str, Fit]


_POLICIES: Mapping[str, Recipe] = {
    "undertrained": Recipe(8_000, 32, epochs=2),
    "narrow": Recipe(8_000, 8, epochs=12, weight_decay=0.05),
    "good": Recipe(8_000, 32, epochs=14, dropout=0.1, weight_decay=0.05),
    "overfitted": Recipe(500, 32, epochs=60),
}
_FITS: Mapping[str, Fit] = {
    "pair, 50 steps": Fit("pair", 50),
    "pair, 400 steps": Fit("pair", 400),
    "conv, 60 steps": Fit("conv", 60),
    "recurrent, 60 steps": Fit("recurrent", 60),
    "recurrent, 400 steps": Fit("recurrent", 400),
    "recurrent, 600 steps on 300 texts": Fit("recurrent", 600, texts=300),
    "recurrent, 1,500 steps on 20,000 texts": Fit("recurrent", 1_500, texts=20_000),
    "log ratio of a good policy": Fit("policy"),
    "the law": Fit("law"),
}
# Without those that take longest.
_PLAIN_FITS = {name: fit for name, fit in _FITS.items() if fit.kind not in ("conv", "policy")}
_LARGE_FITS: Mapping[str, Fit] = {
    "pair, 150 steps": Fit("pair", 150),
    "recurrent, 150 steps": Fit("recurrent", 150),
    "recurrent, 300 steps on 20,000 texts": Fit("recurrent", 300, texts=20_000),
    "the law": Fit("law"),
}
#: Name -> law.
LAWS: Mapping[str, Law] = {
    "V=50 T=10": Law("oracle", {"vocab_size": 50, "max_length": 10}, 20_000, _POLICIES, _FITS),
    "released oracle T=20": Law(
        "seqgan-oracle", {}, 4_000,
        {"undertrained": Recipe(10_000, 32, epochs=1), "good": Recipe(10_000, 32, epochs=3, weight_decay=0.1)},
        _LARGE_FITS,
    ),
    "V=100 T=15": Law(
        "oracle", {"vocab_size": 100, "max_length": 15}, 10_000, {"overfitted": _POLICIES["overfitted"]}, _PLAIN_FITS
    ),
    "oracle T=40": Law(
        "oracle40", {}, 3_000, {"undertrained": Recipe(5_000, 32, epochs=1)},
        {"pair, 150 steps": _LARGE_FITS["pair, 150 steps"]},
    ),
}  # fmt: skip


def tiny(law: Law) -> Law:
    """As small as it can be, to see that everything runs."""
    policies = {name: replace(one, texts=40, width=4, epochs=1) for name, one in law.policies.items()}
    fits = {name: replace(one, steps=min(one.steps, 2), texts=one.texts and 50) for name, one in law.fits.items()}
    return replace(law, samples=60, policies=policies, fits=fits)


@dataclass
class Measured:
    """A policy on its law, with the texts that its discriminators learn from and are looked at with.

    Attributes:
        law: The law.
        recipe: How the policy was made.
        policy: It.
        good: The good policy of the law, from other initial weights; None where no discriminator asks for it.
        seed: Of texts and draws.
    """

    law: Law
    recipe: Recipe
    policy: LSTMPolicy
    good: LSTMPolicy | None
    seed: int
    task: OracleTask = field(init=False)
    fake_RT: Tensor = field(init=False)
    shown_RT: Tensor = field(init=False)

    def __post_init__(self) -> None:
        """Draw the texts."""
        self.task = texts_of(self.law, self.recipe.texts, self.seed)
        most = max(self.recipe.texts, *(one.texts or 0 for one in self.law.fits.values()))
        self.fake_RT = self._write("fit", most)
        self.shown_RT = self._write("shape", self.law.samples)

    def _write(self, purpose: str, count: int) -> Tensor:
        """Texts of the policy."""
        return generate(self.policy, Keys.counted(derived_seed(self.seed, purpose), count), self.task.max_length)[0]

    def divergences(self) -> dict[str, float]:
        """KL(p || q) and KL(q || p), nats a token, each from as many texts as a pair is measured on."""
        found = {}
        for name, tokens_BT, sign in (("cover", self.task.split("test").tokens_BT, 1), ("fit", self.shown_RT, -1)):
            mask_BT = self.task.scored(tokens_BT)
            lacks = nll(self.policy, tokens_BT, mask_BT)[0] - nll(self.task.oracle, tokens_BT, mask_BT)[0]
            found[name] = sign * lacks
        return found

    def fitted(self, fit: Fit) -> Discriminator:
        """A discriminator, fitted to the policy."""
        if fit.kind in ("law", "policy"):
            above = self.task.oracle if fit.kind == "law" else self.good
            assert above is not None
            return RatioDiscriminator(above, self.policy, self.task.max_length)
        found = DISCRIMINATORS[fit.kind].load()(self.task.vocab_size, self.task.max_length, seed=self.seed)
        real_BT, count = self.task.split("train").tokens_BT, fit.texts or self.recipe.texts
        if count > len(real_BT):
            real_BT = texts_of(self.law, count, self.seed + 1_000).split("train").tokens_BT
        optimizer = found.make_optimizer(3e-3 if fit.kind == "recurrent" else None)
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "fit"))
        sides = (real_BT[:count], self.fake_RT[:count])
        fit_discriminator(found, optimizer, *sides, steps=fit.steps, batch_size=64, generator=generator)
        ready: Discriminator = found.eval()
        return ready

    def pair(self, fit: Fit, few: int, repeats: int) -> dict[str, Any]:
        """All that is measured of the policy and a discriminator.

        Args:
            fit: The discriminator.
            few: Texts of each side of small measurements.
            repeats: How many of these there are: the real texts are the same, those of the policy are others.
        """
        discriminator = self.fitted(fit)

        def worth(samples: int, seed: int) -> DiscriminatorWorth:
            """What it is worth."""
            return discriminator_worth(discriminator, self.policy, self.task, samples=samples, seed=seed)

        found = worth(self.law.samples, self.seed)
        of_few = [worth(few, self.seed + 1 + number) for number in range(repeats)]
        sides = (self.task.split("test").tokens_BT, self.shown_RT)
        real_B, fake_R = (score_logits(discriminator, side_BT).double() for side_BT in sides)
        small = {"gains": [one.gain for one in of_few], "shares": [one.effective_share for one in of_few]}
        # With the texts of the large measurement: what the same real texts say.
        real = float(real_B.mean() - real_B[:few].mean()) / found.tokens
        formed = shape(real_B, fake_R, found.tokens)
        return {**self.divergences(), "worth": asdict(found), "few": small | {"real_less": real}, **formed}


def shape(real_B: Tensor, fake_R: Tensor, tokens: float) -> dict[str, float]:
    """Of what shape a logit is, and what the best function of it wins.

    Args:
        real_B: float64; the logits of real texts.
        fake_R: float64; those of texts of the policy.
        tokens: Mean length, tokens.

    Returns:
        ``spread_real`` and ``spread_fake``, standard deviations; ``skew``, that of the policy's texts, 0 of a Gaussian;
        ``any_use``, nats a token.
    """
    away_R = fake_R - fake_R.mean()
    skew = float((away_R**3).mean() / (away_R**2).mean() ** 1.5)
    spreads = {"spread_real": float(real_B.std()), "spread_fake": float(fake_R.std())}
    return spreads | {"skew": skew, "any_use": any_use(real_B, fake_R) / tokens}


def any_use(real_B: Tensor, fake_R: Tensor, cells: int = 40) -> float:
    """What the best function of a logit wins, nats a text: KL between its two distributions, of real and fake.

    The logit is cut into cells at quantiles of both sides together, with a log ratio of counts each (half a text added
    everywhere). One half of the texts says the ratios, the other what they win; and the other way round.

    Args:
        real_B: float64; the logits of real texts.
        fake_R: float64; those of texts of the policy.
        cells: How many.
    """
    found = []
    for side in (0, 1):
        edges_C = torch.cat([real_B[side::2], fake_R[side::2]]).quantile(torch.linspace(0, 1, cells + 1).double())[1:-1]
        real_C, fake_C = (_shares(one_B[side::2], edges_C) for one_B in (real_B, fake_R))
        ratio_C = (real_C / fake_C).log()
        real_c, fake_c = (
            ratio_C[torch.bucketize(one_B[1 - side :: 2].contiguous(), edges_C)] for one_B in (real_B, fake_R)
        )
        found.append(float(real_c.mean() - fake_c.logsumexp(0) + math.log(len(fake_c))))
    return sum(found) / 2


def _shares(logits_B: Tensor, edges_C: Tensor) -> Tensor:
    """The share of the logits in each cell, half a one added."""
    count_C = torch.bucketize(logits_B.contiguous(), edges_C).bincount(minlength=len(edges_C) + 1).double() + 0.5
    return count_C / count_C.sum()


def texts_of(law: Law, texts: int, seed: int) -> OracleTask:
    """The task of a law, with so many training texts of a seed."""
    sizes = {"train_size": texts, "valid_size": 1, "test_size": law.samples, "text_seed": seed}
    task = make_task(law.task, **law.options, **sizes)
    assert isinstance(task, OracleTask)
    return task


def likelihood(law: Law, recipe: Recipe, seed: int, member: int = 0) -> Weights:
    """The weights of a policy of maximum likelihood; members are others on the same texts."""
    changes: dict[str, Any] = {"embed_size": recipe.width, "hidden_size": recipe.width, "ema_decay": 0.0}
    changes |= {"dropout": recipe.dropout, "weight_decay": recipe.weight_decay, "batch_size": 64}
    config = replace(mle.fast("oracle"), seed=seed + 100 * member, **changes)
    agent = mle.MLE(config, texts_of(law, recipe.texts, seed))
    (steps,) = agent.round_steps()
    for epoch in range(recipe.epochs):
        steps.alone(derived_seed(config.seed, "epoch", epoch))
    weights: Weights = agent.policy.state_dict()
    return weights


def policy_of(law: Law, recipe: Recipe, weights: Weights) -> LSTMPolicy:
    """A policy with some weights, in eval mode."""
    vocab_size = texts_of(law, 1, 0).vocab_size
    policy = LSTMPolicy(vocab_size, start_token=0, embed_size=recipe.width, hidden_size=recipe.width)
    policy.load_state_dict(weights)
    return policy.eval().requires_grad_(False)
