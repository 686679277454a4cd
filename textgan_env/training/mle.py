"""Maximum likelihood, as every agent uses it."""

from collections.abc import Callable, Iterator

import torch
from torch.optim import Optimizer

from textgan_env.ops.loops import each, mean
from textgan_env.ops.losses import nll_per_token
from textgan_env.ops.parallel import backward
from textgan_env.ops.sampling import draw_seed, evaluating, sample_categorical
from textgan_env.policies import LaggedCopy, LSTMPolicy, PolicyModule
from textgan_env.tasks import Task
from textgan_env.training.loop import Module
from textgan_env.utils.errors import require


def mle_epoch(
    policy: PolicyModule,
    optimizer: Optimizer,
    task: Task,
    *,
    batch_size: int,
    max_grad_norm: float,
    generator: torch.Generator,
    after_step: Callable[[], None] | None = None,
    own_share: float = 0.0,
) -> float:
    """One pass over the training texts by maximum likelihood, in a fresh order, dropout on.

    Args:
        policy: Learns; it is in training mode afterwards.
        optimizer: Of its weights.
        task: Gives the texts; PAD and unknown words are not learnt.
        batch_size: Texts a step.
        max_grad_norm: Largest norm of the gradient.
        generator: Of the order and of dropout.
        after_step: Called after each step.
        own_share: Share of the tokens read that are the policy's own (scheduled sampling).

    Returns:
        The mean of the losses, nats per token.

    Raises:
        InputError: If one is not finite, or tokens of its own are asked of a policy that cannot read others than it is
            to write.
    """

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        for tokens_BT, _ in task.split("train").batches(batch_size, generator):
            yield tokens_BT, mixed_inputs(policy, tokens_BT, own_share, generator) if own_share else None

    def learn_from(batch: tuple[torch.Tensor, torch.Tensor | None]) -> tuple[torch.Tensor]:
        tokens_BT, read_BT = batch
        loss = mle_step(policy, optimizer, task, tokens_BT, max_grad_norm, read_BT)
        if after_step is not None:
            after_step()
        return (loss,)

    policy.train()
    seed = draw_seed(generator)
    seen = each(batches(), learn_from, ("loss",), seed=seed)
    return mean(seen["loss"])


def mle_step(
    policy: PolicyModule,
    optimizer: Optimizer,
    task: Task,
    tokens_BT: torch.Tensor,
    max_grad_norm: float,
    read_BT: torch.Tensor | None = None,
) -> torch.Tensor:
    """One step of maximum likelihood on some real texts, in the mode (dropout) that the policy is in.

    Args:
        policy: Learns.
        optimizer: Of its weights.
        task: Says which tokens count.
        tokens_BT: int64.
        max_grad_norm: Largest norm of the gradient.
        read_BT: int64; what it reads before each token, where that is not the text itself (`mixed_inputs`).

    Returns:
        The loss before the step, nats per token, float scalar.
    """
    tokens_BT = tokens_BT.to(policy.device)
    mask_BT = task.scored(tokens_BT)

    def share_of(rows: slice) -> tuple[torch.Tensor]:
        if read_BT is None:
            logp_bT = policy.log_prob(tokens_BT[rows], mask_BT[rows])
        else:
            require(isinstance(policy, LSTMPolicy), f"a {policy.kind} policy cannot learn by scheduled sampling")
            assert isinstance(policy, LSTMPolicy)
            logp_bT = policy.log_prob_after(read_BT[rows], tokens_BT[rows], mask_BT[rows])
        return (nll_per_token(logp_bT, mask_BT[rows], mask_BT),)

    optimizer.zero_grad()
    weights = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    (loss,) = backward(weights, len(tokens_BT), share_of, dropout=True)
    torch.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm)
    optimizer.step()
    return loss


def mixed_inputs(
    policy: PolicyModule, tokens_BT: torch.Tensor, own_share: float, generator: torch.Generator
) -> torch.Tensor:
    """Texts in which a share of the tokens is drawn from the policy, each given the mixed ones before it.

    Scheduled sampling (Bengio et al. 2015): the coin is thrown for each token. An end is never drawn away: PAD, and
    the token before it, stay.

    Args:
        policy: Draws, dropout off.
        tokens_BT: int64; real texts.
        own_share: Probability that a token is drawn.
        generator: Of coins and draws.

    Returns:
        int64 (B, T).
    """
    tokens_BT = tokens_BT.to(policy.device)
    coins_BT = torch.rand(tokens_BT.shape, generator=generator).to(policy.device) < own_share
    coins_BT &= torch.roll(tokens_BT, -1, 1) != policy.vocab_size
    uniform_BT = torch.rand(tokens_BT.shape, generator=generator, dtype=torch.float64).to(policy.device)
    mixed_BT = tokens_BT.clone()
    with torch.no_grad(), evaluating(policy):
        state, last_B = policy.begin(len(tokens_BT)), torch.full_like(tokens_BT[:, 0], policy.start_token)
        for position in range(tokens_BT.shape[1] - 1):  # nothing is read after the last token
            logits_BV, state = policy.step(last_B, state)
            drawn_B = sample_categorical(logits_BV, uniform_BT[:, position], overwrite=True)
            last_B = torch.where(coins_BT[:, position], drawn_B, tokens_BT[:, position])
            mixed_BT[:, position] = last_B
    return mixed_BT


def update_average(average: LaggedCopy[Module], policy: Module, optimizer: Optimizer) -> None:
    """Move an average of weights after a step of the optimizer; it forgets the random start within an epoch."""
    steps = float(next(iter(optimizer.state.values()))["step"])
    average.update(policy, min(average.rate, steps / (steps + 10)))
