"""Text VAE: each text is written from a vector z of its own, and an encoder learns along which z a text comes from.

The latent-variable baseline of text generation. An LSTM that reads all words before has little use for z and can learn
to ignore it (KL near 0, no active units); word dropout, annealing and free bits are against that. Presets:

  fast    the sizes of `mle`'s fast preset, with 16 numbers in z, a few minutes on one core (the default)
  smoke   seconds, to see that everything runs
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from textgan_env.training.agent import LikelihoodAgent, PolicyConfig, run_command
from textgan_env.utils.errors import require
from textgan_env.utils.options import ORACLES, SharedConfig, at_least

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import Tensor

    from textgan_env.ops.parallel import Sum
    from textgan_env.policies import LatentPolicy
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step, Steps

#: A number of z is active where its mean varies by more over texts.
ACTIVE_VARIANCE = 0.01


@dataclass(frozen=True)
class VAEConfig(PolicyConfig, SharedConfig):
    """Train a policy with a latent vector as a variational auto-encoder."""

    policy: Literal["latent"] = "latent"
    latent_size: int = 16
    """Numbers in z."""
    epochs: int | None = None
    """Passes over the training texts [20, or as many as 600 steps take where the texts are few]."""
    batch_size: int = 64
    """Texts a step."""
    learning_rate: float = 1e-2
    """Learning rate of Adam."""
    kl_coef: float = 1.0
    """What the KL of z to its prior is weighed with in the end; 1 is the bound, 0 an auto-encoder."""
    anneal_epochs: int = 5
    """Epochs in which this weight grows from 0 to its end; 0: it has it from the start."""
    free_bits: float = 0.0
    """Nats of KL that each number of z has for nothing, on the mean over a batch; 0: none."""
    word_dropout: float = 0.3
    """Share of the tokens read by the decoder that it does not see in training, so that it needs z."""


def fast(task: str) -> VAEConfig:
    """Sizes and rates of MLE's `fast`."""
    if task in ORACLES:
        return VAEConfig(preset="fast", task=task, dropout=0.2)
    return VAEConfig(preset="fast", task=task, embed_size=128, hidden_size=128, learning_rate=5e-3)


def smoke(task: str) -> VAEConfig:
    """As small as it can be."""
    return VAEConfig(
        preset="smoke", task=task, epochs=2, anneal_epochs=1, latent_size=2, embed_size=8, hidden_size=8, batch_size=256
    )


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "smoke": smoke}


class VAE(LikelihoodAgent):
    """Minimise ``-E[log G(y | z)] + w KL(e(z | y) || N(0, I))``, z from the encoder e (Bowman et al. 2016).

    The sum over a batch is divided by its number of tokens, as in maximum likelihood.
    """

    config: VAEConfig
    policy: LatentPolicy
    curves: ClassVar = ("loss", "nll_valid", "bound_valid", "kl_latent", "active_units")
    network_options: ClassVar = {"latent_size": "latent_size"}

    def __init__(self, config: VAEConfig, task: Task) -> None:
        at_least(1, config, "latent_size")
        at_least(0, config, "kl_coef", "anneal_epochs", "free_bits", "word_dropout")
        require(config.word_dropout <= 1, f"word_dropout must be at most 1, found {config.word_dropout}")
        super().__init__(config, task)

    def round_steps(self) -> tuple[Steps, ...]:
        """An epoch, then what the encoder says of unseen texts."""
        from textgan_env.training.schedule import Steps

        return *super().round_steps(), Steps(self.measure_latent)

    def mle_batch(self, step: Step, own_share: float = 0.0) -> Numbers:
        """One batch of real texts, dropout on: a step on the bound."""
        device, weight = self.policy.device, self.kl_weight(step)
        seed, tokens_BT, *drawn = step.item(self.batches)
        columns = [part.to(device) for part in (tokens_BT, self.task.scored(tokens_BT), *drawn)]
        self.policy.train()
        objective = partial(self.objective, weight)
        with step.dropout(seed):
            means, _ = self.descend([self.mle_optimizer], columns, objective, dropout=True)
        self.update_average(step)
        return {"loss": means["loss"], "kl_weight": weight}

    def kl_weight(self, step: Step) -> float:
        """What the KL is weighed with: it grows in a straight line."""
        growing = self.config.anneal_epochs * step.batches
        return self.config.kl_coef * (min(1.0, step.done / growing) if growing else 1.0)

    def batches(self, generator: torch.Generator) -> Iterator[tuple[int | None, Tensor, Tensor, Tensor]]:
        """The batches of an epoch: seed of dropout, texts, noise of z, and what the decoder reads.

        A token that it does not see is PAD, the row that stands for no word.
        """
        import torch

        from textgan_env.training.mle import epochs

        for seed, tokens_BT in epochs(self.task, self.config.batch_size, generator):
            noise_BZ = torch.randn(len(tokens_BT), self.config.latent_size, generator=generator)
            hidden_BT = torch.rand(tokens_BT.shape, generator=generator) < self.config.word_dropout
            yield seed, tokens_BT, noise_BZ, tokens_BT.masked_fill(hidden_BT, self.task.vocab_size)

    def objective(
        self, weight: float, tokens_BT: Tensor, mask_BT: Tensor, noise_BZ: Tensor, read_BT: Tensor
    ) -> dict[str, Sum]:
        """What is minimised, and the number of tokens; free bits as Kingma et al. 2016."""
        from textgan_env.ops.losses import nll_sum

        logp_BT, kl_BZ = self.policy.autoencode(tokens_BT, mask_BT, noise_BZ, read_BT)
        nll, count = nll_sum(logp_BT, mask_BT)
        kl = kl_BZ.mean(0).clamp(min=self.config.free_bits).sum() * len(kl_BZ)
        return {"loss": (nll + weight * kl, count)}

    def measure_latent(self, _: Step) -> Numbers:
        """Bound, KL a text and active units of the averaged weights on texts of the valid split, nothing dropped."""
        import torch

        from textgan_env.ops.sampling import derived_seed, evaluating, keyed_normal
        from textgan_env.rewards import Keys

        policy: LatentPolicy = self.modules[self.finished]  # type: ignore[assignment]
        tokens_BT = self.task.split("valid").head(2000).tokens_BT.to(policy.device)
        mask_BT = self.task.scored(tokens_BT)
        keys = Keys.counted(derived_seed(0, "latent"), len(tokens_BT), device=policy.device)
        noise_BZ = keyed_normal(keys.seed_B, keys.episode_B, (policy.latent_size,))
        with evaluating(policy), torch.no_grad():
            logp_BT, kl_BZ = policy.autoencode(tokens_BT, mask_BT, noise_BZ)
            mean_BZ, _variance = policy.encode(tokens_BT)
        kl = kl_BZ.double().sum()
        return {
            "bound_valid": (kl - logp_BT.double().sum()) / mask_BT.sum(),
            "kl_latent": kl / len(tokens_BT),
            "active_units": float((mean_BZ.var(0) > ACTIVE_VARIANCE).sum()),
        }


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(VAE, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
