"""Maximum likelihood, as every agent uses it: one batch of an epoch, and one step on some real texts."""

import math
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter

import torch
from torch import Tensor
from torch.optim import Optimizer

from textgan_env.ops.losses import nll_sum
from textgan_env.ops.parallel import Sum, backward
from textgan_env.ops.sampling import draw_seed, evaluating, sample_categorical, seeded
from textgan_env.policies import LSTMPolicy, PolicyModule
from textgan_env.runs.logs import clock_text
from textgan_env.tasks import Task
from textgan_env.training.schedule import Step
from textgan_env.utils.errors import require


def epochs(task: Task, batch_size: int, generator: torch.Generator) -> Iterator[tuple[int | None, Tensor]]:
    """The training texts in batches without end, each epoch in a fresh order.

    Args:
        task: Gives the texts.
        batch_size: Texts a batch.
        generator: Gives the orders, and the seeds of dropout.

    Yields:
        (seed, tokens_BT): with the first batch of an epoch the seed of its dropout, with the others None; int64.
    """
    while True:
        seed: int | None = draw_seed(generator)
        for tokens_BT, _ in task.split("train").batches(batch_size, generator):
            yield seed, tokens_BT
            seed = None


def mle_batch(
    step: Step,
    policy: PolicyModule,
    optimizer: Optimizer,
    task: Task,
    *,
    batch_size: int,
    max_grad_norm: float,
    own_share: float = 0.0,
    rewrite: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> Tensor:
    """A batch of an epoch of maximum likelihood, dropout on.

    Args:
        step: Which batch of which epoch; it has `mle_batches`.
        policy: Learns; it is in training mode afterwards.
        optimizer: The policy's.
        task: Gives the texts.
        batch_size: Texts a batch.
        max_grad_norm: Largest norm of the gradient.
        own_share: Share of the tokens read that are the policy's own (scheduled sampling).
        rewrite: What becomes of the texts before they are learnt (`RandomSmiles`); None: nothing.

    Returns:
        The loss before the step, nats per token, float scalar.
    """

    def batches(generator: torch.Generator) -> Iterator[tuple[int | None, Tensor, Tensor | None]]:
        """What `epochs` gives, and what the policy reads where that is not the text itself."""
        for seed, tokens_BT in epochs(task, batch_size, generator):
            if rewrite is not None:
                tokens_BT = rewrite(tokens_BT, generator)
            yield seed, tokens_BT, mixed_inputs(policy, tokens_BT, own_share, generator) if own_share else None

    seed, tokens_BT, read_BT = step.item(batches)
    policy.train()
    with step.dropout(seed):
        return mle_step(policy, optimizer, task, tokens_BT, read_BT, max_grad_norm=max_grad_norm)


def mle_batches(task: Task, batch_size: int) -> int:
    """How many batches an epoch has."""
    return math.ceil(len(task.split("train")) / batch_size)


def epoch_pace(policy: PolicyModule, task: Task, batch_size: int) -> str:
    """How long an epoch takes on this machine, by one batch of which nothing is learnt: a sentence.

    Args:
        policy: Learns later; its weights, and the global generators, stay as they are.
        task: Gives the texts.
        batch_size: Texts a batch.
    """
    tokens_BT = task.split("train").head(batch_size).tokens_BT.to(policy.device)
    batches = mle_batches(task, batch_size)
    began = perf_counter()
    with seeded(0), evaluating(policy):
        total, count = _likelihood(policy, tokens_BT, task.scored(tokens_BT), None)["loss"]
        torch.autograd.grad(total / count, trained(policy))
    seconds = perf_counter() - began
    return f"an epoch takes about {clock_text(batches * seconds)} here: {batches} batches of {seconds:.1f} s"


def mle_step(
    policy: PolicyModule,
    optimizer: Optimizer,
    task: Task,
    tokens_BT: Tensor,
    read_BT: Tensor | None = None,
    *,
    max_grad_norm: float,
) -> Tensor:
    """One step of maximum likelihood on some real texts, in the mode (dropout) that the policy is in.

    Args:
        policy: Learns.
        optimizer: The policy's.
        task: Says which tokens count; PAD and unknown words are not learnt.
        tokens_BT: int64.
        read_BT: int64; what it reads before each token, where that is not the text itself (`mixed_inputs`).
        max_grad_norm: Largest norm of the gradient.

    Returns:
        The loss before the step, nats per token, float scalar.

    Raises:
        InputError: If the policy cannot read other tokens than it is to generate.
    """
    fits = read_BT is None or isinstance(policy, LSTMPolicy)
    require(fits, f"a {policy.kind} policy cannot learn by scheduled sampling")
    tokens_BT = tokens_BT.to(policy.device)
    batch = (tokens_BT, task.scored(tokens_BT), read_BT)
    numbers, _ = backward(trained(policy), batch, partial(_likelihood, policy), dropout=True)
    torch.nn.utils.clip_grad_norm_(policy.parameters(), max_grad_norm)
    optimizer.step()
    return numbers["loss"]


def _likelihood(policy: PolicyModule, tokens_BT: Tensor, mask_BT: Tensor, read_BT: Tensor | None) -> dict[str, Sum]:
    """Negative log-likelihood of the texts."""
    if read_BT is None:
        return {"loss": nll_sum(policy.log_prob(tokens_BT, mask_BT), mask_BT)}
    assert isinstance(policy, LSTMPolicy)
    return {"loss": nll_sum(policy.log_prob_after(read_BT, tokens_BT, mask_BT), mask_BT)}


def trained(module: torch.nn.Module) -> list[torch.nn.Parameter]:
    """The parameters that learn."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def mixed_inputs(policy: PolicyModule, tokens_BT: Tensor, own_share: float, generator: torch.Generator) -> Tensor:
    """Texts in which a share of the tokens is drawn from the policy, each given the mixed ones before it.

    Scheduled sampling (Bengio et al. 2015): the coin is thrown for each token. An end is never drawn away: PAD, and
    the token before it, stay.

    Args:
        policy: Draws, dropout off.
        tokens_BT: int64; real texts.
        own_share: Probability that a token is drawn.
        generator: Gives coins and draws.

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
