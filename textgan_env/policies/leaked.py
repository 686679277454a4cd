"""LeakGAN's generator: a policy that reads the discriminator's features of what it has generated so far."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from textgan_env.discriminators import DiscriminatorModule, make_discriminator
from textgan_env.ops.losses import linear_log_prob
from textgan_env.ops.sampling import seeded
from textgan_env.ops.tiles import numbers_of
from textgan_env.policies.base import PolicyModule, State
from textgan_env.policies.goals import GOALS
from textgan_env.policies.manager_worker import Manager, Worker, outer_product
from textgan_env.utils.errors import require, require_at_least
from textgan_env.utils.reading import check_weights


class LeakedPolicy(PolicyModule):
    """Manager and Worker over the leaked features of the prefix (Guo et al. 2018).

    At position t, with f_t = D's features of the first t tokens filled up with PAD::

        g_t = M(f_0..f_t), |g_t| = 1              the Manager's goal, (F,)
        w_t = psi(g_{t-c} + ... + g_{t-1})        what the Worker is given of the last c goals, (k,)
        logits_t = O(h_t) w_t                     h_t the Worker's LSTM over the tokens so far

    Goals before the first are one learnt vector, the same in all rows: with zeros the first token would be uniform.
    D's part of the state is updated token by token. D is a copy that never learns here; `leak` takes a newer one.

    Args:
        vocab_size: V.
        start_token: What is read before the first token.
        discriminator: D to copy, or its ``kind`` and config as plain data (then its weights are still to be loaded).
        embed_size: Width of the Worker's embedding; None: the published 32, or 64 where T is above 20.
        hidden_size: Width of the Worker's LSTM; None: likewise.
        manager_size: Width of the Manager's LSTM; None: likewise.
        goal_size: k.
        goal_steps: c.
        variant: ``paper``, or ``reference``, the published code: goals are summed in blocks of c positions, a sum holds
            for the next block, and w_t is scaled to length 1.
        dropout: Share of the Worker's units set to 0 in training.
        init_scale: Standard deviation of the initial weights.
        forbidden: Tokens that are never generated, such as UNK.
        seed: What the initial weights follow from.

    Raises:
        InputError: If a size is below 1, c is above T, or D reads another vocabulary.
    """

    kind: ClassVar[str] = "leaked"
    # An environment lets it generate only where features leak.
    reads_features: ClassVar[bool] = True

    def __init__(
        self,
        vocab_size: int,
        *,
        start_token: int,
        discriminator: DiscriminatorModule | Mapping[str, Any],
        embed_size: int | None = None,
        hidden_size: int | None = None,
        manager_size: int | None = None,
        goal_size: int = 16,
        goal_steps: int = 4,
        variant: str = "paper",
        dropout: float = 0.0,
        init_scale: float = 0.1,
        forbidden: Sequence[int] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(vocab_size, start_token, forbidden)
        given = {"embed_size": embed_size, "hidden_size": hidden_size, "manager_size": manager_size}
        require_at_least(1, **given, goal_size=goal_size)
        require_at_least(0, init_scale=init_scale)
        require(variant in GOALS, f"variant must be {' or '.join(GOALS)}, found '{variant}'")
        require(0 <= dropout < 1, f"dropout must be at least 0 and below 1, found {dropout}")
        leaking = copy.deepcopy(discriminator) if isinstance(discriminator, DiscriminatorModule) else None
        leaking = leaking or make_discriminator(**discriminator)  # type: ignore[arg-type]
        expected, found = f"the discriminator that leaks must read the policy's V={vocab_size}", leaking.vocab_size
        require(found == vocab_size, f"{expected}, found V={found}")
        longest = leaking.max_length
        require(1 <= goal_steps <= longest, f"goal_steps (c) must be 1 to T={longest}, found {goal_steps}")
        sizes = {name: size or (32 if longest <= 20 else 64) for name, size in given.items()}
        embed_size, hidden_size, manager_size = sizes.values()
        features = leaking.feature_size
        manager = 4 * manager_size * (features + manager_size + 2) + features * (manager_size + 1)
        worker = 4 * hidden_size * (embed_size + hidden_size + 2) + features * (goal_size + 1)
        tables = (vocab_size + 1) * embed_size + vocab_size * goal_size * (hidden_size + 1)
        check_weights(manager + worker + tables, "a leaked policy")
        self.discriminator = leaking.eval().requires_grad_(False)
        self.goal_steps, self.variant = goal_steps, variant
        own = {"dropout": dropout, "init_scale": init_scale}
        goals = {"goal_size": goal_size, "goal_steps": goal_steps, "variant": variant}
        self._settings = {"discriminator": {"kind": leaking.kind, **leaking.config()}, **sizes, **goals, **own}
        # Of the first two tokens, whatever the decoding says of the others; None: as the others.
        self.first_inverse_temperature: float | None = None
        with seeded(seed):
            self.manager = Manager(features, manager_size, init_scale)
            widths = {"embed_size": embed_size, "hidden_size": hidden_size, "goal_size": goal_size}
            self.worker = Worker(vocab_size, features, **widths, init_scale=init_scale, dropout=dropout)
        #: How goals reach the Worker, and what both learn from.
        self.rules = GOALS[variant](self.worker, goal_steps)

    @property
    def feature_size(self) -> int:
        """F."""
        return self.discriminator.feature_size

    @property
    def learners(self) -> nn.ModuleDict:
        """Manager and Worker, without D: what learns."""
        return nn.ModuleDict({"manager": self.manager, "worker": self.worker})

    def leak(self, discriminator: DiscriminatorModule) -> None:
        """Read the features of this D from now on: its weights are copied.

        Raises:
            InputError: If it is of another kind or size than the one before.
        """
        ours, theirs = ({"kind": one.kind, **one.config()} for one in (self.discriminator, discriminator))
        changed = ", ".join(f"{key}={theirs.get(key)}" for key in theirs if theirs.get(key) != ours.get(key))
        expected = f"the discriminator that leaks must be as the policy was made for, F={self.feature_size}"
        require(theirs == ours, f"{expected}, found F={discriminator.feature_size} ({changed})")
        self.discriminator.load_state_dict(discriminator.state_dict())

    def with_first_inverse_temperature(self, inverse_temperature: float) -> Self:
        """The same policy, sharing its weights, whose first two tokens have an inverse temperature of their own."""
        view = copy.copy(self)
        view.first_inverse_temperature = inverse_temperature
        return view

    def begin(self, batch_size: int) -> State:
        """D's state, both LSTMs', and the embedded goals as far as they still matter."""
        return {
            "prefix": self.discriminator.begin_features(batch_size),
            "manager": self.manager.begin(batch_size),
            "worker": self.worker.begin(batch_size),
            "goals": self.rules.begin(batch_size),
        }

    def reset_rows(self, state: State, mask_B: Tensor) -> State:
        """``state`` with some rows back at the empty prefix; nothing is begun where there is none."""
        return state if mask_B.device.type == "cpu" and not bool(mask_B.any()) else super().reset_rows(state, mask_B)

    def raw_step(self, tokens_B: Tensor, state: State) -> tuple[Tensor, State]:
        """Logits under the goals set before this position; then a new goal from the features of the prefix."""
        hidden_B1H, worker = self.worker.read(tokens_B[:, None], state["worker"])
        given_Bk = self.rules.scaled(self.rules.current(state["goals"]))
        position_B = state["prefix"]["length"] + 1
        products_BX = outer_product(hidden_B1H[:, 0], given_Bk) * self._sharpening(position_B)[:, None]
        logits_BV = products_BX @ self.worker.output.t()
        with torch.no_grad():
            # A goal that is set later would reach no token any more.
            in_time = self.rules.in_time(self.discriminator.max_length)
            if tokens_B.device.type == "cpu" and bool((position_B >= in_time).all()):
                prefix = self.discriminator.append_tokens(tokens_B, state["prefix"])
                return logits_BV, {**state, "prefix": prefix, "worker": worker}
            features_BF, prefix = self.discriminator.step_features(tokens_B, state["prefix"])
            goal_B1F, manager = self.manager(features_BF[:, None], state["manager"])
        goals = self.rules.next(state["goals"], self.worker.goal_embedding(goal_B1F), position_B)
        return logits_BV, {"prefix": prefix, "manager": manager, "worker": worker, "goals": goals}

    def log_prob(self, tokens_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Log-probability (nats) of each token, float (B, T): the Worker learns from it, no one else."""
        if self.decoding.truncates:
            return super().log_prob(tokens_BT, mask_BT)
        with torch.no_grad():
            goals_BTF = self.goals(self.prefix_features(tokens_BT))
        return self.worker_log_prob(tokens_BT, mask_BT, goals_BTF)

    def prefix_features(self, tokens_BT: Tensor) -> Tensor:
        """f_0 to f_T, float (B, T + 1, F), without gradients."""
        return self.discriminator.prefix_features(tokens_BT)

    def goals(self, features_BSF: Tensor) -> Tensor:
        """g_0 to g_{T-1}, float (B, T, F), from f_0 to f_T: only the Manager learns from them."""
        goals_BTF: Tensor = self.manager(features_BSF[:, :-1], self.manager.begin(len(features_BSF)))[0]
        return goals_BTF

    def worker_log_prob(
        self, tokens_BT: Tensor, mask_BT: Tensor, goals_BTF: Tensor, *, late: int = 0, given_not: int | None = None
    ) -> Tensor:
        """`log_prob` under given goals, which get no gradient.

        Args:
            tokens_BT: int64, PAD after the end.
            mask_BT: bool; the cells asked for.
            goals_BTF: float; the Manager's.
            late: See `PaperGoals.late`.
            given_not: A token that is known not to stand there: log G(y | s, y is not it).
        """
        read_BT = functional.pad(tokens_BT[:, :-1], (1, 0), value=self.start_token)
        hidden_BTH, _ = self.worker.read(read_BT, self.worker.begin(len(tokens_BT)))
        given_BTk = self.rules.scaled(self.rules.given(self.worker.goal_embedding(goals_BTF), late))
        asked_R = numbers_of(mask_BT.flatten())
        products_RX = outer_product(hidden_BTH.flatten(0, 1)[asked_R], given_BTk.flatten(0, 1)[asked_R])
        sharpening_R = self._sharpening(asked_R % tokens_BT.shape[1]) / self.decoding.temperature
        products_RX = products_RX * sharpening_R[:, None]
        bias_V = products_RX.new_zeros(self.vocab_size).index_fill(0, self.forbidden, -math.inf)
        if given_not is not None:
            bias_V[given_not] = -math.inf
        # Maximum likelihood learns in training mode, with dropout; policy gradient does not.
        # PAD stands in no cell that is asked for.
        scored_R = tokens_BT.flatten()[asked_R].clamp(max=self.vocab_size - 1)
        logp_R = linear_log_prob(products_RX, self.worker.output, bias_V, scored_R, expect_alike=self.worker.training)
        logp_X: Tensor = torch.zeros_like(mask_BT, dtype=logp_R.dtype).flatten().index_copy(0, asked_R, logp_R)
        return logp_X.view_as(mask_BT).masked_fill(~mask_BT, 0.0)

    def _sharpening(self, position_R: Tensor) -> Tensor:
        """What logits are multiplied by before the decoding divides them by its temperature, float (R,)."""
        ones_R = torch.ones_like(position_R, dtype=torch.float32)
        if self.first_inverse_temperature is None:
            return ones_R
        return torch.where(position_R < 2, self.first_inverse_temperature * self.decoding.temperature, ones_R)
