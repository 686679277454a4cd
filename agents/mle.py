"""Maximum likelihood: the policy learns to give each token of real text a high probability.

This is how SeqGAN and LeakGAN begin, and the baseline they are measured against. Presets:

  fast    regularised, a few minutes on two cores (the default)
  tuned   the same for longer: the strongest baseline of its size that we know
  paper   SeqGAN's published generator and pre-training, 120 epochs of plain Adam; it overfits
  smoke   seconds, to see that everything runs
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textgan_env.training.agent import LikelihoodAgent, PolicyConfig, run_command
from textgan_env.utils.errors import require
from textgan_env.utils.options import ORACLES, CommonConfig, SharedConfig, at_least

if TYPE_CHECKING:
    from textgan_env.policies import PolicyModule
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step


@dataclass(frozen=True)
class MLEConfig(PolicyConfig, SharedConfig):
    """Train a policy by maximum likelihood."""

    added: ClassVar = (*CommonConfig.added, "model", "lora_rank", "random_smiles")

    epochs: int | None = None
    """Passes over the training texts [20, or as many as 600 steps take where the texts are few]."""
    batch_size: int = 64
    """Texts a step."""
    learning_rate: float = 1e-2
    """Learning rate of Adam."""
    lr_schedule: Literal["constant", "cosine"] = "constant"
    """cosine: the learning rate falls to 0 at the last epoch; --patience then cuts the fall off."""
    layers: int | None = None
    """Layers of G [an LSTM 1, a transformer 2]."""
    model: Path | None = None
    """A pretrained causal language model to begin as instead: smollm2, or a folder with one of Hugging Face's; its
    sizes and dropout are its own, and your text is read with its tokenizer. Try --learning-rate 1e-3 and few epochs."""
    lora_rank: int | None = None
    """Rank of the adapter (LoRA) that learns in place of the weights of --model; 0: all of these learn [8 for smollm2,
    0 for a folder]."""
    scheduled_sampling: float = 0.0
    """While it learns, a share of the tokens that it reads is its own; this is what the share grows by in an epoch."""
    random_smiles: float = 0.0
    """Of molecules: the share that is learnt in another spelling of the same molecule, drawn anew in each epoch."""

    def task_options(self) -> dict[str, Any]:
        """Own text is read with the tokenizer of the language model, unless another is given, which is then refused."""
        if self.model is None or self.tokenizer is not None or self.task != "corpus":
            return super().task_options()
        return replace(self, tokenizer=self.model).task_options()


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
        preset="tuned", task=task, epochs=60, learning_rate=3e-3, weight_decay=0.2, dropout=0.5, embed_size=128,
        hidden_size=128,
    )  # fmt: skip


def paper(task: str) -> MLEConfig:
    """SeqGAN's published code: sizes, Adam 0.01, 120 epochs, the last weights."""
    return MLEConfig(preset="paper", task=task, epochs=120, weight_decay=0.0, dropout=0.0, ema_decay=0.0, select="last")


def smoke(task: str) -> MLEConfig:
    """As small as it can be."""
    return MLEConfig(preset="smoke", task=task, epochs=1, embed_size=8, hidden_size=8, batch_size=256)


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS = {"fast": fast, "tuned": tuned, "paper": paper, "smoke": smoke}


class MLE(LikelihoodAgent):
    """Teacher forcing: minimise the mean of ``-log G(y_t | y_1..y_{t-1})`` over the tokens of real texts.

    With scheduled sampling (Bengio et al. 2015; linear decay, by 0.002 an epoch in the SeqGAN paper) a growing share of
    y_1..y_{t-1} is drawn from G instead.
    """

    config: MLEConfig
    network_options: ClassVar = {"layers": "num_layers"}

    def __init__(self, config: MLEConfig, task: Task) -> None:
        at_least(0, config, "scheduled_sampling")
        require(0 <= config.random_smiles <= 1, f"random_smiles must be 0 to 1, found {config.random_smiles}")
        super().__init__(config, task)
        if config.random_smiles:
            from textgan_env.training.random_smiles import RandomSmiles

            self.rewrite = RandomSmiles(task, config.random_smiles)

    def first_policy(self) -> PolicyModule:
        """A new network, or the language model that was asked for."""
        from textgan_env.tasks import load_causal_lm

        model = self.config.model
        if model is None:
            require(self.config.lora_rank is None, "lora_rank is for a language model: give --model, found none")
            return self.new_policy()
        return load_causal_lm(model, self.task, lora_rank=self.config.lora_rank, seed=self.seed("policy"))

    def pace(self) -> str:
        """How long an epoch of a language model takes."""
        from textgan_env.training.mle import epoch_pace

        return "" if self.config.model is None else epoch_pace(self.policy, self.task, self.mle_batch_size)

    def mle_batch(self, step: Step, own_share: float = 0.0) -> Numbers:
        """One batch; in scheduled sampling a share of what G reads, which grows from epoch to epoch, is its own."""
        if self.config.lr_schedule == "cosine":
            self.anneal(step, self.epochs)
        own_share = min(1.0, self.config.scheduled_sampling * step.round)
        return {**super().mle_batch(step, own_share), **({"own_share": own_share} if own_share else {})}


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(MLE, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
