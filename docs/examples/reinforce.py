"""REINFORCE (Williams 1992) on the toy task, beside the exact gradient and the best text, both by listing all texts.

The policy is a table: for each prefix the logits of the next token.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import gymnasium as gym
import torch
import tyro
from torch import Tensor

import textgan_env  # noqa: F401  registers the environments
from textgan_env.discriminators import score_logits
from textgan_env.envs import EpisodeBatch, TextGANVectorEnv, default_discriminator
from textgan_env.ops.losses import policy_gradient_sum
from textgan_env.policies import Decoding, TablePolicy
from textgan_env.tasks import ToyTask
from textgan_env.utils.errors import friendly_errors, require


@dataclass(frozen=True)
class Args:
    """Learn to generate the best text of the toy task by REINFORCE."""

    steps: int = 200
    """Gradient steps."""
    batch_size: int = 64
    """Texts of a step."""
    learning_rate: float = 0.1
    """Of Adam."""
    baseline: Literal["none", "leave-one-out"] = "leave-one-out"
    """Taken off the return: nothing, or the mean return of the other texts at that position."""
    entropy: float = 0.05
    """What a nat of entropy is worth at first (explore); falls to 0 over the steps (exploit)."""
    reward: Literal["terminal", "difference", "rollout"] = "terminal"
    """What the environment pays: R at the end, the change of Q, or Q (a return already: --gamma 0)."""
    gamma: float = 1.0
    """Discount: what a reward that comes one token later is worth."""
    control: Literal["constant", "random", "shuffled"] | None = None
    """A reward that knows nothing of the text."""
    task_seed: int = 5
    """Of the toy task; with 5 one text stands clear of all others."""
    seed: int = 0
    """Of the texts."""


def make_envs(args: Args, task: ToyTask) -> TextGANVectorEnv:
    """As many texts side by side as a batch has; the policy itself completes prefixes, 4 times each."""
    options: dict[str, Any] = {"task": task, "reward": args.reward, "control": args.control, "rollouts": 4}
    envs = gym.make_vec("TextGAN/Toy-v0", args.batch_size, vectorization_mode="vector_entry_point", **options)
    envs.reset(seed=1000 * args.seed)  # row i is seeded with this + i: no two runs share a row
    return cast(TextGANVectorEnv, envs.unwrapped)


def returns_to_go(reward_BT: Tensor, gamma: float) -> Tensor:
    """The return of each token: G_t = r_t + gamma G_(t+1)."""
    return_BT = reward_BT.clone()
    for t in reversed(range(return_BT.shape[1] - 1)):
        return_BT[:, t] += gamma * return_BT[:, t + 1]
    return return_BT


def reinforce_loss(policy: TablePolicy, batch: EpisodeBatch, args: Args, entropy: float = 0.0) -> Tensor:
    """A number whose gradient is minus the estimated policy gradient."""
    logp_BT = policy.log_prob(batch.tokens_BT, batch.mask_BT)
    return_BT = returns_to_go(batch.reward_BT, args.gamma) + entropy * returns_to_go(-logp_BT.detach(), gamma=1.0)
    others_BT = (return_BT.sum(0) - return_BT) / (len(return_BT) - 1)
    advantage_BT = return_BT - others_BT if args.baseline == "leave-one-out" else return_BT
    total, texts = policy_gradient_sum(logp_BT, advantage_BT, batch.mask_BT)
    return total / texts


def exact_value(policy: TablePolicy, task: ToyTask, reward_S: Tensor) -> tuple[Tensor, Tensor]:
    """J, the expected R of a text, and the entropy of texts (nats), by listing all of them; differentiable."""
    logp_S = policy.log_prob(task.texts_ST, torch.ones_like(task.texts_ST, dtype=torch.bool)).sum(1)
    return (logp_S.exp() * reward_S).sum(), -(logp_S.exp() * logp_S).sum()


def gradient_errors(args: Args, task: ToyTask, reward_S: Tensor, batches: int = 100) -> tuple[float, float]:
    """Distance to the exact gradient over its length: of one batch, on average, and of the mean of all batches."""
    envs = make_envs(args, task)
    policy = TablePolicy(task.vocab_size, max_length=task.max_length)
    (exact_PV,) = torch.autograd.grad(exact_value(policy, task, reward_S)[0], policy.logits_PV)
    losses = [reinforce_loss(policy, envs.collect(policy), args) for _ in range(batches)]
    wrong_NPV = torch.stack([-torch.autograd.grad(loss, policy.logits_PV)[0] for loss in losses]) - exact_PV
    length = exact_PV.norm()
    return float(wrong_NPV.norm(dim=(1, 2)).mean() / length), float(wrong_NPV.mean(0).norm() / length)


def learn(args: Args, policy: TablePolicy, task: ToyTask, reward_S: Tensor) -> list[tuple[float, float]]:
    """Train the policy; returns its exact value and entropy before each step and after the last."""
    envs = make_envs(args, task)
    optimizer = torch.optim.Adam(policy.parameters(), lr=args.learning_rate)
    curve = []
    for step in range(args.steps):
        value, entropy = exact_value(policy, task, reward_S)
        curve.append((value.item(), entropy.item()))
        batch = envs.collect(policy)
        loss = reinforce_loss(policy, batch, args, entropy=args.entropy * (1 - step / args.steps))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    value, entropy = exact_value(policy, task, reward_S)
    return [*curve, (value.item(), entropy.item())]


def main(args: Args) -> dict[str, float]:
    """Learn and print; returns what was reached beside what can be reached."""
    require(args.steps >= 10, f"steps must be at least 10, found {args.steps}")
    require(args.batch_size >= 2, f"batch_size must be at least 2, found {args.batch_size}")
    task = ToyTask(seed=args.task_seed)
    discriminator = default_discriminator(task, seed=0)  # the one that the environment asks
    reward_S = score_logits(discriminator, task.texts_ST).sigmoid()  # R of all V^T texts
    best = reward_S.argmax()
    print(f"of all {len(reward_S)} texts {task.texts_ST[best].tolist()} is best, R = {reward_S[best]:.3f}")

    print("\nerror of the first gradient, over its length   one batch  mean of 100")
    for arm in (
        replace(args, reward="terminal", gamma=1.0, baseline="none", control=None),
        replace(args, reward="terminal", gamma=1.0, baseline="leave-one-out", control=None),
        replace(args, reward="rollout", gamma=0.0, baseline="leave-one-out", control=None),
    ):
        one, mean = gradient_errors(arm, task, reward_S)
        print(f"{arm.reward:>8}, gamma {arm.gamma:.0f}, baseline {arm.baseline:13}{one:18.2f}{mean:13.2f}")

    policy = TablePolicy(task.vocab_size, max_length=task.max_length)
    curve = learn(args, policy, task, reward_S)
    print("\nstep  expected R  entropy")
    for step in range(0, args.steps + 1, args.steps // 10):
        print(f"{step:4d}  {curve[step][0]:10.3f}  {curve[step][1]:7.3f}")

    print("\ntemperature  expected R  entropy")
    for temperature in (2.0, 1.0, 0.5):
        value, entropy = exact_value(policy.with_decoding(Decoding(temperature=temperature)), task, reward_S)
        print(f"{temperature:11.1f}  {value.item():10.3f}  {entropy.item():7.3f}")
    return {"reached": curve[-1][0], "entropy": curve[-1][1], "optimum": reward_S[best].item(), "uniform": curve[0][0]}


if __name__ == "__main__":
    with friendly_errors():
        main(tyro.cli(Args))
