"""Stable-Baselines3 on TextGAN: the environment as its VecEnv, networks that read prefixes, its models as policies."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import DictReplayBuffer
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.policies import DQNPolicy, MultiInputPolicy, QNetwork
from torch import Tensor, nn

from textgan_env.envs.views import Observation
from textgan_env.ops.episodes import Ints
from textgan_env.ops.sampling import sample_categorical, seeded
from textgan_env.policies.lstm import LSTMPolicy
from textgan_env.policies.sb3 import SB3RolloutPolicy as SB3RolloutPolicy
from textgan_env.policies.sb3 import pad_of, token_of_action, warn_of_gamma
from textgan_env.utils.errors import require, require_at_least


class SB3VecEnv(VecEnv):
    """A Gymnasium vector environment as Stable-Baselines3's ``VecEnv``.

    The rows stay one batch: `step` is one call, and an info is filled only for the rows that ended. Seeds and options
    given by ``seed`` and ``set_options`` are used at the next ``reset``, once, as SB3 does it. ``env_method`` calls a
    method of the batch once; an array that comes back is dealt out row by row, anything else is every row's answer.

    Example:
        >>> import gymnasium as gym, textgan_env
        >>> from stable_baselines3 import PPO
        >>> from textgan_env.envs.sb3 import SB3VecEnv, TokenExtractor
        >>> envs = SB3VecEnv(gym.make_vec("TextGAN/Toy-v0", num_envs=8, reward="terminal"))
        >>> policy = {"features_extractor_class": TokenExtractor}
        >>> model = PPO("MultiInputPolicy", envs, n_steps=4, batch_size=32, gamma=1.0, policy_kwargs=policy)
        >>> model.learn(64).num_timesteps
        64

    Args:
        envs: A `textgan_env.envs.TextGANVectorEnv`, wrapped or not, or any other vector environment with same-step
            autoreset.

    Raises:
        InputError: If it is no vector environment, or resets in another mode.
    """

    def __init__(self, envs: VectorEnv[Observation, Ints, NDArray[Any]]) -> None:
        kind = type(envs).__name__
        require(isinstance(envs, VectorEnv), f"envs must be a vector environment (gym.make_vec), found {kind}")
        mode = envs.metadata.get("autoreset_mode")
        expected = "envs must reset in the step that ends a text (autoreset_mode='same_step')"
        require(mode == AutoresetMode.SAME_STEP, f"{expected}, found {mode}")
        self.envs = envs
        self._actions: Ints = np.zeros(envs.num_envs, dtype=np.int64)
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Observation:
        """Start a new text in every row.

        Raises:
            InputError: If rows were given different options: they are one batch.
        """
        options = self._options[0]
        same = all(other == options for other in self._options)
        require(same, "options must be the same for every row, found different ones")
        seeds = None if all(seed is None for seed in self._seeds) else self._seeds
        observation, _ = self.envs.reset(seed=seeds, options=options or None)  # type: ignore[arg-type]
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{} for _ in range(self.num_envs)]
        return observation

    def step_async(self, actions: NDArray[Any]) -> None:
        """Keep the actions for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[Observation, NDArray[np.float32], NDArray[np.bool_], list[dict[str, Any]]]:
        """Write one token a row.

        Returns:
            The observation (of the new text in rows that ended), rewards float32 (B,), whether the text ended, bool
            (B,), and one info a row: ``terminal_observation``, ``TimeLimit.truncated`` and what the environment says of
            the finished text.
        """
        observation, reward_B, terminated_B, truncated_B, told = self.envs.step(self._actions)
        done_B = terminated_B | truncated_B
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        of_ended = told.get("final_info", {})
        for row in done_B.nonzero()[0]:
            infos[row] = {
                name: of_ended[name][row] for name in of_ended if f"_{name}" in of_ended and of_ended[f"_{name}"][row]
            }
            infos[row]["terminal_observation"] = told["final_obs"][row]
            infos[row]["TimeLimit.truncated"] = bool(truncated_B[row] and not terminated_B[row])
        return observation, reward_B.astype(np.float32), done_B, infos

    def close(self) -> None:
        """Close the environment."""
        self.envs.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of the batch, once for each row; raises AttributeError if there is none."""
        return [self._found(attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the environment inside all wrappers, for all rows.

        Raises:
            InputError: If only some rows are meant.
        """
        require(indices is None, f"indices must be None, all rows share '{attr_name}', found {indices}")
        setattr(self.envs.unwrapped, attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the batch once and deal out its answer, see above."""
        answer = self._found(method_name)(*method_args, **method_kwargs)
        by_row = isinstance(answer, np.ndarray)
        return [answer[row] if by_row else answer for row in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper[Any, Any, Any, Any]], indices: Any = None) -> list[bool]:
        """Whether a wrapper of this class stands around the batch."""
        wrapped = any(isinstance(layer, wrapper_class) for layer in self._layers())
        return [wrapped for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """A picture of each row's text (render_mode="rgb_array")."""
        return cast("tuple[NDArray[np.uint8], ...]", self.envs.render() or ())

    def _layers(self) -> list[Any]:
        """The environment's wrappers from the outermost on, then itself."""
        layers: list[Any] = [self.envs]
        while layers[-1] is not layers[-1].unwrapped:
            layers.append(layers[-1].env)
        return layers

    def _found(self, name: str) -> Any:
        """An attribute of the outermost layer that has it."""
        return getattr(next((layer for layer in self._layers() if hasattr(layer, name)), self.envs), name)


class TokenExtractor(BaseFeaturesExtractor):
    """What an LSTM has read of the prefix: embedding, LSTM, its output after the last written token.

    What stands after the prefix (PAD) is never read. With ``net_arch=[]`` the actor of an SB3 model is exactly the
    network of `LSTMPolicy`, see `share_weights`. SB3's own extractor for this space would take token ids for
    quantities. Where the environment leaks D's features of the prefix, they are joined as they are.

    Args:
        observation_space: Of a TextGAN environment.
        embed_size: Width of the embedding.
        hidden_size: Width of the LSTM, and of the features but for leaked ones.
        num_layers: LSTM layers.
        start_token: What is read before the first token; None: PAD.

    Raises:
        InputError: If the space is another one, or a size is below 1.
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        embed_size: int = 32,
        hidden_size: int = 32,
        num_layers: int = 1,
        start_token: int | None = None,
    ) -> None:
        require_at_least(1, embed_size=embed_size, hidden_size=hidden_size, num_layers=num_layers)
        pad = pad_of(observation_space)
        leaked = observation_space.spaces.get("features")
        super().__init__(observation_space, hidden_size + (0 if leaked is None else int(np.prod(leaked.shape or ()))))
        self.start_token = pad if start_token is None else start_token
        self.embedding = nn.Embedding(pad + 1, embed_size)
        self.lstm = nn.LSTM(embed_size, hidden_size, num_layers, batch_first=True)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features of the prefixes, float (B, hidden_size), or (B, hidden_size + F) with leaked ones."""
        tokens_BT, length_B = observations["tokens"].long(), observations["length"].long()[:, 0]
        start_B1 = torch.full_like(tokens_BT[:, :1], self.start_token)
        read_BT = torch.cat([start_B1, tokens_BT[:, : int(length_B.max())]], dim=1)
        hidden_BTH, _ = self.lstm(self.embedding(read_BT))
        features_BH: Tensor = hidden_BTH[torch.arange(len(length_B), device=length_B.device), length_B]
        return torch.cat([features_BH, observations["features"]], dim=1) if "features" in observations else features_BH


class LastTokenExtractor(BaseFeaturesExtractor):
    """The embedding of the last written token: for models that have a memory of their own, as RecurrentPPO has.

    Args:
        observation_space: Of a TextGAN environment.
        embed_size: Width of the embedding, and of the features.
        start_token: What is read before the first token; None: PAD.

    Raises:
        InputError: If the space is another one, or the size is below 1.
    """

    def __init__(self, observation_space: spaces.Dict, embed_size: int = 32, start_token: int | None = None) -> None:
        require_at_least(1, embed_size=embed_size)
        pad = pad_of(observation_space)
        super().__init__(observation_space, features_dim=embed_size)
        self.start_token = pad if start_token is None else start_token
        self.embedding = nn.Embedding(pad + 1, embed_size)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """Features of the prefixes, float (B, embed_size)."""
        tokens_BT, length_B1 = observations["tokens"].long(), observations["length"].long()
        last_B = tokens_BT.gather(1, (length_B1 - 1).clamp(min=0))[:, 0]
        features_BE: Tensor = self.embedding(torch.where(length_B1[:, 0] > 0, last_B, self.start_token))
        return features_BE


class BoltzmannDQNPolicy(MultiInputPolicy):
    """DQN's network, which writes each token with a probability proportional to ``exp(Q / temperature)``.

    The best token alone would write one text. ``deterministic=True`` still does.

    Args:
        *args: Of SB3's ``MultiInputPolicy``.
        temperature: In units of reward.
        **kwargs: Of SB3's ``MultiInputPolicy``.

    Raises:
        InputError: If the temperature is not above 0.
    """

    def __init__(self, *args: Any, temperature: float = 1.0, **kwargs: Any) -> None:
        require(temperature > 0, f"temperature must be above 0, found {temperature}")
        super().__init__(*args, **kwargs)
        self.temperature = temperature

    def _predict(self, obs: Any, deterministic: bool = True) -> Tensor:
        """Draw tokens, int64 (B,)."""
        q_BV = self.q_net(obs)
        if deterministic:
            best_B: Tensor = q_BV.argmax(1)
            return best_B
        uniform_B = torch.rand(len(q_BV), dtype=torch.float64, device=q_BV.device)
        return sample_categorical(q_BV / self.temperature, uniform_B, overwrite=True)


class ReplayState(nn.Module):
    """A replay buffer as a module without weights: its arrays are buffers, so that checkpoints hold them.

    The arrays are shared; where the buffer stands is not, because SB3 counts in plain numbers: `take` copies it from
    the buffer, `put_back` into it.

    Args:
        buffer: Of an SB3 model on a TextGAN environment.
    """

    def __init__(self, buffer: DictReplayBuffer) -> None:
        super().__init__()
        self.buffer = buffer
        arrays = {f"{name}_before": array for name, array in buffer.observations.items()}
        arrays |= {f"{name}_after": array for name, array in buffer.next_observations.items()}
        # Where UNK is no action it once was one: what was saved then does not fit.
        identity = getattr(buffer.action_space, "n", None) == pad_of(buffer.observation_space)
        arrays |= {"actions" if identity else "actions_without_unk": buffer.actions, "rewards": buffer.rewards}
        arrays |= {"dones": buffer.dones, "timeouts": buffer.timeouts}
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(array))
        self.place = nn.Buffer(torch.zeros(2, dtype=torch.int64))

    def take(self) -> None:
        """Keep where the buffer stands."""
        self.place.copy_(torch.tensor([self.buffer.pos, int(self.buffer.full)]))

    def put_back(self) -> None:
        """Let the buffer go on from where it stood."""
        self.buffer.pos, self.buffer.full = int(self.place[0]), bool(self.place[1])


def share_weights(model: BaseAlgorithm, policy: LSTMPolicy) -> None:
    """Make an LSTM policy and the actor of an SB3 model one: the model takes the policy's weights, both share them.

    From then on what trains one trains the other, so the policy completes prefixes, is measured, saved, and trained by
    maximum likelihood as any other, and SB3 trains it by rewards. Dropout is the policy's only: SB3 has none. The
    policy has V logits, the model one for each action; where UNK makes them differ, the model's last layer becomes one
    of V logits that leaves out UNK's, in the optimizer, too.

    Args:
        model: PPO, A2C, MaskablePPO or DQN around `TokenExtractor`, or RecurrentPPO around `LastTokenExtractor`, of the
            policy's sizes, with ``net_arch=[]``; actor and critic have an extractor each
            (``share_features_extractor=False``).
        policy: Is changed in place.

    Raises:
        InputError: If the model's actor is not such a network, or of other sizes.
    """
    warn_of_gamma(model)
    network: Any = model.policy
    _widen(model)
    extractor, head = _actor(network)
    recurrent = isinstance(network, RecurrentActorCriticPolicy)
    lstm: Any = network.lstm_actor if recurrent else getattr(extractor, "lstm", None)
    embedding: Any = getattr(extractor, "embedding", None)
    pairs = ((embedding, policy.embedding), (lstm, policy.lstm), (head, policy.projection))
    fits = all(theirs is not None and _shapes(theirs) == _shapes(ours) for theirs, ours in pairs)
    require(fits, f"model must have the actor of the policy: {', '.join(str(ours) for _, ours in pairs)}")
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    policy.embedding = embedding
    policy.projection.weight, policy.projection.bias = head.weight, head.bias
    # RecurrentPPO's LSTM has the axis of time first: another module, the same weights.
    for name, parameter in lstm.named_parameters():
        parameter.requires_grad_(getattr(policy.lstm, name).requires_grad)
        setattr(policy.lstm, name, parameter)
    if isinstance(network, DQNPolicy):
        network.q_net_target.load_state_dict(network.q_net.state_dict())


class TokenHead(nn.Linear):
    """A last layer with a logit for each of V tokens, of which it gives those that an action generates.

    Args:
        inputs: Width of what it reads.
        vocab_size: V.
        tokens_A: int64; the token of each action.
    """

    def __init__(self, inputs: int, vocab_size: int, tokens_A: Tensor) -> None:
        super().__init__(inputs, vocab_size)
        self.tokens_A = nn.Buffer(tokens_A, persistent=False)

    def forward(self, features_BH: Tensor) -> Tensor:
        """The logits of actions, float (B, A)."""
        return super().forward(features_BH).index_select(1, self.tokens_A)


@contextmanager
def global_seeds_kept() -> Iterator[None]:
    """Let SB3, which seeds and draws from the global generators, do so inside; afterwards they are as they were."""
    ours, numpys = random.getstate(), np.random.get_state()  # noqa: NPY002  what it draws from
    try:
        with seeded(0):
            yield
    finally:
        random.setstate(ours)
        np.random.set_state(numpys)  # noqa: NPY002  what it draws from


def _widen(model: BaseAlgorithm) -> None:
    """Give a model with fewer actions than tokens a last layer of all tokens' logits, and its optimizer the weights."""
    tokens_A, vocab_size = token_of_action(model).to(model.device), pad_of(model.observation_space)
    network: Any = model.policy
    swapped: dict[nn.Parameter, nn.Parameter] = {}
    for one in (network.q_net, network.q_net_target) if isinstance(network, DQNPolicy) else (network,):
        head = _actor(one)[1]
        if len(tokens_A) == vocab_size or isinstance(head, TokenHead):
            continue
        with seeded(0):  # the weights are those of the policy soon
            wide = TokenHead(head.in_features, vocab_size, tokens_A).to(model.device)
        swapped |= {head.weight: wide.weight, head.bias: wide.bias}
        if isinstance(one, QNetwork):
            one.q_net[-1] = wide
        else:
            one.action_net = wide
    for group in network.optimizer.param_groups:
        group["params"] = [swapped.get(weight, weight) for weight in group["params"]]


def _actor(network: Any) -> tuple[Any, Any]:
    """The extractor of the actor or Q-network, and its last layer."""
    if isinstance(network, DQNPolicy):
        network = network.q_net
    if isinstance(network, QNetwork):
        return network.features_extractor, network.q_net[-1]
    return network.pi_features_extractor, network.action_net


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The shape of each tensor of a module."""
    return {name: tensor.shape for name, tensor in module.state_dict().items()}
