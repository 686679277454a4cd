"""What a discriminator is worth: by how much a policy could be better, were its texts weighed with all that D knows."""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from textgan_env.discriminators import RankDiscriminator, score_logits
from textgan_env.discriminators.base import Discriminator
from textgan_env.evaluation.evaluate import HeldOut
from textgan_env.evaluation.likelihood import nll
from textgan_env.ops.losses import effective_sample_size, normalised_weights
from textgan_env.ops.metrics import roc_auc
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies import Policy, PolicyModule
from textgan_env.rewards import Keys, generate_scored
from textgan_env.tasks import Task
from textgan_env.utils.errors import require, require_at_least

_FEWEST = 50  # texts that weights must be worth


@dataclass(frozen=True)
class DiscriminatorWorth:
    """What D is worth against a policy q, on real texts and texts of q that neither has learnt from.

    D's logit z added to log q is another model of the text, q exp(z) / Z. The gain is that model's, without any
    training; adversarial training can reach it if q's network can hold it.

    Attributes:
        auc: Probability that a real text scores above a text of q; .5: D knows nothing.
        bound: d'^2 / 2 with d' = sqrt(2) Phi^-1(auc), nats per token: the gain of the best use of a D of this AUC, if z
            is Gaussian on both sides with one variance; 0 below AUC .5. No bound where z is not (see docs/when.md).
        gain: NLL of the real texts under q less that under q exp(z) / Z, nats per token: what weighing texts of q with
            exp(z) wins. On tasks with an oracle this is the true gain in cover. Below 0 where D is too sure of itself.
        gain_error: Its standard error, nats per token; too small where few texts have all the weight.
        scale: The multiple of z with the largest gain, among those whose weights leave the worth of 50 texts in each
            half: of fewer, the gain comes out too large.
        scaled_gain: The gain of that use, nats per token, each half of the texts under the scale of the other half.
        effective_share: Texts of equal weight that say as much as those weighed with exp(z), as a share of all.
        correlation: Of z with the true log p / q, over texts of q (Pearson); None without an oracle, or where q has no
            formula.
        fit_gain: KL(q || p) less KL(q exp(z) / Z || p), nats per token; None likewise.
        noise: Standard error of q's NLL on the real texts, nats per token: a smaller gain does not show in that number.
        real_texts: Real texts that were asked about.
        fake_texts: Texts of q, as many.
        left_out: Held-out texts that were not asked about, as they stand among those that D has learnt from.
        tokens: Mean length of the real texts, tokens.
    """

    auc: float
    bound: float
    gain: float
    gain_error: float
    scale: float
    scaled_gain: float
    effective_share: float
    correlation: float | None
    fit_gain: float | None
    noise: float
    real_texts: int
    fake_texts: int
    left_out: int
    tokens: float

    @property
    def best(self) -> float:
        """The bound, or what weighing was found to win where that is more: z is not Gaussian there. Nats per token."""
        return max(self.bound, self.scaled_gain)

    @property
    def small(self) -> bool:
        """Whether the best use wins less than the noise."""
        return self.best < self.noise

    def sentence(self) -> str:
        """What it means, in one sentence."""
        worth = f"used at its best, a discriminator of AUC {self.auc:.3f} is worth {self.best:.4f} nats a token"
        if self.best > self.bound:
            worth += f" (scaled_gain, which is above the bound {self.bound:.4f}: its logits are not Gaussian)"
        beside = f"the standard error {self.noise:.4f} of the policy's NLL on {self.real_texts:,} real texts"
        if self.small:
            return f"{worth}, less than {beside}: what it can gain does not show there"
        return f"{worth}, against {beside}; maximum likelihood may gain as much from longer training or a larger model"

    def table(self) -> str:
        """Rows of name and number; what there is none of is left out."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        known = {name: value for name, value in found.items() if value is not None}
        width = max(map(len, known))
        shown = {name: f"{value:,}" if isinstance(value, int) else f"{value:.4f}" for name, value in known.items()}
        return "\n".join(f"{name:<{width}}  {value}" for name, value in shown.items())


def discriminator_worth(
    discriminator: Discriminator,
    policy: Policy,
    task: Task,
    *,
    split: HeldOut = "test",
    samples: int | None = None,
    fitted_on: Tensor | None = None,
    seed: int = 0,
) -> DiscriminatorWorth:
    """Measure what a discriminator knows of a policy's faults; the same call gives the same numbers, changes nothing.

    Fresh texts of the policy q are compared with held-out real ones. With the best D, z = log p / q, the reweighted q
    is p itself (Goodfellow et al. 2014, proposition 1), so what D is worth is a difference of two models' likelihoods;
    d'^2 / 2 is the Kullback-Leibler divergence of two Gaussians of one variance that are d' standard deviations apart.

    Args:
        discriminator: D, with a logit that says real (above 0) or not.
        policy: q, as it generates.
        task: Gives the real texts; the oracle p, where there is one.
        split: Which texts D has not learnt from.
        samples: Most real texts, and as many texts of q; None: all of the split.
        fitted_on: int64 (any number, T); texts that D has learnt from. Held-out texts that stand among them are left
            out and counted; None: none is. Where the splits are drawn from one law, as an oracle's, leave it out: to
            drop likely texts would change the law.
        seed: Of the texts of q.

    Raises:
        InputError: If the split is the one that D learns from, fewer than 2 texts are left, the three are of different
            vocabulary or length, or D's logit ranks texts among others.
    """
    _check(discriminator, policy, task, split, samples)
    real_BT = task.writable(split)
    kept_B = torch.ones(len(real_BT), dtype=torch.bool) if fitted_on is None else ~_stand_in(real_BT, fitted_on)
    left_out = len(real_BT) - int(kept_B.sum())
    real_BT = real_BT[kept_B][:samples]
    asked = f"a discriminator is asked about at least 2 held-out texts, the {split} split of task '{task.name}' has"
    why = f" ({left_out:,} stand among those that it has learnt from)" if left_out else ""
    require(len(real_BT) >= 2, f"{asked} {len(real_BT)} left{why}")
    keys = Keys.counted(derived_seed(seed, "worth"), len(real_BT), device=policy.device)
    texts = generate_scored(policy, keys, task.max_length, end_token=task.end_token)
    fake_BT = texts.tokens_RT.cpu()
    mask_BT, lengths_B = task.scored(real_BT), task.scored(real_BT).sum(1)
    real_nll_B = nll(policy, real_BT, mask_BT)[1] * lengths_B
    ratio_B = None
    if task.oracle is not None and not (isinstance(policy, PolicyModule) and policy.random_start):
        fake_mask_BT = task.scored(fake_BT)
        true_B = -nll(task.oracle, fake_BT, fake_mask_BT)[1] * fake_mask_BT.sum(1)
        assert texts.logp_RT is not None
        ratio_B = true_B - texts.logp_RT.cpu().sum(1)
    z_real_B, z_fake_B = (score_logits(discriminator, one_BT).double().cpu() for one_BT in (real_BT, fake_BT))
    noise = float(real_nll_B.std() / math.sqrt(len(real_BT)))
    return worth_of_logits(
        z_real_B, z_fake_B, ratio_B, tokens=float(lengths_B.double().mean()), noise=noise, left_out=left_out
    )


def worth_of_logits(
    real_B: Tensor,
    fake_R: Tensor,
    ratio_R: Tensor | None = None,
    *,
    tokens: float = 1.0,
    noise: float = 0.0,
    left_out: int = 0,
) -> DiscriminatorWorth:
    """`discriminator_worth` where the logits are known.

    Args:
        real_B: float64; D's logits of real texts.
        fake_R: float64; those of texts of the policy.
        ratio_R: float64; true log p / q of the policy's texts, nats a text; None: unknown.
        tokens: Mean length of the real texts.
        noise: Standard error of the policy's NLL, nats a text.
        left_out: See `DiscriminatorWorth`.

    Raises:
        InputError: If a side has fewer than 2 texts, or holds NaN.
    """
    require(min(len(real_B), len(fake_R)) >= 2, f"2 texts a side are needed, found {len(real_B)} and {len(fake_R)}")
    auc = roc_auc(real_B.numpy(), fake_R.numpy())
    weight_R = normalised_weights(fake_R)
    error = math.sqrt(float(real_B.var()) / len(real_B) + float(weight_R.var()) / len(fake_R))
    scale = _best_scale(real_B, fake_R)
    halves = [(real_B[side::2], fake_R[side::2]) for side in (0, 1)]
    scaled = [_gain(*(_best_scale(*one) * z_B for z_B in other)) for one, other in (halves, halves[::-1])]
    correlation = fit_gain = None
    if ratio_R is not None:
        correlation = float(torch.corrcoef(torch.stack([fake_R, ratio_R]))[0, 1])
        # KL of the reweighted q from p: E_w[log w - log p / q], w the weights, of mean 1.
        fit_gain = float(-ratio_R.mean() - (torch.special.xlogy(weight_R, weight_R) - weight_R * ratio_R).mean())
    return DiscriminatorWorth(
        auc=auc,
        bound=_bound(auc, len(real_B) * len(fake_R)) / tokens,
        gain=_gain(real_B, fake_R) / tokens,
        gain_error=error / tokens,
        scale=scale,
        scaled_gain=sum(scaled) / 2 / tokens,
        effective_share=effective_sample_size(weight_R) / len(fake_R),
        correlation=None if correlation is None or math.isnan(correlation) else correlation,
        fit_gain=None if fit_gain is None else fit_gain / tokens,
        noise=noise / tokens,
        real_texts=len(real_B),
        fake_texts=len(fake_R),
        left_out=left_out,
        tokens=tokens,
    )


def _bound(auc: float, pairs: int) -> float:
    """d'^2 / 2, nats a text; an AUC of 1 counts as half a pair less, so that the number is finite."""
    apart = math.sqrt(2) * float(torch.special.ndtri(torch.tensor(min(auc, 1 - 0.5 / pairs), dtype=torch.float64)))
    return max(0.0, apart) ** 2 / 2


def _gain(real_B: Tensor, fake_R: Tensor) -> float:
    """Mean logit of real texts less log Z, Z the mean of exp(logit) over texts of the policy: nats a text."""
    return float(real_B.mean() - fake_R.logsumexp(0) + math.log(len(fake_R)))


def _best_scale(real_B: Tensor, fake_R: Tensor) -> float:
    """The multiple of the logits, 0 to 8, with the largest `_gain` that `_FEWEST` texts' worth of weights say.

    The gain is concave in the scale, and what the weights are worth falls with it.
    """
    low, high = 0.0, 8.0
    fewest = min(_FEWEST, len(fake_R) / 2)
    for _ in range(40):
        middle = (low + high) / 2
        weight_R = normalised_weights(middle * fake_R)
        rising = real_B.mean() > (weight_R * fake_R).mean() and effective_sample_size(weight_R) >= fewest
        low, high = (middle, high) if rising else (low, middle)
    return (low + high) / 2


def _check(discriminator: Discriminator, policy: Policy, task: Task, split: str, samples: int | None) -> None:
    """Refuse what is not held out, and parts that do not fit together."""
    held = "a discriminator is asked about the valid or the test split, never about texts that it has learnt from"
    require(split in ("valid", "test"), f"{held}: found '{split}'")
    require_at_least(2, samples=samples)
    ranks = "a RankDiscriminator compares texts with references: its logit is no log p / q, and has no such worth"
    require(not isinstance(discriminator, RankDiscriminator), ranks)
    sizes = (discriminator.vocab_size, discriminator.max_length)
    expected = f"task '{task.name}' has V={task.vocab_size}, T={task.max_length}"
    fits = sizes == (task.vocab_size, task.max_length)
    require(fits, f"the discriminator reads V={sizes[0]}, T={sizes[1]}; {expected}")
    require(policy.vocab_size == task.vocab_size, f"the policy writes V={policy.vocab_size} tokens; {expected}")


def _stand_in(tokens_BT: Tensor, known_RT: Tensor) -> Tensor:
    """Which texts stand among others, bool (B,)."""
    known = {tuple(tokens) for tokens in known_RT.tolist()}
    return torch.tensor([tuple(tokens) in known for tokens in tokens_BT.tolist()], dtype=torch.bool)
