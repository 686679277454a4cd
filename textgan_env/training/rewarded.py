"""What every agent shares that is paid by a discriminator: both warm starts, the environment that pays, and the d-step.

Loads no torch when imported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from textgan_env.ops.reward_kinds import PrecisionName, TransformName
from textgan_env.training.agent import PolicyAgent, PolicyConfig
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import LANGUAGE_MODELS, DiscriminatorKind
from textgan_env.utils.options import above_zero, at_least

if TYPE_CHECKING:
    from torch import Tensor

    from textgan_env.discriminators import DiscriminatorModule, ReplayedTexts
    from textgan_env.envs import TextGANVectorEnv
    from textgan_env.evaluation import DiscriminatorWorth
    from textgan_env.policies import PolicyModule
    from textgan_env.rewards import AskedObjective, CreditSource, Texts
    from textgan_env.runs.numbers import Numbers
    from textgan_env.tasks import Task
    from textgan_env.training.schedule import Phase, Step, Steps

#: What evaluations say of D where its logit pays: names of `textgan_env.ops.metric_table`.
OF_WORTH = ("d_correlation", "d_effective_share", "d_bound", "d_gain")
_ASKED = 1_000  # texts of each side that D's worth is taken of in an evaluation: under a second at V=5,000


@dataclass(frozen=True)
class RewardedConfig(PolicyConfig):
    """Options of every agent that learns from what a discriminator makes of its texts."""

    added: ClassVar[tuple[str, ...]] = (
        *PolicyConfig.added, "objective", "objective_weight", "objective_control", "objective_workers",
        "objective_timeout", "budget", "repeat_decay", "d_model", "d_layers", "d_texts",
    )  # fmt: skip
    pretrained: Path | None = None
    """A finished run on the same task whose policy G begins as; None: pre-train here."""
    mle_batch_size: int = 128
    """Real texts in a batch of maximum likelihood."""
    mle_learning_rate: float = 1e-2
    """Learning rate of G in maximum likelihood."""
    discriminator: DiscriminatorKind = "pair"
    d_steps: int = 1
    """d-steps in a round; each takes fresh texts of G."""
    d_texts: int | None = None
    """How many fresh texts a d-step takes [as many as D has training texts]."""
    d_epochs: int = 1
    """Passes over these texts in a d-step (k)."""
    d_batch_size: int = 64
    """Texts of each side in a batch of a d-step."""
    d_objective: Literal["cross-entropy", "pairs"] = "cross-entropy"
    """What D learns: which texts are real, or which of two is (relativistic)."""
    d_learning_rate: float | None = None
    """Learning rate of D; None: its own."""
    d_model: Path = Path(LANGUAGE_MODELS[0])
    """The language model of --discriminator lm: smollm2, or a folder with one of Hugging Face's and its tokenizer."""
    d_layers: int = 4
    """How many of its first layers are used; the time that a text takes is proportional to it."""
    held_back: float = 0.0
    """Share of the training texts that only D learns from, G from the others; 0: both learn from all."""
    rounds: int = 20
    """Rounds after pre-training."""
    control: Literal["constant", "random", "shuffled", "untrained"] | None = None
    """A reward that knows nothing of the text instead of what the discriminator says."""
    objective: str | None = None
    """What texts are to be like beside real, NAME:ARGUMENT (python, json, arithmetic, regex:^a, has:red,blue,
    lacks:red,blue, length:12, qed, product:has:red;length:12), or a function of your own, FILE.py:NAME."""
    objective_weight: float = 0.5
    """Share of the objective in the reward, the rest is the discriminator's; 1: no discriminator."""
    objective_control: Literal["constant", "random", "shuffled"] | None = None
    """A number that knows nothing of the text instead of what the objective says."""
    objective_workers: int = 0
    """Processes that ask the objective, for slow ones; 0: it is asked in this one."""
    objective_timeout: float | None = None
    """Seconds that a worker may take for a text before it counts as failed [any]."""
    budget: int | None = None
    """Different texts that the objective may be asked about; the run ends when they are used up [any number]."""
    repeat_decay: float = 1.0
    """What the objective pays for a text is multiplied by this each time that the text comes again; 1: no such
    diversity filter."""


@dataclass(frozen=True)
class PretrainingConfig:
    """Options of agents that pre-train G, then D."""

    mle_epochs: int = 20
    """Epochs of pre-training of G; 0: begin from nothing."""
    d_pretraining: int = 10
    """Rounds of pre-training of D."""


@dataclass(frozen=True)
class CreditConfig:
    """Options of agents that take their credit as the environment gives it."""

    rollouts: int = 4
    """Completions of each prefix (N); 0: no completions, each token gets the whole text's reward."""
    q_interval: int = 1
    """Tokens from one Q to the next: above 1 only every so many-th prefix is completed, for long text."""
    transform: TransformName = "logit"
    """What the reward makes of D's logit."""
    score_precision: PrecisionName = "float32"
    """What D's scores of completions are computed in; bf16 is faster where the processor has it, and rounds."""


#: Options of `RewardedConfig` that say how an objective is asked and paid.
OF_OBJECTIVE = (
    "objective_control", "objective_workers", "objective_timeout", "budget", "repeat_decay",
)  # fmt: skip


class RewardedAgent(PolicyAgent):
    """G begins with maximum likelihood, then learns from what D makes of its texts, and D from telling them apart.

    Args:
        config: Sizes, schedule, reward.
        task: What to generate.

    Raises:
        InputError: If a number is out of its range, or the pre-trained policy is of another task.
    """

    envs: TextGANVectorEnv
    curves: ClassVar[tuple[str, ...]] = (
        *("nll_valid", "nll_oracle", "objective", "objective_top", "d_auc", "d_accuracy"),
        *OF_WORTH,
    )
    #: Whether D's logit is what pays, and says real or not: then evaluations say what it is worth.
    logit_pays: ClassVar[bool] = True
    #: Whether an objective can pay beside D: where there is a reward for a whole text.
    takes_objective: ClassVar[bool] = True

    def __init__(self, config: RewardedConfig, task: Task) -> None:
        from textgan_env.evaluation import BleuDiscriminator

        never = "--control untrained asks a discriminator before it has learnt: --discriminator bleu never learns"
        require((config.discriminator, config.control) != ("bleu", "untrained"), never)
        at_least(1, config, "mle_batch_size", "d_batch_size", "d_epochs", "d_texts")
        at_least(0, config, "d_steps")
        above_zero(config, "mle_learning_rate", "d_learning_rate")
        super().__init__(config, task, learning_rate=config.mle_learning_rate, batch_size=config.mle_batch_size)
        self.g_task, self.d_task = self.divided_task()
        unused = [name for name in OF_OBJECTIVE if getattr(config, name) != getattr(RewardedConfig, name)]
        needs = f"{' and '.join(unused)} need an objective: give --objective, found none"
        require(config.objective is not None or not unused, needs)
        alone = "objective_weight 1 leaves the discriminator out: there is no control of it"
        both = config.objective is None or config.objective_weight < 1
        require(both or config.control is None, f"{alone}, found {config.control}")
        none = f"{type(self).__name__} has no reward for a whole text: it takes no objective"
        require(self.takes_objective or config.objective is None, f"{none}, found {config.objective}")
        self.asked = None if config.objective is None else self.new_asked(config.objective)
        if self.asked is not None:
            self.modules["objective"] = self.asked
        self.discriminator = self.new_discriminator()
        self.bleu = BleuDiscriminator(self.d_task) if config.discriminator == "bleu" else None
        self.replay: ReplayedTexts | None = None
        if self.discriminator is not None:
            self.modules["discriminator"] = self.discriminator
            self.d_optimizer = self.optimizers["d"] = self.discriminator.make_optimizer(config.d_learning_rate)
        if config.ema_decay and config.pretrained is None:
            self.modules["average"] = self.average.policy

    def divided_task(self) -> tuple[Task, Task]:
        """What G learns from in maximum likelihood, and D: the same texts, or parts of them that share none."""
        from textgan_env.ops.sampling import derived_generator

        config, share = self.config, self.config.held_back
        require(0 <= share < 1, f"held_back must be at least 0 and below 1, found {share}")
        if share == 0:
            return self.task, self.task
        learnt = "the policy of a --pretrained run has learnt from all texts: --held-back cannot keep any from it"
        require(config.pretrained is None, learnt)
        return self.task.divided(share, derived_generator(config.seed, "held back"))

    def new_asked(self, given: str) -> AskedObjective:
        """The objective that was given, as this run asks it."""
        from textgan_env.objectives import typed_objective
        from textgan_env.rewards import AskedObjective

        config = self.config
        how = {"budget": config.budget, "workers": config.objective_workers, "timeout": config.objective_timeout}
        return AskedObjective(typed_objective(given), self.task.text, repeat_decay=config.repeat_decay, **how)

    def replay_negatives(self, negatives: str) -> None:
        """With ``replayed``, D learns from texts of G of which half are kept from earlier d-steps."""
        from textgan_env.discriminators import ReplayedTexts
        from textgan_env.training.discriminator import fresh_texts

        if negatives == "replayed":
            task = self.d_task
            self.replay = ReplayedTexts(fresh_texts(task, self.config.d_texts), task.max_length, task.vocab_size)
            self.modules["negatives"] = self.replay.to(self.config.device)

    def new_discriminator(self, **options: Any) -> DiscriminatorModule | None:
        """D as it is drawn, with options of its kind; None where BLEU takes its place."""
        from textgan_env.tasks import discriminator_for

        kind = self.config.discriminator
        if kind == "bleu":
            return None
        if kind == "lm":
            options |= {"model": str(self.config.d_model), "layers": self.config.d_layers}
        return discriminator_for(kind, self.task, seed=self.seed("discriminator"), **options).to(self.config.device)

    @property
    def scoring_discriminator(self) -> Any:
        """What scores texts at once: D as it is now, or BLEU."""
        return self.bleu if self.discriminator is None else self.discriminator

    def frozen_discriminator(self) -> Any:
        """The same for rewards that are paid later: a copy that is never trained. BLEU is what it always was."""
        if self.discriminator is None:
            return self.bleu
        return copy.deepcopy(self.discriminator).eval().requires_grad_(False)

    def make_envs(self, rows: int, **options: Any) -> TextGANVectorEnv:
        """The environment that pays, for B texts side by side; ``untrained`` is a D that never learns."""
        from textgan_env.envs import TextGANVectorEnv

        control = self.config.control
        if control not in ("constant", "random") and "discriminator" not in options:
            options["discriminator"] = self.frozen_discriminator()
        config = self.config
        goal = {"objective": self.asked, "objective_weight": config.objective_weight}
        options |= {"control": None if control == "untrained" else control, **goal}
        return TextGANVectorEnv(rows, self.task, objective_control=config.objective_control, **options)

    def score_texts(self, texts: Texts, transform: str = "logit") -> Tensor:
        """What whole texts that no environment has generated are worth, as the run's control has it, float32 (R,).

        Args:
            texts: R finished texts; under ``random`` the number follows from their keys, so each needs its own.
            transform: f of D's logit, a name of `TRANSFORMS`.
        """
        from textgan_env.rewards import TextCredit

        return self.credit_texts(texts, lambda: TextCredit(self.scoring_discriminator, transform))

    def credit_texts(self, texts: Texts, source: Callable[[], CreditSource]) -> Tensor:
        """What a source says of whole texts, or the run's control in its place, float32 (R,)."""
        from textgan_env.rewards import RewardSpec

        control = None if self.config.control == "untrained" else self.config.control
        goal = {"objective": self.asked, "objective_weight": self.config.objective_weight}
        reward = RewardSpec(control=control, objective_control=self.config.objective_control, **goal)
        return reward.with_objective(source, None).credit(texts, texts.last_BT).sum(1)

    def queue_discriminator(self) -> None:
        """Let D as it is now score the texts that the environment starts from now on."""
        if self.envs.game.reward.judged:
            self.envs.game.queue_discriminator(self.frozen_discriminator())

    def behaviour_policy(self) -> PolicyModule:
        """G as it generates the texts that it learns from."""
        return self.policy  # type: ignore[no-any-return]

    def learning_policy(self) -> PolicyModule:
        """G as its texts are scored when it learns from them."""
        return self.behaviour_policy()

    def policy_for_d(self) -> PolicyModule:
        """G as it generates the texts that D learns from."""
        return self.behaviour_policy()

    @property
    def d_learns(self) -> bool:
        """Whether D has a part in the reward, and is trained for it."""
        alone = self.asked is not None and self.config.objective_weight == 1
        return self.config.control in (None, "shuffled") and self.discriminator is not None and not alone

    def d_steps_of(self, times: int, key: str = "d_step", lr_scale: float = 1.0) -> Steps:
        """Some d-steps as an entry of the schedule, at a part of D's learning rate; their draws follow from the key."""
        from textgan_env.training.discriminator import refit_batches
        from textgan_env.training.schedule import Steps

        batches = refit_batches(self.d_task, self.config.d_epochs, self.config.d_batch_size, self.config.d_texts)
        run = partial(self.d_batch, lr_scale=lr_scale)
        return Steps(run, times=times * self.d_learns, batches=batches, key=key)

    def pretraining(self) -> tuple[Phase, Phase]:
        """The phases before the adversarial one: G by maximum likelihood, unless a run was given, then D."""
        from textgan_env.training.schedule import Phase

        epochs = self.config.d_pretraining * self.d_learns
        return self.mle_phase(), Phase("pretrain_d", epochs, (self.d_steps_of(1),))

    def d_batch(self, step: Step, lr_scale: float = 1.0) -> Numbers:
        """A batch of refitting D on fresh texts of G.

        Args:
            step: Which batch of which d-step; the last one reports what D makes of texts that it has not seen.
            lr_scale: What D's learning rate is multiplied by.
        """
        from textgan_env.training.discriminator import refit_batch

        assert self.discriminator is not None
        for group in self.d_optimizer.param_groups:
            group["lr"] = lr_scale * self.d_optimizer.defaults["lr"]
        networks = (self.discriminator, self.d_optimizer, self.policy_for_d(), self.d_task)
        config = self.config
        how = {"batch_size": config.d_batch_size, "objective": config.d_objective, "replay": self.replay}
        how["texts"] = config.d_texts
        return refit_batch(step, *networks, **how)

    def fit_d(self, step: Step, batches: int) -> Numbers:
        """A few batches of D after a g-step, where G and D take turns; nothing where D does not learn."""
        from textgan_env.training.discriminator import fit_fresh

        if self.discriminator is None or not (batches and self.d_learns):
            return {}
        networks = (self.discriminator, self.d_optimizer, self.policy_for_d(), self.d_task)
        how = {"batches": batches, "batch_size": self.config.d_batch_size, "objective": self.config.d_objective}
        return {"d_loss": fit_fresh(step, *networks, **how)}

    def ask_d(self, step: Step) -> Numbers:
        """What D makes of fresh texts of G beside the valid split; nothing where D does not learn."""
        from textgan_env.training.discriminator import told_apart

        if self.discriminator is None or not self.d_learns:
            return {}
        fake = self.generated(step.generator, len(self.task.writable("valid")), self.policy_for_d())
        return told_apart(self.discriminator, self.task, fake.tokens_BT)

    def worth(self) -> DiscriminatorWorth | None:
        """What D is worth against G, by the valid split; None where it has not learnt, or its logit pays nothing."""
        from textgan_env.evaluation import discriminator_worth

        if self.discriminator is None or not (self.logit_pays and self.d_learns and self.d_optimizer.state):
            return None
        if len(self.task.writable("valid")) < 2:
            return None
        how: Any = {"split": "valid", "samples": _ASKED, "seed": self.seed("worth")}
        return discriminator_worth(self.discriminator, self.policy_for_d(), self.task, **how)

    def at_evaluation(self) -> dict[str, float]:
        """The numbers of `OF_WORTH`, as far as there are any."""
        worth = self.worth()
        found = {} if worth is None else {name: getattr(worth, name.removeprefix("d_")) for name in OF_WORTH}
        return {name: number for name, number in found.items() if number is not None}

    def pace(self) -> str:
        """How long a d-step takes a discriminator that reads with a language model."""
        from textgan_env.discriminators import LMDiscriminator
        from textgan_env.runs.logs import clock_text
        from textgan_env.training.discriminator import fresh_texts

        if not (isinstance(self.discriminator, LMDiscriminator) and self.d_learns):
            return ""
        fresh = fresh_texts(self.d_task, self.config.d_texts)
        seconds = fresh * self.discriminator.frozen.seconds(self.d_task.writable("train"))
        return f"a d-step takes about {clock_text(seconds)} here: the language model reads {fresh:,} fresh texts"

    def doubt(self) -> str:
        """That the run can gain less than its own noise, where so much is known."""
        worth = self.worth()
        return f"this run can hardly gain: {worth.sentence()}" if worth is not None and worth.small else ""
