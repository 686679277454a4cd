"""Where a discriminator is fitted, and asked about texts that it has not seen."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.base import Discriminator, DiscriminatorModule, score_logits
from textgan_env.ops.metrics import roc_auc
from textgan_env.ops.parallel import Sum, backward
from textgan_env.ops.sampling import draw_seed, evaluating, seeded
from textgan_env.utils.errors import InputError, require, require_at_least

#: V(D, G) when nobody can tell real from fake: ln 1/2 + ln 1/2 (Goodfellow et al. 2014, theorem 1).
EQUILIBRIUM_VALUE = -2 * math.log(2)


class ReplayedTexts(nn.Module):
    """The written texts that D was last fitted against; half of them stay for the next fit (experience replay).

    A module, because what it remembers belongs in a checkpoint.

    Args:
        rows: How many texts.
        max_length: T.
        vocab_size: V.
    """

    def __init__(self, rows: int, max_length: int, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        self.register_buffer("tokens_RT", torch.full((rows, max_length), vocab_size))
        self.tokens_RT: Tensor

    def renew(self, fresh_RT: Tensor, generator: torch.Generator) -> Tensor:
        """Replace a random half of the texts, all of them at first; the same call again changes nothing more.

        Args:
            fresh_RT: int64; as many texts as are remembered.
            generator: Of the choice.

        Returns:
            The texts now remembered, int64 (R, T).
        """
        stays_R = (torch.rand(len(fresh_RT), generator=generator) < 0.5).to(fresh_RT.device)
        stays_R &= self.tokens_RT[:, 0] != self.vocab_size
        self.tokens_RT.copy_(torch.where(stays_R[:, None], self.tokens_RT, fresh_RT))
        return self.tokens_RT.clone()


class _Numbers:
    """What the reports here share."""

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """Name -> number, for a log."""
        return {f"{prefix}{name}": value for name, value in vars(self).items()}


@dataclass(frozen=True)
class FitReport(_Numbers):
    """What a fit did: means over its steps, each batch looked at before its step and with dropout on.

    Not a judgement of D, which has seen these texts: that is `discriminator_report` on others. NaN after 0 steps.

    Attributes:
        steps: Steps done.
        loss: Cross entropy, nats a text.
        penalty: Regularisation term that was added to it, nats.
        accuracy: Share of texts on whose side of 0 the logit fell.
    """

    steps: int
    loss: float
    penalty: float
    accuracy: float


def fit_discriminator(
    discriminator: Discriminator,
    optimizer: torch.optim.Optimizer,
    real_BT: Tensor,
    fake_BT: Tensor,
    *,
    steps: int,
    batch_size: int = 64,
    generator: torch.Generator,
) -> FitReport:
    """Fit D to tell real from fake: cross entropy on the logit plus D's penalty, each step half real, half fake.

    Goodfellow et al. 2014 eq. 1 as a loss: -(E log D(real) + E log(1 - D(fake))) / 2. Both sides are gone through
    in fresh random orders, as often as the steps need; they may differ in size, and be smaller than a batch.
    The modes of D's parts are given back as they were, and the global RNG does not move.

    Args:
        discriminator: D, an ``nn.Module``; a `DiscriminatorModule` brings a penalty.
        optimizer: Of D's parameters; keep it for the next fit.
        real_BT: int64 (any number, T).
        fake_BT: int64 (any number, T).
        steps: Steps of the optimizer; may be 0.
        batch_size: Texts of each side in a step.
        generator: Of the orders and of dropout.

    Returns:
        Loss and accuracy while fitting.

    Raises:
        InputError: If a number is out of range, one side is empty, D cannot be trained, or the loss is not
            finite (then that step is not taken).
    """
    require_at_least(0, steps=steps)
    batches = fit_batches(real_BT, fake_BT, batch_size, generator)
    seed, tokens_BT = next(batches)
    seen: dict[str, list[float]] = {"loss": [], "penalty": [], "accuracy": []}
    with seeded(seed or 0):
        for step in range(steps):
            tokens_BT = next(batches)[1] if step else tokens_BT
            for name, value in fit_step(discriminator, optimizer, tokens_BT).items():
                seen[name].append(float(value))
    return FitReport(steps, **{name: math.fsum(some) / steps if steps else math.nan for name, some in seen.items()})


def fit_batches(
    real_BT: Tensor, fake_BT: Tensor, batch_size: int, generator: torch.Generator
) -> Iterator[tuple[int | None, Tensor]]:
    """Batches for `fit_step` without end, from both sides in random orders of their own.

    Args:
        real_BT: int64 (any number, T).
        fake_BT: int64 (any number, T).
        batch_size: Texts of each side in a batch.
        generator: Of the orders and of dropout.

    Yields:
        (seed, tokens_BT): with the first batch the seed of dropout, with the others None; int64, real texts first.

    Raises:
        InputError: If the batch size is below 1, or one side is empty.
    """
    require_at_least(1, batch_size=batch_size)
    _check_sides(real_BT, fake_BT)
    seed: int | None = draw_seed(generator)
    real_orders, fake_orders = (_orders(len(side_BT), batch_size, generator) for side_BT in (real_BT, fake_BT))
    while True:
        real_B, fake_B = next(real_orders), next(fake_orders)
        yield seed, torch.cat([real_BT[real_B.to(real_BT.device)], fake_BT[fake_B.to(fake_BT.device)]])
        seed = None


def fit_step(discriminator: Discriminator, optimizer: torch.optim.Optimizer, tokens_BT: Tensor) -> dict[str, Tensor]:
    """One step of `fit_discriminator`, with dropout on; D's parts get their modes back.

    Args:
        discriminator: D, an ``nn.Module``.
        optimizer: Of D's parameters.
        tokens_BT: int64; half of them real, then as many fake.

    Returns:
        ``loss`` (cross entropy), ``penalty`` (nats a text) and ``accuracy`` before the step.

    Raises:
        InputError: If D cannot be trained, or the loss is not finite (then the step is not taken).
    """
    if not isinstance(discriminator, nn.Module):
        raise InputError(f"only an nn.Module can be fitted, found a {type(discriminator).__name__}")
    weights = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
    frozen = "a discriminator without trainable weights cannot be fitted: fit a copy of it, after requires_grad_(True)"
    require(bool(weights), frozen)
    half = len(tokens_BT) // 2
    real_is_one_B = torch.tensor([1.0, 0.0], device=tokens_BT.device).repeat_interleave(half)
    # `evaluating` gives every part its own mode back, whatever it is switched to inside.
    with evaluating(discriminator), torch.enable_grad():
        discriminator.train()
        minimise = {"loss": 1.0, "penalty": 1.0}
        objective = partial(_cross_entropy, discriminator)
        numbers, _ = backward(weights, (tokens_BT, real_is_one_B), objective, minimise=minimise, dropout=True)
    loss = float(numbers["loss"] + numbers["penalty"])
    why = "its learning rate is too high, or its weights were not finite before"
    require(math.isfinite(loss), f"the loss of the discriminator must be finite, found {loss}: {why}")
    optimizer.step()
    return numbers


def _cross_entropy(discriminator: Discriminator, tokens_BT: Tensor, real_is_one_B: Tensor) -> dict[str, Sum]:
    """Sums over the texts; the penalty counts once for each of them."""
    logits_B, rows = discriminator.logits(tokens_BT), float(len(tokens_BT))
    target_B = real_is_one_B.to(logits_B.dtype)
    loss = functional.binary_cross_entropy_with_logits(logits_B, target_B, reduction="sum")
    judged = isinstance(discriminator, DiscriminatorModule)
    penalty = discriminator.penalty() if judged else loss.new_zeros(())  # type: ignore[attr-defined]
    accuracy = ((logits_B > 0) == real_is_one_B.bool()).float().sum()
    return {"loss": (loss, rows), "penalty": (penalty * rows, rows), "accuracy": (accuracy, rows)}


def _orders(rows: int, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of row numbers without end: one random order of all rows after another, none left out between."""
    waiting = torch.empty(0, dtype=torch.int64, device=generator.device)
    while True:
        while len(waiting) < batch_size:
            waiting = torch.cat([waiting, torch.randperm(rows, generator=generator, device=generator.device)])
        yield waiting[:batch_size]
        waiting = waiting[batch_size:]


def _check_sides(real_BT: Tensor, fake_BT: Tensor) -> None:
    """Refuse texts of two lengths, and a side without texts."""
    real, fake = tuple(real_BT.shape), tuple(fake_BT.shape)
    alike = len(real) == len(fake) == 2 and real[1] == fake[1]
    require(alike, f"real and fake texts must have shapes (B, T) with the same T, found {real} and {fake}")
    some = min(real[0], fake[0]) > 0
    require(some, f"at least one real and one fake text are needed, found {real[0]} and {fake[0]}")


@dataclass(frozen=True)
class DiscriminatorReport(_Numbers):
    """How well D tells real from fake; meaningful on texts that neither D nor the generator has seen.

    Both sides count the same, whatever their sizes. A logit of 0 or below says "fake".

    Attributes:
        loss: Cross entropy, nats a text: mean over real and mean over fake, halved; ln 2 for a D that knows nothing.
        accuracy: Mean of the next two.
        accuracy_real: Share of real texts called real.
        accuracy_fake: Share of fake texts called fake.
        auc: Probability that a real text scores above a fake one; 0.5 for a D that knows nothing.
        value: V(D, G) = E log D(real) + E log(1 - D(fake)), nats: -2 loss. `EQUILIBRIUM_VALUE` if none can tell.
    """

    loss: float
    accuracy: float
    accuracy_real: float
    accuracy_fake: float
    auc: float
    value: float


def discriminator_report(discriminator: Discriminator, real_BT: Tensor, fake_BT: Tensor) -> DiscriminatorReport:
    """Measure D on texts of known origin, in eval mode; changes nothing.

    Args:
        discriminator: D.
        real_BT: int64 (any number, T).
        fake_BT: int64 (any number, T).

    Raises:
        InputError: If one side is empty, or a logit is NaN.
    """
    _check_sides(real_BT, fake_BT)
    real_B = score_logits(discriminator, real_BT).double().cpu()
    fake_B = score_logits(discriminator, fake_BT).double().cpu()
    value = float(functional.logsigmoid(real_B).mean() + functional.logsigmoid(-fake_B).mean())
    accuracy_real, accuracy_fake = float((real_B > 0).double().mean()), float((fake_B <= 0).double().mean())
    accuracy, auc = (accuracy_real + accuracy_fake) / 2, roc_auc(real_B.numpy(), fake_B.numpy())
    return DiscriminatorReport(-value / 2, accuracy, accuracy_real, accuracy_fake, auc, value)
