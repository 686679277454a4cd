"""LeakGAN: the discriminator leaks its features, a Manager makes goals of them, a Worker writes toward the goals.

Algorithm 2 of Guo et al. 2018: pre-train D and G in turn, then alternate g-steps (the Manager learns from Q of
completions, the Worker from how well its words follow the goals) and d-steps, with epochs of maximum likelihood
between. Presets:

  fast    a small judge that generalises, every c-th Q, baseline for the Worker (the default)
  paper   the published sizes and schedule with the paper's rules (or --variant reference); days a run on CPU
  smoke   seconds, to see that everything runs

--variant reference keeps what the published code does otherwise, see docs/leakgan.md. --control constant, random or
shuffled replaces the reward by one that knows nothing of the text; untrained leaves D as it was drawn.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from textgan_env.errors import InputError, friendly_errors, require
from textgan_env.options import ORACLES, SharedConfig, above_zero, at_least

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from textgan_env.envs import EpisodeBatch
    from textgan_env.policies import LeakedPolicy
    from textgan_env.tasks import Task
    from textgan_env.training import Schedule


@dataclass(frozen=True)
class LeakGANConfig(SharedConfig):
    """Train a policy by LeakGAN."""

    variant: Literal["paper", "reference"] = "paper"
    """The paper's rules, or those of its published code."""
    pretrained: Path | None = None
    """A run of this agent on the same task whose G and D this one begins with; None: pre-train here."""
    pretrain_rounds: int = 10
    """Rounds of pre-training: in each D, then G."""
    pretrain_d_steps: int = 1
    """d-steps in a round of pre-training."""
    pretrain_epochs: int = 3
    """Epochs of G in a round of pre-training."""
    pretrain_patience: int = 3
    """Rounds of pre-training without a better NLL-valid after which it ends; 0: never."""
    mle_batch_size: int = 64
    """Real texts in a step of maximum likelihood."""
    mle_learning_rate: float = 1e-2
    """Of the Worker in maximum likelihood."""
    weight_decay: float = 0.1
    """Of the Worker in maximum likelihood (AdamW)."""
    dropout: float = 0.3
    """Of the Worker in maximum likelihood; never while it writes or learns from rewards."""
    average: float = 0.998
    """Share of the old that each step of maximum likelihood keeps in averaged weights, which Manager and Worker go on
    with after pre-training and after each interleaved epoch; 0: none."""
    embed_size: int | None = None
    """Of the Worker; None: 32, or 64 where T is above 20, as published."""
    hidden_size: int | None = None
    """Of the Worker and the Manager; None: likewise."""
    goal_size: int = 16
    """k, the numbers that the Worker hears of the goals."""
    goal_steps: int = 4
    """c, the tokens in which a goal is to be reached."""
    discriminator: Literal["pair", "conv"] = "pair"
    """pair: a small judge of words and near pairs; conv: the published CNN, with a width of 30 where T is above 30."""
    d_embed_size: int = 64
    """Of the CNN."""
    d_learning_rate: float | None = None
    """Of D in pre-training; None: its own."""
    d_slower: float = 0.1
    """What D's rate is multiplied by in adversarial rounds: G reads D's features, so they may not change faster than it
    learns to."""
    d_steps: int = 1
    """d-steps in an adversarial round; each takes fresh texts of G, as many as there are training texts."""
    d_epochs: int = 1
    """Passes over these texts in a d-step (k)."""
    d_batch_size: int = 64
    """Texts of each side in a step of D."""
    d_temperature: float = 1.0
    """Of G when it writes texts for D."""
    rounds: int = 10
    """Adversarial rounds."""
    g_steps: int = 10
    """g-steps in an adversarial round."""
    mle_every: int = 2
    """Adversarial rounds between two epochs of maximum likelihood; 0: no such epochs."""
    batch_size: int = 128
    """Texts in a g-step (B)."""
    g_temperature: float = 1.0
    """Of G when it writes texts to learn from (alpha)."""
    learning_rate: float | None = 1e-4
    """Of Manager and Worker (Adam); None: 1.5e-3, or 5e-4 where T is above 20, as published."""
    clip_norm: float = 5.0
    """Largest norm of a gradient, the Manager's and the Worker's each."""
    rollouts: int = 4
    """Completions of each prefix (N)."""
    q_every: int = 4
    """The Manager learns from every how manyth goal of a text; which ones changes from g-step to g-step."""
    transform: Literal["rank", "prob", "logit"] = "rank"
    """What the Manager's reward makes of D's judgement."""
    baseline: Literal["none", "leave-one-out"] = "leave-one-out"
    """What is taken off the Worker's reward: nothing, or the mean of the other texts at that position."""
    control: Literal["constant", "random", "shuffled", "untrained"] | None = None
    """A reward that knows nothing instead; D's features leak all the same."""


def fast(task: str) -> LeakGANConfig:
    """Minutes on two cores for 20 tokens."""
    # k multiplies the cost of every token: the published 16 took a two-core machine four times as long.
    config = LeakGANConfig(preset="fast", task=task, select="last", goal_size=4, d_temperature=0.8)
    return config if task in ORACLES else replace(config, embed_size=64, hidden_size=64)


def paper(task: str) -> LeakGANConfig:
    """The published code's sizes, schedule and rates, with the paper's rules for goals, Q and rewards."""
    config = LeakGANConfig(
        preset="paper",
        task=task,
        select="last",
        pretrain_rounds=10,
        pretrain_d_steps=5,
        pretrain_epochs=8,
        pretrain_patience=0,
        mle_learning_rate=1.5e-3,
        weight_decay=0.0,
        dropout=0.0,
        average=0.0,
        discriminator="conv",
        d_learning_rate=5e-5,
        d_slower=1.0,
        d_steps=5,
        d_epochs=3,
        d_batch_size=32,
        d_temperature=1 / 1.5,
        rounds=800,
        g_steps=1,
        mle_every=15,
        batch_size=64,
        learning_rate=None,
        q_every=1,
        baseline="none",
    )
    if task in (*ORACLES, "poems"):
        return config
    return replace(
        config, embed_size=128, hidden_size=128, d_embed_size=256, learning_rate=1e-3, mle_learning_rate=1e-3
    )


def smoke(task: str) -> LeakGANConfig:
    """As small as it can be."""
    return LeakGANConfig(
        preset="smoke",
        task=task,
        select="last",
        pretrain_rounds=1,
        pretrain_epochs=1,
        embed_size=8,
        hidden_size=8,
        goal_size=4,
        rounds=2,
        g_steps=1,
        mle_every=2,
        batch_size=64,
        mle_batch_size=256,
        rollouts=2,
        d_batch_size=256,
    )


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS: dict[str, Callable[[str], LeakGANConfig]] = {"fast": fast, "paper": paper, "smoke": smoke}


class LeakGAN:
    """The Manager learns where texts should go, the Worker to go there, D to tell them from real ones.

    A g-step writes B texts and, with f_t D's features of the first t tokens and g_t the Manager's goals, makes larger:

    - for the Manager, the mean over texts and t of Q(s_t, g_t) cos(f_{t+c} - f_t, g_t). Q is what completions of the
      first t + c tokens are worth, by their rank in the batch;
    - for the Worker, the mean over texts of sum_t (r_t - baseline_t) log G(y_t | s_t), r_t the cosine of its moves with
      the goals it had.

    Neither learns from the other's objective. See docs/leakgan.md for the published code's rules.

    Args:
        config: Sizes, schedule, reward.
        task: What to write.

    Raises:
        InputError: If a number is out of its range, or the pre-trained run does not fit.
    """

    def __init__(self, config: LeakGANConfig, task: "Task") -> None:
        from torch import nn
        from torch.optim import Adam, AdamW

        from textgan_env.envs import TextGANVectorEnv
        from textgan_env.policies import Decoding, LaggedCopy
        from textgan_env.training import Patience

        _check(config, task)
        self.config = config
        self.task = task
        self.finished = "policy"
        self.policy = self._first_policy().to(config.device)
        # The D that learns; the one that leaks and judges is the policy's copy.
        self.discriminator = copy.deepcopy(self.policy.discriminator).requires_grad_(True)
        self.patience = Patience(config.pretrain_patience)
        # Averaged together: a Worker that lags behind its Manager's goals would misunderstand them.
        self.learners = nn.ModuleDict({"manager": self.policy.manager, "worker": self.policy.worker})
        self.average = LaggedCopy(self.learners, config.average)
        rate = config.learning_rate or (1.5e-3 if task.max_length <= 20 else 5e-4)
        worker = [parameter for parameter in self.policy.worker.parameters() if parameter.requires_grad]
        manager = [parameter for parameter in self.policy.manager.parameters() if parameter.requires_grad]
        self.mle_optimizer = AdamW(worker, lr=config.mle_learning_rate, weight_decay=config.weight_decay)
        self.worker_optimizer = Adam(worker, lr=rate)
        self.manager_optimizer = Adam(manager, lr=rate)
        self.d_optimizer = self.discriminator.make_optimizer(config.d_learning_rate)
        # Three views of one policy: to write what it learns from, to complete prefixes and to learn, to write for D.
        # The published code writes at one temperature and learns at another: what it wrote grows more probable still.
        reference = config.variant == "reference"
        self.writer = self.policy.with_decoding(Decoding(config.g_temperature))
        self.completer = self.policy.with_decoding(Decoding()) if reference else self.writer
        self.writer = self.writer.with_first_two(1.5) if reference else self.writer
        self.for_d = self.policy.with_decoding(Decoding(config.d_temperature))
        self.envs = TextGANVectorEnv(
            config.batch_size,
            task,
            rollouts=config.rollouts,
            transform=config.transform,
            control=None if config.control == "untrained" else config.control,
            discriminator=self.policy.discriminator,
            rollout_policy=self.completer,
            leak_features=True,
        )

    def _first_policy(self) -> "LeakedPolicy":
        from textgan_env.discriminators import make_discriminator
        from textgan_env.policies import LeakedPolicy
        from textgan_env.sampling import derived_seed

        config, task = self.config, self.task
        if config.pretrained is not None:
            return leaked_policy(config, task)
        options: dict[str, object] = {}
        if config.discriminator == "conv":
            # Neither dropout nor L2, as published: its "keep" is 1, and its L2 is declared but never used.
            options = {"embed_size": config.d_embed_size, "dropout": 0.0, "l2": 0.0, **_published_widths(task)}
        judge = make_discriminator(
            config.discriminator,
            vocab_size=task.vocab_size,
            max_length=task.max_length,
            seed=derived_seed(config.seed, "discriminator"),
            **options,
        )
        published = 32 if task.max_length <= 20 else 64
        hidden_size = config.hidden_size or published
        return LeakedPolicy(
            task.vocab_size,
            start_token=task.start_token,
            discriminator=judge,
            embed_size=config.embed_size or published,
            hidden_size=hidden_size,
            manager_size=hidden_size,
            goal_size=config.goal_size,
            goal_steps=config.goal_steps,
            variant=config.variant,
            dropout=config.dropout,
            forbidden=task.forbidden,
            seed=derived_seed(config.seed, "policy"),
        )

    def schedule(self) -> "Schedule":
        """Pre-train D and G in turn, then g-steps, d-steps and now and then an epoch of maximum likelihood."""
        from textgan_env.training import Phase, Schedule

        config = self.config
        judged = config.control != "untrained"
        before = (("pretrain_d", config.pretrain_d_steps if judged else 0), ("pretrain_g", 1))
        after = (("g_step", config.g_steps), ("d_step", config.d_steps if judged else 0), ("interleaved_mle", 1))
        return Schedule(
            (
                Phase(
                    "pretrain",
                    0 if config.pretrained is not None else config.pretrain_rounds,
                    before,
                    last_step="take_average",
                ),
                Phase("adversarial", config.rounds, after),
            )
        )

    def modules(self) -> "Mapping[str, nn.Module]":
        """G with the D that leaks, the D that learns, how pre-training goes, and the averaged weights."""
        modules = {"policy": self.policy, "discriminator": self.discriminator, "patience": self.patience}
        return modules | ({"average": self.average.policy} if self.config.average else {})

    def optimizers(self) -> "Mapping[str, Optimizer]":
        """One for each who learns, and one more for the Worker's maximum likelihood."""
        return {
            "mle": self.mle_optimizer,
            "worker": self.worker_optimizer,
            "manager": self.manager_optimizer,
            "d": self.d_optimizer,
        }

    def curves(self) -> dict[str, dict[str, str]]:
        """NLLs, how well moves and goals agree, the reward, and what D can tell on texts that nobody has seen."""
        return {
            "NLL (nats per token)": {"nll_valid": "NLL-valid", "nll_oracle": "NLL-oracle"},
            "cosine": {"manager_cosine": "moves and goals", "intrinsic_reward": "the Worker's reward"},
            "credit": {"credit": "mean", "credit_spread": "spread over texts"},
            "D on unseen texts": {"d_auc": "AUC", "d_accuracy": "accuracy"},
        }

    def pretrain_d(self, generator: "torch.Generator") -> dict[str, float]:
        """A d-step, unless pre-training has ended early."""
        return {} if self.patience.over else self._refit(generator, 1.0)

    def pretrain_g(self, generator: "torch.Generator") -> dict[str, float]:
        """Some epochs of maximum likelihood, unless pre-training has ended early."""
        from textgan_env.parallel import from_first
        from textgan_env.training import update_average

        if self.patience.over:
            return {}
        for _ in range(self.config.pretrain_epochs):
            values = self.mle_epoch(generator, lambda: update_average(self.average, self.learners, self.mle_optimizer))
        if self.config.pretrain_patience:
            self.patience.note(from_first(self._nll_of_average()))
        return values

    def _nll_of_average(self) -> float:
        """NLL-valid of what pre-training would end with now, nats per token."""
        from textgan_env.evaluation import nll

        valid_BT = self.task.split("valid").head(2000).tokens_BT
        own = copy.deepcopy(self.learners.state_dict())
        self.learners.load_state_dict(self.average.policy.state_dict() if self.config.average else own)
        mean, _ = nll(self.policy, valid_BT, self.task.scored(valid_BT))
        self.learners.load_state_dict(own)
        return mean

    def mle_epoch(
        self, generator: "torch.Generator", after_step: Callable[[], None] = lambda: None
    ) -> dict[str, float]:
        """One pass over real text: the Worker by its likelihood, the Manager by where the features really went.

        Args:
            generator: Of the order and of dropout.
            after_step: Called after each step.
        """
        from textgan_env.loops import each, mean
        from textgan_env.losses import masked_mean, nll_per_token
        from textgan_env.sampling import fold

        def learn_from(batch: "tuple[Tensor, Tensor]") -> "tuple[Tensor, Tensor]":
            tokens_BT = batch[0].to(self.policy.device)
            written_BT, scored_BT = tokens_BT != self.task.vocab_size, self.task.scored(tokens_BT)

            def share_of(rows: slice) -> "tuple[Tensor, ...]":
                features_bSF = self.policy.prefix_features(tokens_BT[rows])
                goals_bTF = self.policy.goals(features_bSF)
                cosines_bK, ends_K = self._cosines(features_bSF, goals_bTF)
                cosine = masked_mean(cosines_bK, written_BT[rows][:, ends_K], written_BT[:, ends_K])
                logp_bT = self.policy.worker_log_prob(tokens_BT[rows], scored_BT[rows], goals_bTF, late=self._late)
                loss = nll_per_token(logp_bT, scored_BT[rows], scored_BT)
                return loss - cosine, loss, cosine

            optimizers = (self.manager_optimizer, self.mle_optimizer)
            _, loss, cosine = _backward(optimizers, len(tokens_BT), share_of, dropout=True)
            for optimizer in optimizers:
                self.step(optimizer)
            after_step()
            return loss, cosine

        self.policy.train()
        seed = fold(generator)
        batches = self.task.split("train").batches(self.config.mle_batch_size, generator)
        seen = each(batches, learn_from, ("loss", "manager_cosine"), seed=seed)
        return {name: mean(values) for name, values in seen.items()}

    def interleaved_mle(self, generator: "torch.Generator") -> dict[str, float]:
        """An epoch of maximum likelihood after every ``mle_every`` adversarial rounds, averaged from where G is now."""
        if not self.config.mle_every:
            return {}
        # The optimizer counts g-steps, so a run that goes on from a checkpoint knows where it is.
        steps = float(next(iter(self.worker_optimizer.state.values()))["step"])
        rounds = round(steps / self.config.g_steps)
        if rounds % self.config.mle_every:
            return {}
        values = self.mle_epoch(generator, lambda: self.average.update(self.learners))
        return values | self.take_average(generator)

    def take_average(self, _: "torch.Generator") -> dict[str, float]:
        """Go on with the averaged weights."""
        if self.config.average:
            self.learners.load_state_dict(self.average.policy.state_dict())
        return {}

    def g_step(self, generator: "torch.Generator") -> dict[str, float]:
        """Write B texts; the Manager learns from their Q, the Worker from how well they followed the goals."""
        from textgan_env.losses import masked_mean
        from textgan_env.sampling import fold

        self.policy.eval()
        self.envs.reset(seed=fold(generator) % 2**31)
        positions = self._positions(generator)
        batch = self.envs.collect(self.writer, positions)
        share_of, reward_BT = self.objectives(batch, positions)
        optimizers = (self.manager_optimizer, self.worker_optimizer)
        *_, cosine = _backward(optimizers, len(batch.tokens_BT), share_of)
        norms = {
            "manager_norm": self.step(self.manager_optimizer),
            "worker_norm": self.step(self.worker_optimizer),
        }
        # An epoch of maximum likelihood averages from here on.
        self.average.policy.load_state_dict(self.learners.state_dict())
        asked_BT = batch.mask_BT[:, positions]
        credit_BT = batch.credit_BT[:, positions]
        mean_T = (credit_BT * asked_BT).sum(0) / asked_BT.sum(0).clamp(min=1)
        return {
            "manager_cosine": float(cosine),
            "intrinsic_reward": float(masked_mean(reward_BT, batch.mask_BT)),
            **norms,
            "credit": float(masked_mean(credit_BT, asked_BT)),
            "credit_spread": float(masked_mean((credit_BT - mean_T) ** 2, asked_BT).sqrt()),
            "unique": len({tuple(tokens) for tokens in batch.tokens_BT.tolist()}) / len(batch.tokens_BT),
        }

    def objectives(
        self, batch: "EpisodeBatch", positions: list[int]
    ) -> "tuple[Callable[[slice], tuple[Tensor, ...]], Tensor]":
        """What Manager and Worker make smaller: the one's has no gradient for the other, neither has one for D.

        Args:
            batch: Texts of the writer, with credit at the positions.
            positions: The last tokens of the prefixes whose Q is known.

        Returns:
            A function, to be called once for some rows, and what the Worker is paid, float (B, T). It gives these rows'
            shares of the sum of both losses, the Manager's, the Worker's, and the mean cosine of moves and goals.
        """
        import torch

        from textgan_env.losses import baseline, masked_mean, policy_gradient_loss
        from textgan_env.parallel import by_rows

        tokens_BT, mask_BT = batch.tokens_BT, batch.mask_BT
        moves: dict[int, tuple[Tensor, Tensor]] = {}  # features and goals, by the first of their rows

        def reward_of(rows: slice) -> "tuple[Tensor]":
            features_bSF = self.policy.prefix_features(tokens_BT[rows])
            moves[rows.start] = features_bSF, self.policy.goals(features_bSF)
            return (self._worker_reward(*moves[rows.start]),)

        (reward_BT,) = by_rows(len(tokens_BT), reward_of)
        if self.config.variant == "reference":
            reward_BT = masked_mean(reward_BT, mask_BT).expand_as(reward_BT)
        advantage_BT = reward_BT - baseline(self.config.baseline, reward_BT, mask_BT)

        def share_of(rows: slice) -> "tuple[Tensor, ...]":
            features_bSF, goals_bTF = moves.pop(rows.start)
            cosines_bK, ends_K = self._cosines(features_bSF, goals_bTF)
            known_BK = mask_BT[:, ends_K] & torch.isin(ends_K, torch.tensor(positions, device=ends_K.device))
            credit_BK = batch.credit_BT[:, ends_K]
            cosine = masked_mean(cosines_bK, known_BK[rows], known_BK)
            if self.config.variant == "paper":
                manager_loss = -masked_mean(credit_BK[rows] * cosines_bK, known_BK[rows], known_BK)
            else:
                # The published code divides the rewards by N once more, and a mean over everything meets another.
                manager_loss = -masked_mean(credit_BK, known_BK) / self.config.rollouts * cosine
            logp_bT = self.completer.worker_log_prob(tokens_BT[rows], mask_BT[rows], goals_bTF, late=self._late)
            worker_loss = policy_gradient_loss(logp_bT, advantage_BT[rows], mask_BT[rows])
            worker_loss = worker_loss * (len(logp_bT) / len(tokens_BT))
            return manager_loss + worker_loss, manager_loss, worker_loss, cosine

        return share_of, reward_BT

    def _worker_reward(self, features_BSF: "Tensor", goals_BTF: "Tensor") -> "Tensor":
        """What the Worker is paid for each token, float (B, T)."""
        from textgan_env.policies.manager_worker import block_reward, intrinsic_reward

        steps = self.config.goal_steps
        if self.config.variant == "paper":
            return intrinsic_reward(features_BSF, goals_BTF, steps)
        return block_reward(features_BSF, self._sums(goals_BTF), steps)

    def d_step(self, generator: "torch.Generator") -> dict[str, float]:
        """Refit D, more slowly than in pre-training."""
        return self._refit(generator, self.config.d_slower)

    def _refit(self, generator: "torch.Generator", slower: float) -> dict[str, float]:
        """Refit D on fresh texts of G at a part of its own rate; its new features leak from then on."""
        from textgan_env.training import refit_discriminator

        for group in self.d_optimizer.param_groups:
            group["lr"] = slower * self.d_optimizer.defaults["lr"]
        values = refit_discriminator(
            self.discriminator,
            self.d_optimizer,
            self.for_d,
            self.task,
            epochs=self.config.d_epochs,
            batch_size=self.config.d_batch_size,
            generator=generator,
        )
        self.policy.leak(self.discriminator)
        return values

    @property
    def _late(self) -> int:
        return 1 if self.config.variant == "reference" else 0

    def _sums(self, goals_BTF: "Tensor") -> "Tensor":
        """The published code's sums of goals, as it scores texts."""
        from textgan_env.policies.manager_worker import block_sum

        before_F = self.policy.worker.goal_before().detach()
        return block_sum(goals_BTF, before_F, self.config.goal_steps, self._late)

    def _cosines(self, features_BSF: "Tensor", goals_BTF: "Tensor") -> tuple["Tensor", "Tensor"]:
        """How well goals foretold the moves, float (B, K), and the position of the last token of each move, (K,)."""
        import torch

        from textgan_env.policies.manager_worker import block_cosines, manager_cosines

        steps = self.config.goal_steps
        if self.config.variant == "paper":
            cosines_BK = manager_cosines(features_BSF, goals_BTF, steps)
        else:
            cosines_BK = block_cosines(features_BSF, self._sums(goals_BTF), steps)
        stride = 1 if self.config.variant == "paper" else steps
        return cosines_BK, torch.arange(cosines_BK.shape[1], device=goals_BTF.device) * stride + steps - 1

    def _positions(self, generator: "torch.Generator") -> list[int]:
        """The last tokens of the prefixes whose Q is asked for: of moves that begin at every ``q_every``-th t."""
        import torch

        first, every = self.config.goal_steps - 1, self.config.q_every
        if self.config.variant == "reference":
            return list(range(first, self.task.max_length, self.config.goal_steps))
        offset = int(torch.randint(every, (), generator=generator)) % (self.task.max_length - first)
        return list(range(first + offset, self.task.max_length, every))

    def step(self, optimizer: "Optimizer") -> float:
        """One step along the gradient that is there; returns its norm."""
        import torch

        norm = torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.config.clip_norm)
        require(bool(torch.isfinite(norm)), f"the gradient of G is {float(norm)}: try a smaller --learning-rate")
        optimizer.step()
        return float(norm)


def _backward(
    optimizers: "Sequence[Optimizer]",
    rows: int,
    share_of: "Callable[[slice], tuple[Tensor, ...]]",
    *,
    dropout: bool = False,
) -> "tuple[Tensor, ...]":
    """`textgan_env.parallel.backward` into the weights of several optimizers, whose gradients were nothing before."""
    from textgan_env.parallel import backward

    for optimizer in optimizers:
        optimizer.zero_grad()
    weights = [weight for optimizer in optimizers for weight in optimizer.param_groups[0]["params"]]
    return backward(weights, rows, share_of, dropout=dropout)


def _check(config: LeakGANConfig, task: "Task") -> None:
    """Refuse numbers that make no sense together."""
    from textgan_env.policies.manager_worker import check_goal_steps

    at_least(
        1,
        config,
        "batch_size",
        "mle_batch_size",
        "d_batch_size",
        "d_epochs",
        "g_steps",
        "rollouts",
        "q_every",
        "pretrain_epochs",
    )
    at_least(0, config, "d_steps", "pretrain_d_steps", "mle_every", "pretrain_patience", "weight_decay")
    above_zero(config, "learning_rate", "mle_learning_rate", "clip_norm", "d_learning_rate", "d_slower")
    at_least(1, config, "embed_size", "hidden_size")
    require(
        config.baseline == "none" or config.batch_size >= 2,
        f"a baseline compares texts: batch_size must be at least 2, found {config.batch_size}",
    )
    check_goal_steps(config.goal_steps, task.max_length)


def _published_widths(task: "Task") -> dict[str, object]:
    """The CNN's default widths reach 20; for 40 tokens and for captions the published code adds one of about 30."""
    if task.max_length <= 30:
        return {}
    return {
        "widths": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 30),
        "filters": (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160, 160),
    }


def leaked_policy(config: LeakGANConfig, task: "Task") -> "LeakedPolicy":
    """The policy of an earlier run, with the D that it reads.

    Raises:
        InputError: If the run is of another agent or task, or made for other goals or another D.
    """
    from textgan_env.policies import LeakedPolicy
    from textgan_env.training import pretrained_policy

    policy = pretrained_policy(str(config.pretrained), task)
    if not isinstance(policy, LeakedPolicy):
        raise InputError(
            f"the pre-trained run '{config.pretrained}' holds a policy of kind '{policy.kind}', "
            "expected one of this agent"
        )
    has = policy.config()
    found = {name: has[name] for name in ("goal_size", "goal_steps", "variant")}
    found["discriminator"] = policy.discriminator.kind
    wrong = [name for name in found if found[name] != getattr(config, name)]
    require(
        not wrong,
        f"the pre-trained run '{config.pretrained}' has F={policy.feature_size}, "
        + ", ".join(f"{name}={found[name]}" for name in found)
        + f"; this run asks for {', '.join(f'{name}={getattr(config, name)}' for name in wrong)}",
    )
    return policy


def main(args: list[str] | None = None) -> None:
    """The command."""
    with friendly_errors():
        from textgan_env.options import parse

        config = parse(PRESETS, __doc__ or "", args)
        from textgan_env.training import launch

        launch(config, LeakGAN)


if __name__ == "__main__":
    main()
