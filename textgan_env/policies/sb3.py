"""Models of Stable-Baselines3 as policies; not imported by the package, because it needs the extra ``sb3``."""

import warnings
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.dqn.policies import DQNPolicy
from torch import Tensor, nn

from textgan_env.policies.base import PolicyModule, State
from textgan_env.utils.errors import InputError, require


class SB3RolloutPolicy(PolicyModule):
    """An SB3 model as a policy the environment can roll out: it shares the network, so it is always the current one.

    ``envs.unwrapped.set_rollout_policy(SB3RolloutPolicy(model))`` lets the model in training complete the prefixes, and
    `textgan_env.evaluation.evaluate` measures it. It knows nothing of the network but what it says of an observation,
    so each step reads the whole prefix; for models around `TokenExtractor`, `share_weights` gives one that continues
    from its last state. DQN draws by ``exp(Q / temperature)``: set it by ``with_decoding``. To keep the model, save
    the model.

    Args:
        model: PPO, A2C, DQN, MaskablePPO or RecurrentPPO on an `SB3VecEnv`, or another with the same kind of network.

    Raises:
        InputError: If its network is of another kind, its observations are not those of a TextGAN environment, it reads
            leaked features, which only the environment has, or it has no environment that says which tokens its
            actions are.
    """

    kind: ClassVar[str] = "sb3"

    def __init__(self, model: BaseAlgorithm) -> None:
        network = model.policy
        if not isinstance(network, (ActorCriticPolicy, MaskableActorCriticPolicy, DQNPolicy)):
            found = type(network).__name__
            raise InputError(f"model must have an actor-critic or a Q-network of Stable-Baselines3, found {found}")
        vocab_size = pad_of(model.observation_space)
        tokens_A = token_of_action(model)
        forbidden = sorted({*range(vocab_size)}.difference(tokens_A.tolist()))
        super().__init__(vocab_size, start_token=vocab_size, forbidden=forbidden)
        self.tokens_A = nn.Buffer(tokens_A, persistent=False)
        assert isinstance(model.observation_space, spaces.Dict)
        plain = "features" not in model.observation_space.spaces
        require(plain, "model must read tokens and length only, found one that reads leaked features, too")
        self.max_length = int(np.prod(model.observation_space["tokens"].shape or (0,)))
        self.network = network
        self.to(model.device)
        warn_of_gamma(model)

    def begin(self, batch_size: int) -> State:
        """Tokens int64 (B, T), their number (B,), which is -1 before the start token, and the network's own memory."""
        memory: tuple[Tensor, ...] = ()
        if isinstance(self.network, RecurrentActorCriticPolicy):
            layers, _, width = self.network.lstm_hidden_state_shape
            memory = tuple(torch.zeros(batch_size, layers, width, device=self.device) for _ in range(2))
        tokens_BT = torch.full((batch_size, self.max_length), self.vocab_size, device=self.device)
        return tokens_BT, torch.full((batch_size,), -1, device=self.device), memory

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Ask the network what comes after the prefix. PAD, what is read after the end, leaves a prefix as it is."""
        tokens_BT, length_B, memory = state
        written_B = (length_B >= 0) & (tokens_B != self.vocab_size)
        here_BT = written_B[:, None] & (torch.arange(self.max_length, device=self.device) == length_B[:, None])
        tokens_BT = torch.where(here_BT, tokens_B[:, None], tokens_BT)
        length_B = (length_B + written_B).clamp(min=0)
        observation = {"tokens": tokens_BT, "length": length_B[:, None]}
        network: Any = self.network
        if isinstance(network, DQNPolicy):
            return self._of_tokens(network.q_net(observation)), (tokens_BT, length_B, memory)
        if isinstance(network, RecurrentActorCriticPolicy):
            before = tuple(part.transpose(0, 1).contiguous() for part in memory)
            new_B = torch.zeros_like(length_B, dtype=torch.float32)  # `begin` and `reset_rows` reset the memory
            distribution, after = network.get_distribution(observation, before, new_B)  # type: ignore[arg-type]
            memory = tuple(part.transpose(0, 1) for part in after)
        else:
            distribution = network.get_distribution(observation)
        logits_BA: Tensor = distribution.distribution.logits  # type: ignore[union-attr]
        return self._of_tokens(logits_BA), (tokens_BT, length_B, memory)

    def _of_tokens(self, logits_BA: Tensor) -> Tensor:
        """The logits of actions as those of tokens, float (B, V); any number where no action generates a token."""
        if not len(self.forbidden):
            return logits_BA
        return logits_BA.new_zeros(len(logits_BA), self.vocab_size).index_copy(1, self.tokens_A, logits_BA)


def token_of_action(model: BaseAlgorithm) -> Tensor:
    """The token that each action of a model's environment generates, int64 (A,).

    Raises:
        InputError: If the model has fewer actions than its observations have tokens, and no environment to say which
            (or its observations or actions are not those of a TextGAN environment).
    """
    vocab_size, actions = pad_of(model.observation_space), model.action_space
    require(isinstance(actions, spaces.Discrete), f"action_space must be Discrete, found {actions}")
    env, number = model.get_env(), int(actions.n)  # type: ignore[attr-defined]
    if env is not None and env.has_attr("token_of_action"):
        return torch.from_numpy(env.get_attr("token_of_action")[0].copy())
    unknown = f"model must have its environment (model.set_env): it has {number} actions for {vocab_size} tokens"
    require(number == vocab_size, unknown)
    return torch.arange(vocab_size)


def warn_of_gamma(model: BaseAlgorithm) -> None:
    """Warn where a model adds up rewards that are returns already: it would learn another objective."""
    env = model.get_env()
    gamma = getattr(model, "gamma", 0)
    if gamma and env is not None and env.has_attr("reward_mode") and env.get_attr("reward_mode")[0] == "rollout":
        why = "reward='rollout' pays returns, which are to be learnt from with gamma 0: the model adds them up"
        warnings.warn(f"{why} with gamma {gamma}; reward='terminal' suits gamma 1", UserWarning, stacklevel=3)


def pad_of(space: spaces.Space[Any]) -> int:
    """PAD = V of an observation space."""
    tokens = space.spaces.get("tokens") if isinstance(space, spaces.Dict) else None
    if not isinstance(tokens, spaces.Box) or "length" not in space.spaces:  # type: ignore[attr-defined]
        raise InputError(f"observation_space must be a Dict of 'tokens' and 'length', found {space}")
    return int(tokens.high.max())
