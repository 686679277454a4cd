"""Where a discriminator is fitted, and asked about texts that it has not seen."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators.base import Discriminator, DiscriminatorModule
from textgan_env.discriminators.infilling import InfillingDiscriminator
from textgan_env.discriminators.rank import RankDiscriminator
from textgan_env.discriminators.scoring import score_logits
from textgan_env.ops.losses import masked_sum
from textgan_env.ops.metrics import roc_auc
from textgan_env.ops.parallel import Sum, backward
from textgan_env.ops.sampling import draw_seed, evaluating, seeded
from textgan_env.utils.errors import InputError, require, require_at_least

#: What D is fitted to: tell a text's side (Goodfellow et al. 2014), the real one of a pair, or rank real texts first.
ObjectiveName = Literal["cross-entropy", "pairs", "ranking"]

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
        self.tokens_RT = nn.Buffer(torch.full((rows, max_length), vocab_size))

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


def fit_discriminator(
    discriminator: Discriminator,
    optimizer: torch.optim.Optimizer,
    real_BT: Tensor,
    fake_BT: Tensor,
    *,
    steps: int,
    batch_size: int = 64,
    generator: torch.Generator,
    objective: ObjectiveName = "cross-entropy",
) -> dict[str, float]:
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
        objective: See `fit_step`.

    Returns:
        Means over the steps of the numbers of `fit_step`, NaN after 0 steps. Not a judgement of D, which has seen
        these texts: that is `discriminator_report` on others.

    Raises:
        InputError: If a number is out of range, one side is empty, D cannot be trained, or the loss is not
            finite (then that step is not taken).
    """
    require_at_least(0, steps=steps)
    batches = fit_batches(real_BT, fake_BT, batch_size, generator)
    seed, tokens_BT = next(batches)
    seen: dict[str, list[Tensor]] = {"loss": [], "penalty": [], "accuracy": []}
    with seeded(seed or 0):
        for step in range(steps):
            tokens_BT = next(batches)[1] if step else tokens_BT
            for name, value in fit_step(discriminator, optimizer, tokens_BT, objective=objective).items():
                seen[name].append(value)
    # Brought here at the end: at each step a GPU would wait for it.
    return {name: math.fsum(torch.stack(some).tolist()) / steps if steps else math.nan for name, some in seen.items()}


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
    real_orders, fake_orders = (_orders(side_BT, batch_size, generator) for side_BT in (real_BT, fake_BT))
    while True:
        yield seed, torch.cat([real_BT[next(real_orders)], fake_BT[next(fake_orders)]])
        seed = None


def fit_step(
    discriminator: Discriminator,
    optimizer: torch.optim.Optimizer,
    tokens_BT: Tensor,
    *,
    objective: ObjectiveName = "cross-entropy",
    template_BT: Tensor | None = None,
) -> dict[str, Tensor]:
    """One step of `fit_discriminator`, with dropout on; D's parts get their modes back.

    Args:
        discriminator: D, an ``nn.Module``.
        optimizer: Of D's parameters.
        tokens_BT: int64; half of them real, then as many fake.
        objective: ``cross-entropy``; ``pairs``: see `_pairs`; ``ranking``: `RankDiscriminator.ranking_loss`.
        template_BT: int64; the template of each text, for cross entropy of an `InfillingDiscriminator`.

    Returns:
        ``loss`` (nats), ``penalty`` (nats a text) and ``accuracy`` before the step.

    Raises:
        InputError: If D cannot be trained, or the loss is not finite (then the step is not taken).
    """
    half = len(tokens_BT) // 2
    if objective == "cross-entropy":
        real_is_one_B = (torch.arange(2 * half, device=tokens_BT.device) < half).float()
        given = () if template_BT is None else (template_BT,)
        return _step(discriminator, optimizer, (tokens_BT, real_is_one_B, *given), _cross_entropy)
    sides = (tokens_BT[:half], tokens_BT[half:])
    return _step(discriminator, optimizer, sides, _pairs if objective == "pairs" else _ranking)


def fit_soft_step(
    discriminator: DiscriminatorModule,
    optimizer: torch.optim.Optimizer,
    real_HT: Tensor,
    soft_HTV: Tensor,
    mask_HT: Tensor,
) -> dict[str, Tensor]:
    """A `fit_step` on ``pairs`` whose fake texts are mixtures of tokens.

    Args:
        discriminator: D, one that reads mixtures.
        optimizer: Of D's parameters.
        real_HT: int64.
        soft_HTV: float; as many texts (see `DiscriminatorModule.relaxed_features`).
        mask_HT: bool; the tokens of these.

    Returns:
        As `fit_step`.

    Raises:
        InputError: As `fit_step`, and if D reads tokens only.
    """
    return _step(discriminator, optimizer, (real_HT, soft_HTV, mask_HT), _soft_pairs)


def _step(
    discriminator: Discriminator,
    optimizer: torch.optim.Optimizer,
    columns: tuple[Tensor, ...],
    sums: Callable[..., dict[str, Sum]],
) -> dict[str, Tensor]:
    """One step down the loss and the penalty; ``sums`` takes D and some rows of the columns."""
    if not isinstance(discriminator, nn.Module):
        raise InputError(f"only an nn.Module can be fitted, found a {type(discriminator).__name__}")
    weights = [parameter for parameter in discriminator.parameters() if parameter.requires_grad]
    frozen = "a discriminator without trainable weights cannot be fitted: fit a copy of it, after requires_grad_(True)"
    require(bool(weights), frozen)
    # `evaluating` gives every part its own mode back, whatever it is switched to inside.
    with evaluating(discriminator), torch.enable_grad():
        discriminator.train()
        minimise = {"loss": 1.0, "penalty": 1.0}
        numbers, _ = backward(weights, columns, partial(sums, discriminator), minimise=minimise, dropout=True)
    loss = float(numbers["loss"] + numbers["penalty"])
    why = "its learning rate is too high, or its weights were not finite before"
    require(math.isfinite(loss), f"the loss of the discriminator must be finite, found {loss}: {why}")
    optimizer.step()
    return numbers


def _cross_entropy(
    discriminator: Discriminator, tokens_BT: Tensor, real_is_one_B: Tensor, template_BT: Tensor | None = None
) -> dict[str, Sum]:
    """Sums over the logits that are fitted; the penalty counts once for each text."""
    if template_BT is not None:
        if not isinstance(discriminator, InfillingDiscriminator):
            raise InputError(f"templates are for an InfillingDiscriminator, found a {type(discriminator).__name__}")
        discriminator = discriminator.given(template_BT)
    logits_BX, counts_BX = _fitted_logits(discriminator, tokens_BT)
    target_BX = real_is_one_B.to(logits_BX.dtype)[:, None].expand_as(logits_BX)
    loss_BX = functional.binary_cross_entropy_with_logits(logits_BX, target_BX, reduction="none")
    right_BX = ((logits_BX > 0) == target_BX.bool()).float()
    penalty = _penalty(discriminator, loss_BX, len(tokens_BT))
    return {"loss": masked_sum(loss_BX, counts_BX), "penalty": penalty, "accuracy": masked_sum(right_BX, counts_BX)}


def _pairs(discriminator: Discriminator, real_HT: Tensor, fake_HT: Tensor) -> dict[str, Sum]:
    """-log sigmoid(logit of a real text - logit of the fake one at its place), summed over the pairs.

    The relativistic loss of Jolicoeur-Martineau 2018, and that of a reward model on preferences (Bradley and Terry
    1952). The best logit is log p / q up to a constant, so a reward less its mean is that of cross entropy.
    """
    logits_B = discriminator.logits(torch.cat([real_HT, fake_HT]))
    return _margins(discriminator, logits_B[: len(real_HT)] - logits_B[len(real_HT) :])


def _soft_pairs(
    discriminator: DiscriminatorModule, real_HT: Tensor, soft_HTV: Tensor, mask_HT: Tensor
) -> dict[str, Sum]:
    """`_pairs` whose fake texts are mixtures of tokens."""
    return _margins(discriminator, discriminator.logits(real_HT) - discriminator.relaxed_logits(soft_HTV, mask_HT))


def _margins(discriminator: Discriminator, margin_H: Tensor) -> dict[str, Sum]:
    """The sums of `_pairs` from how much higher the logit of each real text is than that of its fake one."""
    loss, pairs = -functional.logsigmoid(margin_H).sum(), float(len(margin_H))
    penalty = _penalty(discriminator, loss, len(margin_H))
    return {"loss": (loss, pairs), "penalty": penalty, "accuracy": ((margin_H > 0).float().sum(), pairs)}


def _ranking(discriminator: Discriminator, real_HT: Tensor, fake_HT: Tensor) -> dict[str, Sum]:
    """The ranker's own loss, summed over pairs; texts of a shard are compared with each other."""
    if not isinstance(discriminator, RankDiscriminator):
        raise InputError(f"ranking fits a RankDiscriminator, found a {type(discriminator).__name__}")
    loss_H, nearer_H = discriminator.ranking_loss(real_HT, fake_HT)
    pairs = float(len(loss_H))
    penalty = _penalty(discriminator, loss_H, len(loss_H))
    return {"loss": (loss_H.sum(), pairs), "penalty": penalty, "accuracy": ((nearer_H > 0).float().sum(), pairs)}


def _fitted_logits(discriminator: Discriminator, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
    """`DiscriminatorModule.fitted_logits`; one a text from what is no module of ours."""
    if isinstance(discriminator, DiscriminatorModule):
        return discriminator.fitted_logits(tokens_BT)
    logits_B1 = discriminator.logits(tokens_BT)[:, None]
    return logits_B1, torch.ones_like(logits_B1, dtype=torch.bool)


def _penalty(discriminator: Discriminator, loss: Tensor, rows: int) -> Sum:
    """D's penalty, once for each of some rows."""
    ours = isinstance(discriminator, DiscriminatorModule)
    penalty = discriminator.penalty() if ours else loss.new_zeros(())  # type: ignore[attr-defined]
    return penalty * rows, float(rows)


def _orders(side_BT: Tensor, batch_size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of row numbers without end: one random order of all rows after another, none left out between."""
    waiting = torch.empty(0, dtype=torch.int64, device=side_BT.device)
    while True:
        while len(waiting) < batch_size:
            order = torch.randperm(len(side_BT), generator=generator, device=generator.device)
            waiting = torch.cat([waiting, order.to(side_BT.device)])
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
class DiscriminatorReport:
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

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """Name -> number, for a log."""
        return {f"{prefix}{name}": value for name, value in vars(self).items()}


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
