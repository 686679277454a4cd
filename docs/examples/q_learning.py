"""Tabular Q-learning (Watkins 1989) on the toy task, beside the answer that listing all texts gives.

State: the prefix. Action: the next token. Reward: R(text), paid when the text ends.
"""

from collections import defaultdict
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

import textgan_env  # noqa: F401  registers the environments
from textgan_env.discriminators import score_logits
from textgan_env.envs import default_discriminator, default_rollout_policy
from textgan_env.tasks import ToyTask
from textgan_env.utils.errors import friendly_errors, require

Prefix = tuple[int, ...]
QTable = dict[Prefix, NDArray[np.float64]]  # Q of each of the V next tokens


@dataclass(frozen=True)
class Args:
    """Learn the best text of the toy task by Q-learning."""

    texts: int = 3000
    """Texts to generate."""
    epsilon: float = 0.5
    """Share of tokens drawn at random (explore); the others have the highest Q so far (exploit)."""
    learning_rate: float = 0.5
    """How far Q moves towards each new target."""
    gamma: float = 1.0
    """Discount: what a reward that comes one token later is worth."""
    initial: float = 0.0
    """Q of what was never tried."""
    task_seed: int = 5
    """Of the toy task; with 5 one text stands clear of all others."""
    seed: int = 0
    """Of the random tokens."""


def write_and_learn(env: gym.Env, q: QTable, args: Args, rng: np.random.Generator) -> float:
    """Generate one text, learn from every token of it, and return what it was paid."""
    env.reset()
    prefix: Prefix = ()
    ended = False
    while not ended:
        explore = rng.random() < args.epsilon
        token = int(rng.integers(len(q[prefix])) if explore else q[prefix].argmax())
        _, reward, ended, _, _ = env.step(token)
        longer = (*prefix, token)
        target = float(reward) if ended else float(reward) + args.gamma * q[longer].max()
        q[prefix][token] += args.learning_rate * (target - q[prefix][token])
        prefix = longer
    return float(reward)


def greedy_text(q: QTable, length: int) -> Prefix:
    """The text whose every token has the highest Q."""
    text: Prefix = ()
    while len(text) < length:
        text = (*text, int(q[text].argmax()))
    return text


def optimal_q(task: ToyTask, reward_S: Tensor, gamma: float) -> QTable:
    """Q* of every prefix and token: the best text from there on, discounted once for each token after it."""
    optimal: QTable = defaultdict(lambda: np.zeros(task.vocab_size))
    for text, reward in zip(map(tuple, task.texts_ST.tolist()), reward_S.tolist(), strict=True):
        for p, token in enumerate(text):
            to_go = gamma ** (task.max_length - 1 - p) * reward
            optimal[text[:p]][token] = max(optimal[text[:p]][token], to_go)
    return optimal


def best_by_sum(task: ToyTask, reward_S: Tensor) -> int:
    """Which text is best for anyone who adds up its tokens' Q, each of which is already a return to go."""
    texts = len(reward_S)
    q_of_lengths = task.exact_q(default_rollout_policy(task), reward_S)
    return int(torch.stack([q.flatten().repeat_interleave(texts // q.numel()) for q in q_of_lengths]).sum(0).argmax())


def main(args: Args) -> dict[str, float]:
    """Learn and print; returns what was reached beside what can be reached."""
    require(args.texts >= 10, f"texts must be at least 10, found {args.texts}")
    task = ToyTask(seed=args.task_seed)
    env = gym.make("TextGAN/Toy-v0", task=task, reward="terminal")
    discriminator = default_discriminator(task, seed=0)  # the one that the environment asks
    reward_S = score_logits(discriminator, task.texts_ST).sigmoid()  # R of all V^T texts
    optimum, next_best = reward_S.topk(2).values.tolist()
    best = task.texts_ST[reward_S.argmax()].tolist()
    print(f"of all {len(reward_S)} texts {best} is best, R = {optimum:.3f}; the next has {next_best:.3f},")
    print(f"and the mean, which a uniform policy expects, is {reward_S.mean():.3f}\n")

    env.reset(seed=args.seed)
    rng = np.random.default_rng(args.seed)
    q: QTable = defaultdict(lambda: np.full(task.vocab_size, args.initial))
    paid, every = [], args.texts // 10
    print("texts  mean R of the last  text of highest Q      R")
    for number in range(1, args.texts + 1):
        paid.append(write_and_learn(env, q, args, rng))
        if number % every == 0:
            text = greedy_text(q, task.max_length)
            reached = float(score_logits(discriminator, torch.tensor([text])).sigmoid())
            print(f"{number:5d}  {np.mean(paid[-every:]):18.3f}  {list(text)!s:>17}  {reached:.3f}")

    optimal = optimal_q(task, reward_S, args.gamma)
    print("\n   prefix  token  Q learnt  Q* by listing")
    for p, token in enumerate(text):
        prefix = text[:p]
        print(f"{list(prefix)!s:>9}  {token:5d}  {q[prefix][token]:8.3f}  {optimal[prefix][token]:13.3f}")
    wrong = best_by_sum(task, reward_S)
    print("\nanyone who adds up the rewards of reward='rollout', each already a return to go,")
    print(f"takes {task.texts_ST[wrong].tolist()} for the best text; its R is {reward_S[wrong]:.3f}")
    error = max(float(np.abs(q[prefix] - optimal[prefix]).max()) for prefix in optimal)
    return {"reached": reached, "optimum": optimum, "uniform": float(reward_S.mean()), "largest_error": error}


if __name__ == "__main__":
    with friendly_errors():
        main(tyro.cli(Args))
