"""What every agent shares that learns from real text first: G, maximum likelihood, the average of G's weights.

Loads no torch when imported, so that `--help` of an agent is instant.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from textgan_env.utils.errors import friendly_errors, require, require_known
from textgan_env.utils.kinds import PolicyKind
from textgan_env.utils.options import ORACLES, CommonConfig, Config, above_zero, at_least, parse

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from textgan_env.ops.parallel import Sum
    from textgan_env.policies import PolicyModule
    from textgan_env.rewards import Texts
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Phase, Schedule, Step, Steps

AnyConfig = TypeVar("AnyConfig", bound=Any)


@dataclass(frozen=True)
class PolicyConfig(CommonConfig):
    """Options of G, and of maximum likelihood."""

    policy: PolicyKind = "lstm"
    embed_size: int | None = 32
    """Width of G's embedding."""
    hidden_size: int | None = 32
    """Width of G's LSTM, memory slot or transformer."""
    dropout: float = 0.3
    """Share of G's units set to 0 in maximum likelihood; never while it generates or learns from rewards."""
    weight_decay: float = 0.1
    """Weight decay of G in maximum likelihood, decoupled from the gradient (AdamW); 0 is plain Adam."""
    ema_decay: float = 0.998
    """Decay of the moving average of G's weights in maximum likelihood, which G continues from; 0: no average."""
    max_grad_norm: float = 5.0
    """Largest norm of a gradient of G."""


class PolicyAgent:
    """G learns by maximum likelihood: one batch of real texts after another.

    Args:
        config: Sizes and optimizer.
        task: What to generate.
        learning_rate: Learning rate of maximum likelihood.
        batch_size: Real texts in a batch.

    Raises:
        InputError: If a number is out of its range.
    """

    config: Any
    policy: Any
    finished = "policy"
    #: What the learning curve shows: names of `textgan_env.ops.metric_table`.
    curves: ClassVar[tuple[str, ...]] = ("loss", "nll_valid", "nll_oracle")
    #: Kinds of policy that the agent can train; (): all that learn.
    kinds: ClassVar[tuple[str, ...]] = ()
    #: Options in which a pre-trained policy must be as this run's.
    same: ClassVar[tuple[str, ...]] = ()
    #: Options of the network that not every kind has: name of the option -> argument of the network.
    network_options: ClassVar[Mapping[str, str]] = {}
    #: What becomes of real texts before maximum likelihood learns them; None: nothing.
    rewrite: Callable[[Tensor, torch.Generator], Tensor] | None = None

    def __init__(self, config: PolicyConfig, task: Task, *, learning_rate: float, batch_size: int) -> None:
        from textgan_env.policies import LaggedCopy

        at_least(1, config, "embed_size", "hidden_size")
        at_least(0, config, "weight_decay")
        above_zero(config, "max_grad_norm")
        self.config, self.task, self.mle_batch_size = config, task, batch_size
        self.g_task = task  # what G learns from: its train split may be a part
        self.policy = self.first_policy().to(config.device)
        self.average: LaggedCopy[Any] = LaggedCopy(self.averaged(), config.ema_decay)
        self.mle_optimizer = self.new_mle_optimizer(learning_rate)
        self.modules: dict[str, nn.Module] = {"policy": self.policy}
        self.optimizers: dict[str, Optimizer] = {"mle": self.mle_optimizer}

    def first_policy(self) -> PolicyModule:
        """G as it begins: that of a run, or a new one."""
        from textgan_env.runs.loading import pretrained_policy

        config = self.config
        expected = f"policy must be of a kind that this agent trains ({', '.join(self.kinds)})"
        require(not self.kinds or config.policy in self.kinds, f"{expected}, found {config.policy}")
        pretrained = getattr(config, "pretrained", None)
        if pretrained is None:
            return self.new_policy()
        same = {name: getattr(config, name) for name in self.same}
        return pretrained_policy(pretrained, self.task, kinds=self.kinds, same=same)

    def new_policy(self, **arguments: Any) -> PolicyModule:
        """G as it is drawn: a network of the kind that was asked for, with further arguments of its own."""
        from textgan_env.policies import POLICIES

        config, task = self.config, self.task
        require_known("policy", config.policy, POLICIES)
        network: Any = POLICIES[config.policy]
        known = inspect.signature(network).parameters
        options = {name: getattr(config, name) for name in ("embed_size", "hidden_size", "dropout") if name in known}
        for option, argument in self.network_options.items():
            value, usual = getattr(config, option), type(config).__dataclass_fields__[option].default
            require(argument in known or value == usual, f"a {config.policy} policy has no {option}, found {value}")
            options |= {argument: value} if argument in known and value is not None else {}
        options |= {name: getattr(task, name) for name in ("max_length", "start_token", "forbidden")}
        options["seed"] = self.seed("policy")
        options = {name: value for name, value in {**options, **arguments}.items() if name in known}
        for name in ("embed_size", "hidden_size"):  # an agent that leaves them open has sizes for each task
            left_open = type(config).__dataclass_fields__[name].default is None
            require(left_open or getattr(config, name) is not None, f"{name} must be a whole number, found none")
        policy: PolicyModule = network(task.vocab_size, **options)
        require(any(True for _ in policy.parameters()), f"a {config.policy} policy has no weights that could learn")
        return policy

    def require_fixed_start(self) -> None:
        """For agents that score texts without the random states that they were written from.

        Raises:
            InputError: If G begins each text from a random state of its own.
        """
        agent, kind = type(self).__name__, self.policy.kind
        expected = f"{agent} learns only with a policy whose initial state is fixed"
        require(not self.policy.random_start, f"{expected}, found one of kind {kind} with a random initial state")

    def new_mle_optimizer(self, learning_rate: float) -> Optimizer:
        """AdamW on what maximum likelihood teaches."""
        from torch.optim import AdamW

        from textgan_env.training.mle import trained

        decay = self.config.weight_decay
        return AdamW(trained(self.taught()), lr=learning_rate, weight_decay=decay, fused=True)

    def taught(self) -> nn.Module:
        """What maximum likelihood teaches."""
        return self.policy  # type: ignore[no-any-return]

    def averaged(self) -> nn.Module:
        """What is averaged over steps of maximum likelihood."""
        return self.policy  # type: ignore[no-any-return]

    def seed(self, name: str) -> int:
        """The seed of the weights of a network."""
        from textgan_env.ops.sampling import derived_seed

        return derived_seed(self.config.seed, name)

    def mle_steps_of(self, key: str) -> Steps:
        """An epoch of maximum likelihood as an entry of the schedule; its random draws follow from the key."""
        from textgan_env.training.mle import mle_batches
        from textgan_env.training.schedule import Steps

        return Steps(self.mle_batch, batches=mle_batches(self.g_task, self.mle_batch_size), key=key)

    def mle_batch(self, step: Step, own_share: float = 0.0) -> Numbers:
        """Maximum likelihood on one batch of real texts, dropout on.

        Args:
            step: Which batch of which epoch.
            own_share: Share of the tokens read that are G's own (scheduled sampling).
        """
        from textgan_env.training.mle import mle_batch

        how = {"batch_size": self.mle_batch_size, "max_grad_norm": self.config.max_grad_norm, "rewrite": self.rewrite}
        loss = mle_batch(step, self.policy, self.mle_optimizer, self.g_task, **how, own_share=own_share)
        self.update_average(step)
        return {"loss": loss}

    def anneal(self, step: Step, rounds: int) -> None:
        """Let the learning rate of maximum likelihood fall along half a cosine, from its full value to 0.

        Args:
            step: The batch that comes.
            rounds: How many rounds the phase has.
        """
        share = step.done / (rounds * step.batches)
        for group in self.mle_optimizer.param_groups:
            group["lr"] = self.mle_optimizer.defaults["lr"] * (1 + math.cos(math.pi * share)) / 2

    def update_average(self, step: Step) -> None:
        """Move the average of the weights, which forgets the random start within an epoch."""
        if self.config.ema_decay:
            self.average.update(self.averaged(), step=step.done + 1)

    def nll_of_average(self) -> float:
        """NLL-valid of what pre-training would end with now, nats per token."""
        from textgan_env.evaluation import nll

        valid_BT = self.task.split("valid").head(2000).tokens_BT
        with self.average.applied(self.averaged()) if self.config.ema_decay else nullcontext():
            return nll(self.policy, valid_BT, self.task.scored(valid_BT))[0]

    def take_average(self, _: Step) -> Numbers:
        """Continue with the averaged weights."""
        if self.config.ema_decay:
            self.averaged().load_state_dict(self.average.policy.state_dict())
        return {}

    def mle_phase(self) -> Phase:
        """Pre-training of G by maximum likelihood, for agents with ``mle_epochs``; no epoch where a run was given."""
        from textgan_env.training.schedule import Phase, Steps

        epochs = 0 if self.config.pretrained is not None else self.config.mle_epochs
        return Phase("mle", epochs, (self.mle_steps_of("mle_epoch"),), (Steps(self.end_pretraining),))

    def end_pretraining(self, step: Step) -> Numbers:
        """What follows pre-training of G."""
        return self.take_average(step)

    def at_evaluation(self) -> dict[str, float]:
        """What an evaluation logs beside the measures of the policy: name -> number."""
        return {}

    def pace(self) -> str:
        """How long a part of the run takes on this machine, a sentence; "" where it is soon seen."""
        return ""

    def doubt(self) -> str:
        """What a person should know before the last phase begins, a sentence; "" where there is nothing."""
        return ""

    def real_texts(
        self, generator: torch.Generator, count: int, *, writable: bool = True, task: Task | None = None
    ) -> Tensor:
        """Some of the training texts that G learns from, with replacement: int64 (count, T), PAD after the end.

        Args:
            generator: Of the choice.
            count: How many.
            writable: Leave out those with unknown words, which no policy writes and no discriminator is shown.
            task: Whose training texts; None: those that G learns from.
        """
        import torch

        task = task or self.g_task
        texts_RT = task.writable("train") if writable else task.split("train").tokens_BT
        return texts_RT[torch.randint(len(texts_RT), (count,), generator=generator)].to(self.policy.device)

    def generated(self, generator: torch.Generator, count: int, policy: PolicyModule | None = None) -> Texts:
        """Some fresh texts of a policy, of G where none is given."""
        from textgan_env.ops.sampling import draw_seed
        from textgan_env.rewards import Keys, Texts, generate

        task, keys = self.task, Keys.counted(draw_seed(generator), count, device=self.policy.device)
        tokens_BT, lengths_B = generate(policy or self.policy, keys, task.max_length, end_token=task.end_token)
        return Texts.finished(tokens_BT, lengths_B, keys, task.end_token)

    def descend(
        self,
        optimizers: Sequence[Optimizer],
        columns: Sequence[Tensor],
        objective: Callable[..., Mapping[str, Sum]],
        minimise: Mapping[str, float] | None = None,
        *,
        dropout: bool = False,
    ) -> tuple[dict[str, Tensor], list[float]]:
        """One step of some optimizers down a weighted sum of means.

        Args:
            optimizers: Those of the weights that learn.
            columns: What the objective takes, axis B first.
            objective: Some rows -> name -> `Sum`.
            minimise: Name -> weight of its mean; None: ``loss`` alone.
            dropout: Whether the objective draws from the global generators (see `backward`).

        Returns:
            The means by name, and the norm of each optimizer's gradient before it was clipped.
        """
        from textgan_env.ops.parallel import backward

        weights = [weight for optimizer in optimizers for weight in optimizer.param_groups[0]["params"]]
        means, _ = backward(weights, columns, objective, minimise=minimise, dropout=dropout)
        return means, self.update(*optimizers)

    def update(self, *optimizers: Optimizer) -> list[float]:
        """One step of each along the gradient that is there; returns the gradients' norms before they were clipped."""
        import torch

        most, weights = self.config.max_grad_norm, [optimizer.param_groups[0]["params"] for optimizer in optimizers]
        # All at once: a GPU is waited for.
        norms: list[float] = torch.stack([torch.nn.utils.clip_grad_norm_(some, most) for some in weights]).tolist()
        for norm in norms:
            require(math.isfinite(norm), f"the gradient of G is {norm}: try a smaller --learning-rate")
        for optimizer in optimizers:
            optimizer.step()
        return norms


class LikelihoodAgent(PolicyAgent):
    """G learns from real text alone, in one phase: an epoch a round, and the averaged weights are the finished policy.

    Args:
        config: A `PolicyConfig` with ``epochs``, ``batch_size`` and ``learning_rate``.
        task: What to generate.

    Raises:
        InputError: If a number is out of its range.
    """

    def __init__(self, config: Any, task: Task) -> None:
        at_least(1, config, "batch_size")
        above_zero(config, "learning_rate")
        super().__init__(config, task, learning_rate=config.learning_rate, batch_size=config.batch_size)
        self.optimizers = {"policy": self.mle_optimizer}
        if config.ema_decay:
            self.modules["average"] = self.average.policy
            self.finished = "average"

    def round_steps(self) -> tuple[Steps, ...]:
        """The steps of a round: an epoch."""
        return (self.mle_steps_of("epoch"),)

    @property
    def epochs(self) -> int:
        """How many epochs there are at most: where the config does not say, 20, or as many as 600 batches take."""
        from textgan_env.training.mle import mle_batches

        batches, asked = mle_batches(self.task, self.mle_batch_size), self.config.epochs
        return max(20, math.ceil(600 / batches)) if asked is None else asked

    def schedule(self) -> Schedule:
        """One phase, an epoch a round."""
        from textgan_env.training.schedule import Phase, Schedule

        return Schedule((Phase("mle", self.epochs, self.round_steps()),))


def sized_for(task: str, config: AnyConfig) -> AnyConfig:
    """The config of an agent that pre-trains G with the sizes of `fast` for a task: text takes a larger G than oracles.

    Args:
        task: Its name.
        config: With ``mle_learning_rate``.
    """
    return config if task in ORACLES else replace(config, embed_size=128, hidden_size=128, mle_learning_rate=5e-3)


def run_command(
    agent: Callable[[Any, Task], Any],
    presets: Mapping[str, Callable[[str], Config]],
    description: str | None,
    args: list[str] | None,
) -> None:
    """Run the command of an agent: read its options, then train.

    Args:
        agent: Makes the agent from config and task.
        presets: Name -> what makes the config of the preset, given the name of the task; the first is the default.
        description: On top of ``--help``.
        args: The words of the command; None: those that the program was called with.
    """
    with friendly_errors():
        config = parse(presets, description or "", args)
        from textgan_env.training.launch import launch

        launch(config, agent)
