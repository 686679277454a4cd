"""The toy task written out: expected gradients over all batches of texts, and its best discriminator."""

import copy
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from conftest import step_of
from textgan_env.envs import game
from textgan_env.policies import PolicyModule, RatioDiscriminator, TablePolicy
from textgan_env.tasks import ToyTask


def best_discriminator(task: ToyTask, policy: PolicyModule) -> RatioDiscriminator:
    """The best D against the policy as it is now."""
    return copy.deepcopy(RatioDiscriminator(task.oracle, policy, task.max_length))


def table_policy(task: ToyTask, *, spread: float = 1.0, seed: int = 1) -> TablePolicy:
    """A random table, float64; with the task's own law: ``task.oracle``."""
    policy = TablePolicy(task.vocab_size, max_length=task.max_length).double()
    with torch.no_grad():
        policy.logits_PV.normal_(0, spread, generator=torch.Generator().manual_seed(seed))
    return policy


@contextmanager
def generating(tokens_BT: Tensor) -> Iterator[None]:
    """Inside, an environment's `collect` gets these whole texts, whatever the policy."""
    lengths_B = torch.full_like(tokens_BT[:, 0], tokens_BT.shape[1])
    with patch.object(game, "generate", lambda *_, **__: (tokens_BT, lengths_B)):
        yield


def gradient_of_step(agent: Any, optimizer_name: str, tokens_BT: Tensor, step: str = "g_step") -> Tensor:
    """The gradient that a step follows when G writes these texts, float (P,): a step of plain descent, taken back.

    The agent must clip nothing (``max_grad_norm=1e8``).

    Args:
        agent: With a policy of float64.
        optimizer_name: The attribute of the agent that holds the optimizer of G.
        tokens_BT: int64; B texts, as many as the agent writes.
        step: The method.
    """
    weights = [weight for weight in agent.policy.parameters() if weight.requires_grad]
    before = [weight.detach().clone() for weight in weights]
    kept = getattr(agent, optimizer_name)
    setattr(agent, optimizer_name, torch.optim.SGD(weights, lr=1.0))
    with generating(tokens_BT):
        getattr(agent, step)(step_of(0, "exact"))
    setattr(agent, optimizer_name, kept)
    gradient_P = torch.cat([(old - new.detach()).flatten() for old, new in zip(before, weights, strict=True)])
    with torch.no_grad():
        for weight, old in zip(weights, before, strict=True):
            weight.copy_(old)
    return gradient_P


def expected_gradient(task: ToyTask, policy: PolicyModule, rows: int, gradient: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean of a gradient over all batches of some texts that the policy can write, float (P,).

    Batches of the same texts in another order are computed once, in one of their orders.

    Args:
        task: Its V^T texts are listed.
        policy: Says how probable each is.
        rows: Texts in a batch.
        gradient: tokens_BT -> float (P,); the same for any order of the rows.
    """
    with torch.no_grad():
        probability_S = task.text_log_prob(policy).double().exp()
    total_P: Tensor | None = None
    texts_ST = task.texts_ST
    for turn, batch in enumerate(itertools.combinations_with_replacement(range(len(probability_S)), rows)):
        orders = math.factorial(rows) // math.prod(math.factorial(times) for times in Counter(batch).values())
        number_B = torch.tensor(batch).roll(turn)
        part_P = orders * probability_S[number_B].prod() * gradient(texts_ST[number_B])
        total_P = part_P if total_P is None else total_P + part_P
    assert total_P is not None
    return total_P


def autograd_of(policy: PolicyModule, objective: Callable[[], Tensor]) -> Tensor:
    """The gradient of a number that is computed from the policy, float (P,)."""
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    return torch.cat([part.flatten() for part in torch.autograd.grad(objective(), weights)])


def relative_error(found_P: Tensor, expected_P: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    return float((found_P - expected_P).norm() / expected_P.norm())
