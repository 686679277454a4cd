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

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from textgan_env.training.adversarial import AdversarialAgent, AdversarialConfig, credit_numbers, run_command, trained
from textgan_env.utils.options import ORACLES, above_zero, at_least

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from textgan_env.discriminators import DiscriminatorModule
    from textgan_env.envs import EpisodeBatch
    from textgan_env.policies import LeakedPolicy
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Schedule


@dataclass(frozen=True)
class LeakGANConfig(AdversarialConfig):
    """Train a policy by LeakGAN."""

    variant: Literal["paper", "reference"] = "paper"
    """The paper's rules, or those of its published code."""
    pretrain_rounds: int = 10
    """Rounds of pre-training: in each D, then G."""
    pretrain_d_steps: int = 1
    """d-steps in a round of pre-training."""
    pretrain_epochs: int = 3
    """Epochs of G in a round of pre-training."""
    pretrain_patience: int = 3
    """Rounds of pre-training without a better NLL-valid after which it ends; 0: never."""
    goal_size: int = 16
    """k, the numbers that the Worker hears of the goals."""
    goal_steps: int = 4
    """c, the tokens in which a goal is to be reached."""
    d_embed_size: int = 64
    """Of the CNN."""
    d_learning_rate: float | None = None
    """Of D in pre-training; None: its own."""
    d_lr_scale: float = 0.1
    """What D's rate is multiplied by in adversarial rounds: G reads D's features, so they may not change faster than it
    learns to."""
    d_temperature: float = 1.0
    """Of G when it generates texts for D."""
    g_temperature: float = 1.0
    """Of G when it generates texts to learn from (alpha)."""
    mle_interval: int = 2
    """Adversarial rounds between two epochs of maximum likelihood; 0: no such epochs."""
    q_interval: int = 4
    """The Manager learns from every how manyth goal of a text; which ones changes from g-step to g-step."""
    # What LeakGAN begins with instead; None: 32 and 1.5e-3, or 64 and 5e-4 where T is above 20, as published.
    mle_batch_size: int = 64
    embed_size: int | None = None
    hidden_size: int | None = None
    discriminator: Literal["pair", "conv"] = "pair"
    rounds: int = 10
    g_steps: int = 10
    learning_rate: float | None = 1e-4
    transform: Literal["rank", "prob", "logit"] = "rank"
    baseline: Literal["none", "leave-one-out"] = "leave-one-out"


def fast(task: str) -> LeakGANConfig:
    """Minutes on two cores for 20 tokens."""
    # k multiplies the cost of every token: the published 16 took a two-core machine four times as long.
    config = LeakGANConfig(preset="fast", task=task, select="last", goal_size=4, d_temperature=0.8)
    return config if task in ORACLES else replace(config, embed_size=64, hidden_size=64)


def paper(task: str) -> LeakGANConfig:
    """The published code's sizes, schedule and rates, with the paper's rules for goals, Q and rewards."""
    config = LeakGANConfig(
        preset="paper", task=task, select="last", pretrain_d_steps=5, pretrain_epochs=8, pretrain_patience=0,
        mle_learning_rate=1.5e-3, weight_decay=0.0, dropout=0.0, ema_decay=0.0, discriminator="conv", d_learning_rate=5e-5,
        d_lr_scale=1.0, d_steps=5, d_epochs=3, d_batch_size=32, d_temperature=1 / 1.5, rounds=800, g_steps=1, mle_interval=15,
        batch_size=64, learning_rate=None, q_interval=1, baseline="none",
    )  # fmt: skip
    wide = {
        "embed_size": 128,
        "hidden_size": 128,
        "d_embed_size": 256,
        "learning_rate": 1e-3,
        "mle_learning_rate": 1e-3,
    }
    return config if task in (*ORACLES, "poems") else replace(config, **wide)  # type: ignore[arg-type]


def smoke(task: str) -> LeakGANConfig:
    """As small as it can be."""
    return LeakGANConfig(
        preset="smoke", task=task, select="last", pretrain_rounds=1, pretrain_epochs=1, embed_size=8, hidden_size=8,
        goal_size=4, rounds=2, g_steps=1, batch_size=64, mle_batch_size=256, rollouts=2, d_batch_size=256,
    )  # fmt: skip


#: Name of a preset -> what makes its config, given the name of the task; the first is the default.
PRESETS: dict[str, Callable[[str], LeakGANConfig]] = {"fast": fast, "paper": paper, "smoke": smoke}


class LeakGAN(AdversarialAgent):
    """The Manager learns where texts should go, the Worker to go there, D to tell them from real ones.

    A g-step generates B texts and, with f_t D's features of the first t tokens and g_t the Manager's goals, makes larger:

    - for the Manager, the mean over texts and t of Q(s_t, g_t) cos(f_{t+c} - f_t, g_t). Q is what completions of the
      first t + c tokens are worth, by their rank in the batch;
    - for the Worker, the mean over texts of sum_t (r_t - baseline_t) log G(y_t | s_t), r_t the cosine of its moves with
      the goals it had.

    Neither learns from the other's objective. See docs/leakgan.md for the published code's rules.
    """

    config: LeakGANConfig
    policy: LeakedPolicy

    def __init__(self, config: LeakGANConfig, task: Task) -> None:
        from torch.optim import Adam

        from textgan_env.policies import Decoding
        from textgan_env.policies.goals import GOALS
        from textgan_env.policies.manager_worker import check_goal_steps
        from textgan_env.training.schedule import Patience

        at_least(1, config, "g_steps", "rollouts", "q_interval", "pretrain_epochs")
        at_least(0, config, "pretrain_d_steps", "mle_interval", "pretrain_patience")
        above_zero(config, "d_learning_rate", "d_lr_scale")
        check_goal_steps(config.goal_steps, task.max_length)
        super().__init__(config, task)
        self.goals = GOALS[config.variant](self.policy.worker, config.goal_steps)
        self.patience = Patience(config.pretrain_patience)
        rate = config.learning_rate or (1.5e-3 if task.max_length <= 20 else 5e-4)
        self.worker_optimizer = Adam(trained(self.policy.worker), lr=rate)
        self.manager_optimizer = Adam(trained(self.policy.manager), lr=rate)
        # Three views of one policy: to generate what it learns from, to complete prefixes and to learn, to generate for
        # D. The published code generates at one temperature and learns at another.
        reference = config.variant == "reference"
        self.writer = self.policy.with_decoding(Decoding(config.g_temperature))
        self.completer = self.policy.with_decoding(Decoding()) if reference else self.writer
        self.writer = self.writer.with_first_two(1.5) if reference else self.writer
        self.for_d = self.policy.with_decoding(Decoding(config.d_temperature))
        self.envs = self.make_envs(
            rollouts=config.rollouts, discriminator=self.policy.discriminator, rollout_policy=self.completer,
            leak_features=True,
        )  # fmt: skip

    def first_policy(self) -> LeakedPolicy:
        """That of a run of this agent, with its D, or a new one."""
        from textgan_env.policies.leaked import LeakedPolicy, require_same_goals

        policy, config = super().first_policy(), self.config
        wanted = {name: getattr(config, name) for name in ("goal_size", "goal_steps", "variant", "discriminator")}
        if config.pretrained is not None:
            require_same_goals(policy, wanted, str(config.pretrained))
        assert isinstance(policy, LeakedPolicy)
        return policy

    def new_policy(self) -> LeakedPolicy:
        """Manager and Worker around a D; None for a size: the published one."""
        from textgan_env.policies import LeakedPolicy

        config, task, published = self.config, self.task, 32 if self.task.max_length <= 20 else 64
        options: dict[str, Any] = {}
        if config.discriminator == "conv":
            # Neither dropout nor L2, as published: its "keep" is 1, and its L2 is declared but never used.
            options = {"embed_size": config.d_embed_size, "dropout": 0.0, "l2": 0.0, **_published_widths(task)}
        judge = super().new_discriminator(**options)
        assert judge is not None
        return LeakedPolicy(
            task.vocab_size, start_token=task.start_token, discriminator=judge, dropout=config.dropout,
            embed_size=config.embed_size or published, hidden_size=config.hidden_size or published,
            manager_size=config.hidden_size or published, goal_size=config.goal_size, goal_steps=config.goal_steps,
            variant=config.variant, forbidden=task.forbidden, seed=self.seed("policy"),
        )  # fmt: skip

    def new_discriminator(self, **_: Any) -> DiscriminatorModule:
        """The D that learns; the one that leaks and judges is the policy's copy."""
        return copy.deepcopy(self.policy.discriminator).requires_grad_(True)

    def new_d_optimizer(self, discriminator: DiscriminatorModule) -> Optimizer:
        """Of D."""
        return discriminator.make_optimizer(self.config.d_learning_rate)

    def taught(self) -> nn.Module:
        """The Worker learns by maximum likelihood."""
        return self.policy.worker

    def averaged(self) -> nn.Module:
        """Both: a Worker that lags behind its Manager's goals would misunderstand them."""
        from torch import nn

        return nn.ModuleDict({"manager": self.policy.manager, "worker": self.policy.worker})

    def schedule(self) -> Schedule:
        """Pre-train D and G in turn, then g-steps, d-steps and now and then an epoch of maximum likelihood."""
        from textgan_env.training.schedule import Phase, Schedule

        config, judged = self.config, self.config.control != "untrained"
        before = (("pretrain_d", config.pretrain_d_steps * judged), ("pretrain_g", 1))
        after = (("g_step", config.g_steps), ("d_step", config.d_steps * judged), ("interleaved_mle", 1))
        rounds = 0 if config.pretrained is not None else config.pretrain_rounds
        first = Phase("pretrain", rounds, before, last_step="take_average")
        return Schedule((first, Phase("adversarial", config.rounds, after)))

    def modules(self) -> Mapping[str, nn.Module]:
        """What every agent has, and how pre-training goes."""
        return {**super().modules(), "patience": self.patience}

    def optimizers(self) -> Mapping[str, Optimizer]:
        """One for each who learns, and one more for the Worker's maximum likelihood."""
        assert self.d_optimizer is not None
        manager, worker = self.manager_optimizer, self.worker_optimizer
        return {"mle": self.mle_optimizer, "worker": worker, "manager": manager, "d": self.d_optimizer}

    def curves(self) -> dict[str, dict[str, str]]:
        """What every agent shows, and how well moves and goals agree."""
        cosines = {"manager_cosine": "moves and goals", "intrinsic_reward": "the Worker's reward"}
        return {**super().curves(), "cosine": cosines}

    def pretrain_d(self, generator: torch.Generator) -> dict[str, float]:
        """A d-step, unless pre-training has ended early."""
        return {} if self.patience.over else self._refit_and_leak(generator, 1.0)

    def pretrain_g(self, generator: torch.Generator) -> dict[str, float]:
        """Some epochs of maximum likelihood, unless pre-training has ended early."""
        from textgan_env.ops.parallel import from_first
        from textgan_env.training.mle import update_average

        if self.patience.over:
            return {}
        for _ in range(self.config.pretrain_epochs):
            values = self._epoch(generator, lambda: update_average(self.average, self.learners, self.mle_optimizer))
        if self.config.pretrain_patience:
            self.patience.note(from_first(self._nll_of_average()))
        return values

    def _nll_of_average(self) -> float:
        """NLL-valid of what pre-training would end with now, nats per token."""
        from textgan_env.evaluation import nll

        valid_BT = self.task.split("valid").head(2000).tokens_BT
        own = copy.deepcopy(self.learners.state_dict())
        self.learners.load_state_dict(self.average.policy.state_dict() if self.config.ema_decay else own)
        mean, _ = nll(self.policy, valid_BT, self.task.scored(valid_BT))
        self.learners.load_state_dict(own)
        return mean

    def mle_epoch(self, generator: torch.Generator, after_step: Callable[[], None] = lambda: None) -> dict[str, float]:
        """See `_epoch`."""
        return self._epoch(generator, after_step)

    def _epoch(self, generator: torch.Generator, after_step: Callable[[], None]) -> dict[str, float]:
        """One pass over real text: the Worker by its likelihood, the Manager by where the features really went."""
        from textgan_env.ops.loops import each, mean
        from textgan_env.ops.losses import masked_mean, nll_per_token
        from textgan_env.ops.parallel import backward_into
        from textgan_env.ops.sampling import draw_seed

        optimizers = (self.manager_optimizer, self.mle_optimizer)

        def learn_from(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            tokens_BT = batch[0].to(self.policy.device)
            written_BT, scored_BT = tokens_BT != self.task.vocab_size, self.task.scored(tokens_BT)

            def share_of(rows: slice) -> tuple[Tensor, ...]:
                features_bSF = self.policy.prefix_features(tokens_BT[rows])
                goals_bTF = self.policy.goals(features_bSF)
                cosines_bK, ends_K = self.goals.cosines(features_bSF, goals_bTF)
                cosine = masked_mean(cosines_bK, written_BT[rows][:, ends_K], written_BT[:, ends_K])
                late = self.goals.late
                logp_bT = self.policy.worker_log_prob(tokens_BT[rows], scored_BT[rows], goals_bTF, late=late)
                loss = nll_per_token(logp_bT, scored_BT[rows], scored_BT)
                return loss - cosine, loss, cosine

            _, loss, cosine = backward_into(optimizers, len(tokens_BT), share_of, dropout=True)
            for optimizer in optimizers:
                self.step(optimizer)
            after_step()
            return loss, cosine

        self.policy.train()
        seed = draw_seed(generator)
        batches = self.task.split("train").batches(self.config.mle_batch_size, generator)
        seen = each(batches, learn_from, ("loss", "manager_cosine"), seed=seed)
        return {name: mean(values) for name, values in seen.items()}

    def interleaved_mle(self, generator: torch.Generator) -> dict[str, float]:
        """An epoch of maximum likelihood after every ``mle_interval`` adversarial rounds, averaged from where G is now."""
        if not self.config.mle_interval:
            return {}
        # The optimizer counts g-steps, so a run that goes on from a checkpoint knows where it is.
        steps = float(next(iter(self.worker_optimizer.state.values()))["step"])
        if round(steps / self.config.g_steps) % self.config.mle_interval:
            return {}
        values = self._epoch(generator, lambda: self.average.update(self.learners))
        return values | self.take_average(generator)

    def d_step(self, generator: torch.Generator) -> dict[str, float]:
        """Refit D, more slowly than in pre-training."""
        return self._refit_and_leak(generator, self.config.d_lr_scale)

    def _refit_and_leak(self, generator: torch.Generator, slower: float) -> dict[str, float]:
        values = self.refit(generator, self.for_d, slower)
        assert self.discriminator is not None
        self.policy.leak(self.discriminator)
        return values

    def g_step(self, generator: torch.Generator) -> dict[str, float]:
        """Generate B texts; the Manager learns from their Q, the Worker from how well they followed the goals."""
        from textgan_env.ops.losses import masked_mean
        from textgan_env.ops.parallel import backward_into

        self.begin_texts(generator)
        positions = self.goals.positions(self.task.max_length, self.config.q_interval, generator)
        batch = self.envs.collect(self.writer, positions)
        share_of, reward_BT = self.objectives(batch, positions)
        optimizers = {"manager_norm": self.manager_optimizer, "worker_norm": self.worker_optimizer}
        *_, cosine = backward_into(tuple(optimizers.values()), len(batch.tokens_BT), share_of)
        norms = {name: self.step(optimizer) for name, optimizer in optimizers.items()}
        # An epoch of maximum likelihood averages from here on.
        self.average.policy.load_state_dict(self.learners.state_dict())
        return {
            "manager_cosine": float(cosine),
            "intrinsic_reward": float(masked_mean(reward_BT, batch.mask_BT)),
            **norms,
            **credit_numbers(batch.credit_BT[:, positions], batch.mask_BT[:, positions]),
            "unique": len({tuple(tokens) for tokens in batch.tokens_BT.tolist()}) / len(batch.tokens_BT),
        }

    def objectives(
        self, batch: EpisodeBatch, positions: list[int]
    ) -> tuple[Callable[[slice], tuple[Tensor, ...]], Tensor]:
        """What Manager and Worker make smaller: the one's has no gradient for the other, neither has one for D.

        Args:
            batch: Texts of the writer, with credit at the positions.
            positions: The last tokens of the prefixes whose Q is known.

        Returns:
            A function, to be called once for some rows, and what the Worker is paid, float (B, T). It gives these rows'
            shares of the sum of both losses, the Manager's, the Worker's, and the mean cosine of moves and goals.
        """
        import torch

        from textgan_env.ops.losses import baseline, masked_mean, policy_gradient_loss
        from textgan_env.ops.parallel import by_rows

        tokens_BT, mask_BT = batch.tokens_BT, batch.mask_BT
        moves: dict[int, tuple[Tensor, Tensor]] = {}  # features and goals, by the first of their rows

        def reward_of(rows: slice) -> tuple[Tensor]:
            features_bSF = self.policy.prefix_features(tokens_BT[rows])
            moves[rows.start] = features_bSF, self.policy.goals(features_bSF)
            return (self.goals.worker_reward(*moves[rows.start]),)

        (reward_BT,) = by_rows(len(tokens_BT), reward_of)
        reward_BT = self.goals.shared_reward(reward_BT, mask_BT)
        advantage_BT = reward_BT - baseline(self.config.baseline, reward_BT, mask_BT)

        def share_of(rows: slice) -> tuple[Tensor, ...]:
            features_bSF, goals_bTF = moves.pop(rows.start)
            cosines_bK, ends_K = self.goals.cosines(features_bSF, goals_bTF)
            known_BK = mask_BT[:, ends_K] & torch.isin(ends_K, torch.tensor(positions, device=ends_K.device))
            cosine = masked_mean(cosines_bK, known_BK[rows], known_BK)
            credit_BK, rollouts = batch.credit_BT[:, ends_K], self.config.rollouts
            manager_loss = self.goals.manager_loss(credit_BK, cosines_bK, known_BK, rows, rollouts)
            late = self.goals.late
            logp_bT = self.completer.worker_log_prob(tokens_BT[rows], mask_BT[rows], goals_bTF, late=late)
            worker_loss = policy_gradient_loss(logp_bT, advantage_BT[rows], mask_BT[rows])
            worker_loss = worker_loss * (len(logp_bT) / len(tokens_BT))
            return manager_loss + worker_loss, manager_loss, worker_loss, cosine

        return share_of, reward_BT


def _published_widths(task: Task) -> dict[str, object]:
    """The CNN's default widths reach 20; for 40 tokens and for captions the published code adds one of about 30."""
    if task.max_length <= 30:
        return {}
    return {
        "widths": (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 15, 20, 30),
        "filters": (100, 200, 200, 200, 200, 100, 100, 100, 100, 100, 160, 160, 160),
    }


def main(args: list[str] | None = None) -> None:
    """The command."""
    run_command(LeakGAN, PRESETS, __doc__, args)


if __name__ == "__main__":
    main()
