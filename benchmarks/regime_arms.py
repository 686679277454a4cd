"""The trainings behind `benchmarks.regimes`: the best maximum likelihood of a size, and what is made of it.

All on one small oracle, whose texts of a seed are the same for every arm.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from agents import mle, seqgan
from benchmarks.measure import SIZES, point
from textgan_env.discriminators import Discriminator, score_logits
from textgan_env.evaluation import DiscriminatorWorth, discriminator_worth
from textgan_env.ops.sampling import derived_generator, derived_seed
from textgan_env.policies import Decoding, EnsemblePolicy, LSTMPolicy, PolicyModule, RatioDiscriminator
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import OracleTask
from textgan_env.training.divergence import prefix_kl
from textgan_env.training.schedule import Memory, Step

Weights = dict[str, Tensor]
Recipe = Mapping[str, Any]

#: What the search of the best maximum likelihood chooses from, for each size of student and number of texts.
RECIPES: tuple[dict[str, float], ...] = tuple(
    {"dropout": dropout, "weight_decay": decay} for dropout, decay in product((0.0, 0.2), (0.01, 0.1))
)
#: Of the curve of an arm: a reward makes policies cold, and those cover as well as their start only when warmed.
TEMPERATURES = (1.5, 1.25, 1.1, 1.0, 0.9, 0.8, 0.7)


@dataclass(frozen=True)
class Scale:
    """How large everything is.

    Attributes:
        vocab_size: V of the oracle.
        max_length: T.
        check: Steps of maximum likelihood (of 128 texts) from one look at the valid split to the next.
        patience: Looks without a better NLL after which maximum likelihood is over.
        most_checks: Looks at most.
        more_texts: Texts that D learns from where it knows more texts than G.
        d_batches: Batches of D, of 256 texts of each side, from one look to the next; at most 8 looks.
        g_steps: g-steps.
        batch_size: Texts a g-step.
        distill_steps: Steps of distillation, of 64 texts of the teacher, and of learning what was resampled.
        samples: Texts of each side that a policy and a discriminator are measured on.
    """

    vocab_size: int = 50
    max_length: int = 10
    check: int = 100
    patience: int = 3
    most_checks: int = 30
    more_texts: int = 20_000
    d_batches: int = 60
    g_steps: int = 80
    batch_size: int = 256
    distill_steps: int = 400
    samples: int = 3_000


def make_task(scale: Scale, texts: int, seed: int) -> OracleTask:
    """The oracle, with so many training texts of a seed."""
    sizes: dict[str, Any] = {"train_size": texts, "valid_size": 2_000, "test_size": scale.samples}
    return OracleTask(max_length=scale.max_length, vocab_size=scale.vocab_size, text_seed=seed, **sizes)


# ----------------------------------------------------------------------------------------------------
# Maximum likelihood
class Likelihood:
    """Maximum likelihood with averaged weights that can be looked at and gone on with; the best weights are kept.

    Args:
        scale: Sizes.
        task: Gives the texts.
        size: Of the student's embedding and LSTM.
        recipe: One of `RECIPES`.
        seed: Of initial weights and orders.
    """

    def __init__(self, scale: Scale, task: OracleTask, size: int, recipe: Recipe, seed: int) -> None:
        changes: dict[str, Any] = {"embed_size": size, "hidden_size": size, "batch_size": 128, **recipe}
        config = replace(mle.fast("oracle"), seed=seed, **changes)
        self.scale, self.agent = scale, mle.MLE(config, task)
        self.epoch, self.steps, self.best, self.since = 0, 0, float("inf"), 0
        self.weights: Weights = {}

    def go(self, checks: int) -> float:
        """So many looks further, or until validation says that it is over; returns the best NLL-valid so far."""
        (steps,) = self.agent.round_steps()
        for _ in range(checks):
            if self.over:
                break
            enough = self.steps + self.scale.check
            while self.steps < enough:
                seed, memory = derived_seed(self.agent.config.seed, "epoch", self.epoch), Memory()
                for batch in range(steps.batches):
                    steps.run(Step(seed, round=self.epoch, batch=batch, batches=steps.batches, memory=memory))
                self.epoch, self.steps = self.epoch + 1, self.steps + steps.batches
            nll = self.agent.nll_of_average()
            self.since = 0 if nll < self.best else self.since + 1
            if nll < self.best:
                self.best, self.weights = nll, copy.deepcopy(self.agent.average.policy.state_dict())
        return self.best

    @property
    def over(self) -> bool:
        """Whether validation asks for no more."""
        looks = self.since >= self.scale.patience
        return looks or self.steps >= self.scale.check * self.scale.most_checks


def search(scale: Scale, task: OracleTask, size: int, recipes: Sequence[Recipe] = RECIPES) -> dict[str, Any]:
    """The recipe of the lowest NLL-valid, by successive halving (Jamieson and Talwalkar 2016); the last may go on."""
    runs = [(Likelihood(scale, task, size, recipe, seed=0), recipe) for recipe in recipes]
    for checks in (2, 4, scale.most_checks):
        runs = sorted(runs, key=lambda run: run[0].go(checks))
        runs = runs[: max(1, len(runs) // 2)]
    found, recipe = runs[0]
    return {"recipe": recipe, "nll_valid": found.best, "steps": found.steps, "epochs": found.epoch}


def best_likelihood(scale: Scale, task: OracleTask, size: int, recipe: Recipe, seed: int) -> Weights:
    """The weights of the lowest NLL-valid under a recipe, for as long as validation asks."""
    run = Likelihood(scale, task, size, recipe, seed)
    run.go(scale.most_checks)
    return run.weights


def student(scale: Scale, size: int, weights: Weights) -> LSTMPolicy:
    """A policy with some weights, in eval mode."""
    policy = LSTMPolicy(scale.vocab_size, start_token=0, embed_size=size, hidden_size=size)
    policy.load_state_dict(weights)
    return policy.eval()


# ----------------------------------------------------------------------------------------------------
# What is made of it
def halves_of(task: OracleTask) -> tuple[OracleTask, OracleTask]:
    """The task with the first half of its training texts, and with the second."""
    rows = torch.arange(len(task.split("train")))
    middle = len(rows) // 2
    return task.learnt_from(rows[:middle]), task.learnt_from(rows[middle:])


def reinforced(
    scale: Scale,
    task: OracleTask,
    start: LSTMPolicy,
    knows: str,
    sides: Sequence[tuple[OracleTask, LSTMPolicy]],
    seed: int,
) -> Iterator[tuple[str, PolicyModule, DiscriminatorWorth]]:
    """What a D that is fitted once teaches by SeqGAN, with the KL of weight 1 to where it begins, and by resampling.

    Each beside its shuffled control.

    Args:
        scale: Sizes.
        task: Of the student's texts.
        start: The best maximum likelihood.
        knows: Name of what D has learnt from.
        sides: Tasks whose real texts D reads, each with the policy whose texts it reads beside them; none: D is the
            true log p / q of where the student begins.
        seed: Of all draws.

    Yields:
        Name of the arm, the policy, and what D is worth against the start.
    """
    weights = _fit(scale, sides, seed) if sides else None
    worth: DiscriminatorWorth | None = None
    for control in (None, "shuffled"):
        agent = _seqgan(scale, task, start, control, seed)
        if weights is None:
            agent.discriminator = RatioDiscriminator(task.oracle, copy.deepcopy(start), task.max_length)  # type: ignore[assignment]
        assert agent.discriminator is not None
        if weights is not None:
            agent.discriminator.load_state_dict(weights)
        if worth is None:
            worth = discriminator_worth(agent.discriminator, start, task, samples=scale.samples, seed=seed)
        for number in range(scale.g_steps):
            for group in agent.g_optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - number / scale.g_steps)
            agent.g_step(Step(derived_seed(seed, "g", number), round=number))
        told = "" if control is None else ", shuffled"
        yield f"{knows}{told}", agent.policy.eval(), worth
        again = resampled(scale, task, start, agent.discriminator, seed, shuffled=control is not None)
        yield f"{knows}, resampled{told}", again, worth


def _seqgan(scale: Scale, task: OracleTask, start: LSTMPolicy, control: Any, seed: int) -> seqgan.SeqGAN:
    """The agent, which begins as a policy."""
    size = start.lstm.hidden_size
    config = replace(
        seqgan.fast("oracle"), embed_size=size, hidden_size=size, dropout=0.0, ema_decay=0.0,
        discriminator="recurrent", d_batch_size=256, d_learning_rate=3e-3, rollouts=0, batch_size=scale.batch_size,
        control=control, seed=seed,
        d_epochs=max(1, round(scale.d_batches * 256 / len(task.split("train")))),
    )  # fmt: skip
    agent = seqgan.SeqGAN(config, task)
    agent.policy.load_state_dict(start.state_dict())
    agent.end_pretraining(Step(0))  # the KL is measured from here
    return agent


def _fit(scale: Scale, sides: Sequence[tuple[OracleTask, LSTMPolicy]], seed: int) -> Weights:
    """The weights of D at which its loss on the valid split and fresh texts is lowest; over after two worse looks."""
    agents = [_seqgan(scale, task, author, None, seed) for task, author in sides]
    first = agents[0]
    assert first.discriminator is not None
    for agent in agents:  # one D learns beside all authors
        agent.discriminator, agent.d_optimizer = first.discriminator, first.d_optimizer
    best, since, weights = -float("inf"), 0, {}
    for look in range(8):
        key = derived_seed(seed, "d", look)
        value = fmean(agent.d_steps_of(1).alone(key)["d_value"] for agent in agents)
        since = 0 if value > best else since + 1
        if value > best:
            best, weights = value, copy.deepcopy(first.discriminator.state_dict())
        if since == 2:
            break
    return weights


def resampled(
    scale: Scale, task: OracleTask, start: LSTMPolicy, discriminator: Discriminator, seed: int, *, shuffled: bool
) -> LSTMPolicy:
    """The start, which learns texts of its own that are drawn again in proportion to exp(z): a sample of q exp(z) / Z.

    Where SeqGAN goes down KL(q || p), this goes down KL(p || q).

    Args:
        scale: Sizes.
        task: Says how long texts are.
        start: Writes all texts before it learns from any.
        discriminator: Gives z.
        seed: Of all draws.
        shuffled: Whether each text has the z of another one.
    """
    policy, generator = copy.deepcopy(start).requires_grad_(True), derived_generator(seed, "resampled")
    keys = Keys.counted(derived_seed(seed, "resampled", "texts"), 64 * scale.distill_steps)
    tokens_RT = generate(start, keys, task.max_length)[0]
    z_R = score_logits(discriminator, tokens_RT).double()
    if shuffled:
        z_R = z_R[torch.randperm(len(z_R), generator=generator)]
    rows_R = z_R.softmax(0).multinomial(len(z_R), replacement=True, generator=generator)

    def loss(number: int) -> Tensor:
        """The mean NLL of the texts of a step."""
        tokens_BT = tokens_RT[rows_R[64 * number : 64 * (number + 1)]]
        return -policy.log_prob(tokens_BT, tokens_BT != task.vocab_size).mean()

    return _descended(scale, policy, loss)


def distilled(
    scale: Scale, task: OracleTask, start: LSTMPolicy, teachers: Sequence[PolicyModule], seed: int
) -> LSTMPolicy:
    """The start, taught by the geometric mean of some policies: KL(teacher || student) at the teacher's prefixes."""
    policy, teacher = copy.deepcopy(start).requires_grad_(True), EnsemblePolicy(teachers, "geometric").eval()

    def loss(number: int) -> Tensor:
        """The divergence at fresh texts of the teacher, nats a token."""
        keys = Keys.counted(derived_seed(seed, "distill"), 64, first_episode=64 * number)
        tokens_BT = generate(teacher, keys, task.max_length)[0]
        total, _ = prefix_kl(policy, teacher, tokens_BT, tokens_BT != task.vocab_size, forward=True)
        return total / tokens_BT.numel()

    return _descended(scale, policy, loss)


def _descended(scale: Scale, policy: LSTMPolicy, loss: Callable[[int], Tensor]) -> LSTMPolicy:
    """A policy after steps down a loss, with a rate that falls to 0 along a cosine; in eval mode."""
    optimizer = torch.optim.Adam(policy.parameters(), lr=5e-3)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, scale.distill_steps)
    for number in range(scale.distill_steps):
        optimizer.zero_grad()
        loss(number).backward()
        optimizer.step()
        rate.step()
    return policy.eval()


def curve(scale: Scale, task: OracleTask, policy: PolicyModule, seed: int) -> list[dict[str, float]]:
    """Cover and fit at `TEMPERATURES`, nats per token."""
    sizes, points = replace(SIZES["fast"], curve=scale.samples), []
    for temperature in TEMPERATURES:
        values = point(policy.with_decoding(Decoding(temperature)), task, sizes, seed)
        points.append({"temperature": temperature, "cover": values["cover"], "fit": values["fit"]})
    return points
