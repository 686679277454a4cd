"""Maximum likelihood: the policy learns to give each token of real text a high probability.

This is how SeqGAN and LeakGAN begin, and the baseline they are measured against. Presets:

  fast    regularised, a few minutes on two cores (the default)
  tuned   the same for longer: the strongest baseline of its size that we know
  paper   SeqGAN's published generator and pre-training, 120 epochs of plain Adam; it overfits
  smoke   seconds, to see that everything runs
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from textgan_env.utils.errors import friendly_errors
from textgan_env.utils.options import ORACLES, SharedConfig, above_zero, at_least

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer

    from textgan_env.policies import PolicyModule
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule


@dataclass(frozen=True)
class MLEConfig(SharedConfig):
    """Train a policy by maximum likelihood."""

    epochs: int | None = None
    """Passes over the training texts; None: 20, or as many as 600 steps take where the texts are few."""
    batch_size: int = 64
    """Texts a step."""
    learning_rate: float = 1e-2
    """Of Adam."""
    weight_decay: float = 0.1
    """Decoupled from the gradient (AdamW); 0 is plain Adam."""
    dropout: float = 0.3
    """Share of embedding and LSTM units set to 0 while training."""
    ema_decay: float = 0.998
    """Share of the old that each step keeps in the averaged weights, which are the finished policy; 0: no average."""
    max_grad_norm: float = 5.0
    """Largest norm of the gradient."""
    embed_size: int = 32
    """Width of the embedding."""
    hidden_size: int = 32
    """Width of the LSTM."""
    layers: int = 1
    """Layers of the LSTM."""
    model: Path | None = None
    """A folder with a Hugging Face causal language model to begin as instead; its sizes and dropout are its own. Text
    needs its --tokenizer."""
    scheduled_sampling: float = 0.0
    """How much more of the tokens that it reads while it learns are its own in each epoch than in the one before."""


def fast(task: str) -> MLEConfig:
    """Close to `tuned` as soon as possible."""
    if task in ORACLES:
        return MLEConfig(preset="fast", task=task, dropout=0.2)
    return MLEConfig(preset="fast", task=task, embed_size=128, hidden_size=128, learning_rate=5e-3)


def tuned(task: str) -> MLEConfig:
    """Weight decay, dropout and averaged weights for 60 epochs; on text, what suits 128/128 on the oracle."""
    if task in ORACLES:
        return MLEConfig(preset="tuned", task=task, epochs=60, select="last")
    return MLEConfig(
        preset="tuned",
        task=task,
        epochs=60,
        learning_rate=3e-3,
        weight_decay=0.2,
        dropout=0.5,
        embed_size=128,
        hidden_size=128,
    )


def paper(task: str) -> MLEConfig:
    """SeqGAN's published code: sizes, Adam 0.01, 120 epochs, the last weights."""
    return MLEConfig(preset="paper", task=task, epochs=120, weight_decay=0.0, dropout=0.0, ema_decay=0.0, select="last")


def smoke(task: str) -> MLEConfig:
    """As small as it can be."""
    return MLEConfig(preset="smoke", task=task, epochs=1, embed_size=8, hidden_size=8, batch_size=256)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS: dict[str, Callable[[str], MLEConfig]] = {"fast": fast, "tuned": tuned, "paper": paper, "smoke": smoke}


class MLE:
    """Teacher forcing: minimise the mean of ``-log G(y_t | y_1..y_{t-1})`` over the tokens of real texts.

    With scheduled sampling (Bengio et al. 2015; linear decay, by 0.002 an epoch in the SeqGAN paper) a growing share of
    y_1..y_{t-1} is drawn from G instead.

    Args:
        config: Sizes, regularisation, optimizer.
        task: Gives the training texts.

    Raises:
        InputError: If a number is out of its range.
    """

    def __init__(self, config: MLEConfig, task: "Task") -> None:
        from torch.optim import AdamW

        from textgan_env.policies import LaggedCopy

        at_least(1, config, "batch_size")
        above_zero(config, "learning_rate", "max_grad_norm")
        at_least(0, config, "weight_decay", "scheduled_sampling")
        self.config = config
        self.task = task
        self.policy = self._first_policy().to(config.device)
        self.average = LaggedCopy(self.policy, config.ema_decay)
        self.finished = "average" if config.ema_decay else "policy"
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        self.optimizer = AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)

    def _first_policy(self) -> "PolicyModule":
        from textgan_env.ops.sampling import derived_seed
        from textgan_env.policies import LSTMPolicy

        config, task = self.config, self.task
        if config.model is not None:
            from textgan_env.tasks import load_causal_lm

            return load_causal_lm(config.model, task)
        return LSTMPolicy(
            task.vocab_size,
            start_token=task.start_token,
            embed_size=config.embed_size,
            hidden_size=config.hidden_size,
            num_layers=config.layers,
            dropout=config.dropout,
            forbidden=task.forbidden,
            seed=derived_seed(config.seed, "policy"),
        )

    def schedule(self) -> "Schedule":
        """One phase, an epoch a round."""
        from textgan_env.training.schedule import Phase, Schedule

        epochs = self.config.epochs
        if epochs is None:
            steps = math.ceil(len(self.task.split("train")) / self.config.batch_size)
            epochs = max(20, math.ceil(600 / steps))
        return Schedule((Phase("mle", epochs, (("epoch", 1),)),))

    def modules(self) -> "Mapping[str, nn.Module]":
        """The policy, and the average of its weights if one is kept."""
        return {"policy": self.policy} | ({"average": self.average.policy} if self.config.ema_decay else {})

    def optimizers(self) -> "Mapping[str, Optimizer]":
        """The policy's."""
        return {"policy": self.optimizer}

    def curves(self) -> dict[str, dict[str, str]]:
        """NLLs over epochs."""
        return {"NLL (nats per token)": {"loss": "training", "nll_valid": "NLL-valid", "nll_oracle": "NLL-oracle"}}

    def epoch(self, generator: "torch.Generator") -> dict[str, float]:
        """One pass over the training texts in a fresh order."""
        from textgan_env.training.mle import mle_epoch, update_average

        share = self._own_share()
        loss = mle_epoch(
            self.policy,
            self.optimizer,
            self.task,
            batch_size=self.config.batch_size,
            max_grad_norm=self.config.max_grad_norm,
            generator=generator,
            after_step=lambda: update_average(self.average, self.policy, self.optimizer),
            own_share=share,
        )
        return {"loss": loss} | ({"own_share": share} if share else {})

    def _own_share(self) -> float:
        """The share of tokens read that are the policy's own, in the epoch that now begins; 0 in the first."""
        # The optimizer counts steps, so a run that goes on from a checkpoint knows where it is.
        steps = max((float(state["step"]) for state in self.optimizer.state.values()), default=0.0)
        steps_per_epoch = math.ceil(len(self.task.split("train")) / self.config.batch_size)
        return min(1.0, self.config.scheduled_sampling * round(steps / steps_per_epoch))


def main(args: list[str] | None = None) -> None:
    """The command."""
    with friendly_errors():
        from textgan_env.utils.options import parse

        config = parse(PRESETS, __doc__ or "", args)
        from textgan_env.training.launch import launch

        launch(config, MLE)


if __name__ == "__main__":
    main()
