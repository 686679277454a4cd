"""The d-step: batches of refitting D on fresh texts of G, and what D makes of texts that it has not seen."""

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.optim import Optimizer

from textgan_env.discriminators import DiscriminatorModule, ReplayedTexts, discriminator_report
from textgan_env.discriminators.fit import ObjectiveName, fit_batches, fit_step
from textgan_env.ops.sampling import draw_seed, seeded
from textgan_env.policies import PolicyModule
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import Task
from textgan_env.training.schedule import Step


def fresh_texts(task: Task, asked: int | None) -> int:
    """How many fresh texts of G a d-step learns from; None: as many as there are training texts."""
    return len(task.writable("train")) if asked is None else asked


def refit_batches(task: Task, epochs: int, batch_size: int, texts: int | None = None) -> int:
    """How many batches a d-step has: passes over its `fresh_texts`."""
    return epochs * math.ceil(fresh_texts(task, texts) / batch_size)


def refit_batch(
    step: Step,
    discriminator: DiscriminatorModule,
    optimizer: Optimizer,
    policy: PolicyModule,
    task: Task,
    *,
    batch_size: int,
    objective: ObjectiveName = "cross-entropy",
    replay: ReplayedTexts | None = None,
    texts: int | None = None,
) -> dict[str, float | Tensor]:
    """A batch of a d-step; at the first G generates what D is to learn from.

    Args:
        step: Which batch of which d-step.
        discriminator: D.
        optimizer: D's.
        policy: G, at the temperature it is to generate at; it is not to change before the d-step is over.
        task: Gives real text: the train split to learn, the valid split to ask about.
        batch_size: Texts of each side.
        objective: See `fit_step`.
        replay: Keeps half of the negatives of the d-step before; None: all are fresh.
        texts: See `fresh_texts`.

    Returns:
        ``d_loss`` while fitting; at the last batch also ``d_auc``, ``d_accuracy`` and ``d_value`` on texts that neither
        D nor G has seen.
    """
    seed, tokens_BT = step.item(partial(_batches, policy, task, batch_size, replay, texts))
    with step.dropout(seed):
        loss = fit_step(discriminator, optimizer, tokens_BT, objective=objective)["loss"]
    if not step.is_last:
        return {"d_loss": loss}
    count = fresh_texts(task, texts)
    unseen_BT = _texts(policy, task, step.generator, count, slice(count, None))
    return {"d_loss": loss, **told_apart(discriminator, task, unseen_BT)}


def told_apart(discriminator: DiscriminatorModule, task: Task, fake_BT: Tensor) -> dict[str, float]:
    """``d_auc``, ``d_accuracy`` and ``d_value`` of D on the valid split and on texts of G that it has not seen."""
    report = discriminator_report(discriminator, task.writable("valid").to(fake_BT.device), fake_BT)
    return {"d_auc": report.auc, "d_accuracy": report.accuracy, "d_value": report.value}


def fit_fresh(
    step: Step,
    discriminator: DiscriminatorModule,
    optimizer: Optimizer,
    policy: PolicyModule,
    task: Task,
    *,
    batches: int,
    batch_size: int,
    objective: ObjectiveName = "cross-entropy",
) -> Tensor:
    """A few batches of D right after a g-step, each of random real texts and fresh ones of G.

    Args:
        step: Gives the draws; it may have given others before.
        discriminator: D.
        optimizer: D's.
        policy: G, at the temperature it is to generate at.
        task: Gives real text: its train split.
        batches: How many; at least 1.
        batch_size: Texts of each side.
        objective: See `fit_step`.

    Returns:
        The mean loss before the steps, nats, float scalar.
    """
    real_RT, losses = task.writable("train").to(policy.device), []
    for _ in range(batches):
        chosen_B = torch.randint(len(real_RT), (batch_size,), generator=step.generator).to(policy.device)
        keys = Keys.counted(draw_seed(step.generator), batch_size, device=policy.device)
        fake_BT = generate(policy, keys, task.max_length, end_token=task.end_token)[0]
        with seeded(draw_seed(step.generator)):
            tokens_BT = torch.cat([real_RT[chosen_B], fake_BT])
            losses.append(fit_step(discriminator, optimizer, tokens_BT, objective=objective)["loss"])
    return torch.stack(losses).mean()


def _batches(
    policy: PolicyModule,
    task: Task,
    batch_size: int,
    replay: ReplayedTexts | None,
    texts: int | None,
    generator: torch.Generator,
) -> Iterator[tuple[int | None, Tensor]]:
    """What the batches of a d-step learn from."""
    real_BT = task.writable("train").to(policy.device)
    count = fresh_texts(task, texts)
    fake_BT = _texts(policy, task, generator, count, slice(count))
    if replay is not None:
        fake_BT = replay.renew(fake_BT, generator)
    yield from fit_batches(real_BT, fake_BT, batch_size, generator)


def _texts(policy: PolicyModule, task: Task, generator: torch.Generator, learnt: int, rows: slice) -> Tensor:
    """Some of the texts of a d-step: those to learn from come first, those that D is never fitted on after them."""
    count = learnt + len(task.writable("valid"))
    keys = Keys.counted(draw_seed(generator), count, device=policy.device)[rows]
    return generate(policy, keys, task.max_length, end_token=task.end_token)[0]
