"""What every agent shares that learns from real text first: G, maximum likelihood, the average of G's weights.

Loads no torch when imported, so that `--help` of an agent is instant.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from textgan_env.utils.errors import InputError, friendly_errors, require, require_known
from textgan_env.utils.kinds import PolicyKind
from textgan_env.utils.options import CommonConfig, Config, above_zero, at_least, parse

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from textgan_env.policies import PolicyModule
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Step, Steps


@dataclass(frozen=True)
class PolicyConfig(CommonConfig):
    """Options of G, and of maximum likelihood."""

    policy: PolicyKind = "lstm"
    embed_size: int | None = 32
    """Width of G's embedding."""
    hidden_size: int | None = 32
    """Width of G's LSTM."""
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
    #: Options of the network that not every kind has: name of the option -> argument of the network.
    network_options: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: PolicyConfig, task: Task, *, learning_rate: float, batch_size: int) -> None:
        from textgan_env.policies import LaggedCopy

        at_least(1, config, "embed_size", "hidden_size")
        at_least(0, config, "weight_decay")
        above_zero(config, "max_grad_norm")
        self.config, self.task, self.mle_batch_size = config, task, batch_size
        self.policy = self.first_policy().to(config.device)
        self.average: LaggedCopy[Any] = LaggedCopy(self.averaged(), config.ema_decay)
        self.mle_optimizer = self.new_mle_optimizer(learning_rate)
        self.modules: dict[str, nn.Module] = {"policy": self.policy}
        self.optimizers: dict[str, Optimizer] = {"mle": self.mle_optimizer}

    def first_policy(self) -> PolicyModule:
        """G as it begins."""
        return self.new_policy()

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
            options |= {argument: value} if argument in known else {}
        options |= {"start_token": task.start_token, "forbidden": task.forbidden, "seed": self.seed("policy")}
        options = {name: value for name, value in {**options, **arguments}.items() if name in known}
        try:
            inspect.signature(network).bind(task.vocab_size, **options)
        except TypeError:
            raise InputError(f"this agent cannot make a policy of kind {config.policy} from sizes alone") from None
        policy: PolicyModule = network(task.vocab_size, **options)
        require(any(True for _ in policy.parameters()), f"a {config.policy} policy has no weights that could learn")
        return policy

    def new_mle_optimizer(self, learning_rate: float) -> Optimizer:
        """AdamW on what maximum likelihood teaches."""
        from torch.optim import AdamW

        from textgan_env.training.mle import trained

        return AdamW(trained(self.taught()), lr=learning_rate, weight_decay=self.config.weight_decay)

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

        return Steps(self.mle_batch, batches=mle_batches(self.task, self.mle_batch_size), key=key)

    def mle_batch(self, step: Step, own_share: float = 0.0) -> Numbers:
        """Maximum likelihood on one batch of real texts, dropout on.

        Args:
            step: Which batch of which epoch.
            own_share: Share of the tokens read that are G's own (scheduled sampling).
        """
        from textgan_env.training.mle import mle_batch

        numbers = {"batch_size": self.mle_batch_size, "max_grad_norm": self.config.max_grad_norm}
        loss = mle_batch(step, self.policy, self.mle_optimizer, self.task, **numbers, own_share=own_share)
        self.update_average(step)
        return {"loss": loss}

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
