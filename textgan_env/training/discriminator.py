"""The d-step."""

import math

import torch
from torch.optim import Optimizer

from textgan_env.discriminators import DiscriminatorModule, ReplayedTexts, discriminator_report, fit_discriminator
from textgan_env.ops.sampling import draw_seed
from textgan_env.policies import PolicyModule
from textgan_env.rewards import Keys, generate
from textgan_env.tasks import Task


def refit_discriminator(
    discriminator: DiscriminatorModule,
    optimizer: Optimizer,
    policy: PolicyModule,
    task: Task,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    replay: ReplayedTexts | None = None,
) -> dict[str, float]:
    """A d-step: refit D on as many fresh texts of G as there are training texts, and ask it about unseen ones.

    Args:
        discriminator: D.
        optimizer: Of D.
        policy: G, at the temperature it is to write at.
        task: Gives real text: the train split to learn, the valid split to ask about.
        epochs: Passes over both.
        batch_size: Texts of each side in a step.
        generator: Of the texts, their order and dropout.
        replay: Keeps half of the negatives of the fit before; None: all are fresh.

    Returns:
        ``d_loss`` while fitting; ``d_auc``, ``d_accuracy`` and ``d_value`` on texts that neither D nor G has seen.
    """
    real_BT, held_out_BT = task.writable("train").to(policy.device), task.writable("valid").to(policy.device)
    keys = Keys.counted(draw_seed(generator), len(real_BT) + len(held_out_BT), device=policy.device)
    written_BT = generate(policy, keys, task.max_length, end_token=task.end_token)[0]
    fresh_BT, unseen_BT = written_BT.tensor_split([len(real_BT)])
    fit = fit_discriminator(
        discriminator,
        optimizer,
        real_BT,
        fresh_BT if replay is None else replay.renew(fresh_BT, generator),
        steps=epochs * math.ceil(len(real_BT) / batch_size),
        batch_size=batch_size,
        generator=generator,
    )
    report = discriminator_report(discriminator, held_out_BT, unseen_BT)
    return {"d_loss": fit.loss, "d_auc": report.auc, "d_accuracy": report.accuracy, "d_value": report.value}
