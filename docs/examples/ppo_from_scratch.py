"""PPO on TextGAN from scratch, in one file: python docs/examples/ppo_from_scratch.py --help.

The discriminator learns along, so the reward is a moving target: watch what it says of texts it was not fitted on.
"""

from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.distributions import Categorical

import textgan_env  # noqa: F401  registers the environments
from textgan_env.envs.wrappers import DiscriminatorVectorTraining


@dataclass
class Args:
    """Options."""

    env_id: str = "TextGAN/Toy-v0"
    num_envs: int = 64
    iterations: int = 40
    refit_every: int = 256
    """Finished texts between two refits of the discriminator; 0: it stays as it is."""
    learning_rate: float = 2e-3
    epochs: int = 4
    minibatches: int = 4
    gae_lambda: float = 0.95
    clip: float = 0.2
    entropy: float = 0.3
    """Weight of the entropy; with little of it the agent soon generates one text only, which D sees."""
    seed: int = 0


class Agent(nn.Module):
    """Actor and critic; an LSTM reads the prefix, which is all there is to know: no state is carried between steps."""

    def __init__(self, vocab_size: int, actions: int, width: int = 32) -> None:
        super().__init__()
        self.start = vocab_size  # PAD begins every text
        self.embedding = nn.Embedding(vocab_size + 1, width)
        self.lstm = nn.LSTM(width, width, batch_first=True)
        self.actor, self.critic = nn.Linear(width, actions), nn.Linear(width, 1)

    def forward(self, tokens: Tensor, length: Tensor) -> tuple[Categorical, Tensor]:
        """The distribution of the next token, and the value of the prefix."""
        read = torch.cat([torch.full_like(tokens[:, :1], self.start), tokens], dim=1)
        hidden = self.lstm(self.embedding(read))[0][torch.arange(len(read)), length[:, 0]]
        return Categorical(logits=self.actor(hidden)), self.critic(hidden)[:, 0]


def train(args: Args) -> list[float]:
    """Train; returns the mean reward of a text in each iteration."""
    torch.manual_seed(args.seed)
    # Paid at the end of a text only, so gamma is 1 and nothing is completed; "logit" is log D - log(1 - D).
    envs = gym.make_vec(args.env_id, num_envs=args.num_envs, reward="terminal", transform="logit")
    if args.refit_every:
        envs = DiscriminatorVectorTraining(envs, every=args.refit_every)
    steps = envs.single_observation_space["tokens"].shape[0]
    vocab_size = int(envs.single_observation_space["tokens"].high.max())  # PAD is V
    agent = Agent(vocab_size, int(envs.single_action_space.n))  # one action fewer where there is UNK
    optimizer = torch.optim.Adam(agent.parameters(), lr=args.learning_rate, eps=1e-5)

    obs, _ = envs.reset(seed=args.seed)
    history = []
    for iteration in range(args.iterations):
        rows, finished = [], []
        for _ in range(steps):
            tokens, length = (torch.from_numpy(obs[key]) for key in ("tokens", "length"))
            with torch.no_grad():
                dist, value = agent(tokens, length)
            action = dist.sample()
            obs, reward, done, _, _ = envs.step(action.numpy())
            rows.append((tokens, length, action, dist.log_prob(action), value, torch.from_numpy(reward).float(), done))
            finished += reward[done].tolist()
        history.append(float(np.mean(finished)))

        # Generalised advantages, backwards; a finished text has no value after its end.
        with torch.no_grad():
            ahead = agent(*(torch.from_numpy(obs[key]) for key in ("tokens", "length")))[1]
        advantages, carried = [], torch.zeros(args.num_envs)
        for *_, value, reward, done in reversed(rows):
            goes_on = torch.from_numpy(~done).float()
            carried = reward + goes_on * (ahead + args.gae_lambda * carried) - value
            advantages.insert(0, carried)
            ahead = value
        advantage = torch.cat(advantages)
        tokens, length, action, old_logp, value = (torch.cat([row[i] for row in rows]) for i in range(5))
        target = value + advantage

        for _ in range(args.epochs):
            for part in torch.randperm(len(action)).chunk(args.minibatches):
                dist, predicted = agent(tokens[part], length[part])
                ratio = (dist.log_prob(action[part]) - old_logp[part]).exp()
                gain = (advantage[part] - advantage[part].mean()) / (advantage[part].std() + 1e-8)
                clipped = ratio.clamp(1 - args.clip, 1 + args.clip)
                loss = -torch.min(ratio * gain, clipped * gain).mean() - args.entropy * dist.entropy().mean()
                loss = loss + 0.5 * (predicted - target[part]).pow(2).mean()
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
                optimizer.step()
        judged = f"  D's AUC on unseen texts {envs.stats['held_out/auc']:.2f}" if getattr(envs, "stats", {}) else ""
        print(f"iteration {iteration + 1:3d}  reward of a text {history[-1]:6.3f}{judged}")
    return history


if __name__ == "__main__":
    train(tyro.cli(Args))
