"""PPO by torchrl on TextGAN, wrapped as any environment of Gymnasium: `python docs/examples/ppo_torchrl.py`.

Needs `pip install torchrl`.
"""

import argparse

import gymnasium as gym
import torch
from tensordict.nn import TensorDictModule
from torch import Tensor, nn
from torch.distributions import Categorical
from torchrl.envs import GymWrapper
from torchrl.modules import ProbabilisticActor, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import textgan_env  # noqa: F401  registers the ids


class PrefixReader(nn.Module):
    """Reads the tokens so far with a GRU; ``outputs`` numbers of each prefix."""

    def __init__(self, vocab_size: int, outputs: int, size: int = 32) -> None:
        super().__init__()
        self.pad = vocab_size  # stands before the first token, too
        self.embedding = nn.Embedding(vocab_size + 1, size)
        self.gru = nn.GRU(size, size, batch_first=True)
        self.output = nn.Linear(size, outputs)

    def forward(self, tokens: Tensor, length: Tensor) -> Tensor:
        """Token ids (..., T), PAD behind the prefix, and lengths (..., 1) -> (..., outputs)."""
        rows = tokens.reshape(-1, tokens.shape[-1])
        first = torch.full_like(rows[:, :1], self.pad)
        hidden, _ = self.gru(self.embedding(torch.cat([first, rows], dim=1)))
        last = hidden[torch.arange(len(rows)), length.reshape(-1)]
        return self.output(last).reshape(*tokens.shape[:-1], -1)


def train(env_id: str, batches: int, envs: int, seed: int) -> list[float]:
    """Returns the mean reward of a text in each batch."""
    torch.manual_seed(seed)
    made = gym.make_vec(env_id, num_envs=envs, vectorization_mode="vector_entry_point")
    env = GymWrapper(made, categorical_action_encoding=True)
    env.set_seed(seed)
    task = made.unwrapped.task
    keys = ["tokens", "length"]
    network = TensorDictModule(PrefixReader(task.vocab_size, env.action_spec.space.n), keys, ["logits"])
    actor = ProbabilisticActor(network, ["logits"], distribution_class=Categorical, return_log_prob=True)
    critic = ValueOperator(PrefixReader(task.vocab_size, 1), in_keys=keys)
    # The reward comes with the last token, so nothing is discounted.
    advantage = GAE(gamma=1.0, lmbda=1.0, value_network=critic, deactivate_vmap=True)
    loss = ClipPPOLoss(actor, critic, entropy_coeff=0.01)
    optimizer = torch.optim.Adam(loss.parameters(), lr=3e-3)
    rewards = []
    for _ in range(batches):
        with torch.no_grad():
            batch = env.rollout(2 * task.max_length, actor, break_when_any_done=False)
        rewards.append(float(batch["next", "reward"].sum() / batch["next", "done"].sum()))
        for _ in range(4):
            advantage(batch)
            found = loss(batch.reshape(-1))
            total = found["loss_objective"] + found["loss_critic"] + found["loss_entropy"]
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    return rewards


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env-id", default="TextGAN/Toy-v0")
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--envs", type=int, default=64, help="texts side by side")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rewards = train(given.env_id, given.batches, given.envs, given.seed)
    print(f"mean reward of a text: {rewards[0]:.3f} at first, {rewards[-1]:.3f} after {given.batches} batches")


if __name__ == "__main__":
    main()
