"""The reward of an environment, described once and checked once."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from textgan_env.discriminators import Discriminator, require_precision, require_token_logits
from textgan_env.ops.episodes import Bools, Ints
from textgan_env.ops.reward_kinds import (
    CONTROLS,
    PRECISIONS,
    REWARDS,
    TRANSFORMS,
    ControlName,
    PrecisionName,
    RewardName,
    TransformName,
)
from textgan_env.policies.base import Policy
from textgan_env.rewards.asked import AskedObjective
from textgan_env.rewards.controls import controlled
from textgan_env.rewards.credit import CreditSource, DenseCredit, RolloutCredit, TextCredit, check_gamma
from textgan_env.rewards.goal import MixedCredit, ObjectiveCredit
from textgan_env.rewards.intervals import q_before, q_tokens
from textgan_env.rewards.texts import Texts
from textgan_env.utils.errors import require, require_at_least, require_known

#: What an environment takes as a further source: a `CreditSource`, or what makes one of the policy that generates.
Source = CreditSource | Callable[[Policy], CreditSource]


@dataclass(frozen=True)
class RewardSpec:
    """How an environment pays for text.

    Args:
        reward: ``terminal`` pays R(text) at the end, ``difference`` the change of Q, which sums to R(text): learn with
            gamma 1. ``rollout`` pays Q, the credit itself: learn with gamma 0, as SeqGAN does. ``dense`` pays f of D's
            logit of the prefix at each token, as ScratchGAN does: D must have one (``recurrent``), and you learn with
            ``gamma``.
        transform: f in R = f(D(text)), a name of `TRANSFORMS`.
        rollouts: N, completions of each prefix.
        q_interval: Tokens from one Q to the next, see `RolloutCredit`. ``difference`` pays at these tokens and at the
            last; ``rollout`` gives each token the next Q, so that above 1 it works in `TextGame.collect` only.
        gamma: Discount of R for each token that is still to come; 1 with ``difference``.
        control: None, or what knows nothing of the text in place of what D says: ``constant``, ``random`` or
            ``shuffled``.
        objective: What texts are to be like beside real. Then ``R(text) = (1 - w) f(D(text)) + w O(text)``, O as a
            share of its range; completions, where there are any, are paid so, too.
        objective_weight: w; 1: D has no part.
        objective_control: As ``control``, in place of what the objective says.
        sources: Further credit, added to that of the reward in this order. A callable is given the policy that
            generates the texts, at each `TextGame.collect`, and returns the source: so ``lambda policy:
            KLCredit(policy, reference, 1.0)`` always asks the policy as it is. Sources that ask whole texts, such as
            KL, work in ``collect`` and with ``terminal`` only; not with ``difference``.
        score_precision: What D's scores of completions are computed in: ``bf16`` is faster where the processor has it,
            and rounds (see `score_completions`).

    Raises:
        InputError: If a name is unknown, a number out of range, or two of them do not fit each other.
    """

    reward: RewardName = "terminal"
    transform: TransformName = "prob"
    rollouts: int = 16
    q_interval: int = 1
    gamma: float = 1.0
    control: ControlName | None = None
    objective: AskedObjective | None = None
    objective_weight: float = 0.5
    objective_control: ControlName | None = None
    sources: tuple[Source, ...] = ()
    score_precision: PrecisionName = "float32"

    def __post_init__(self) -> None:
        """Check names and numbers; lists of sources become tuples."""
        object.__setattr__(self, "sources", tuple(self.sources))
        require_known("reward mode", self.reward, REWARDS)
        for control in (self.control, self.objective_control):
            if control is not None:
                require_known("control", control, CONTROLS)
        self._check_objective()
        require_known("reward transform", self.transform, TRANSFORMS)
        require_known("score precision", self.score_precision, PRECISIONS)
        rounds = f"score precision {self.score_precision} is for completions, and reward='{self.reward}' makes none"
        require(self.score_precision == "float32" or self.reward in ("difference", "rollout"), rounds)
        check_gamma(self.gamma)
        advice = "reward='terminal' asks for the whole text's score"
        require(self.rollouts >= 1, f"rollouts must be at least 1, found {self.rollouts}: {advice}")
        require_at_least(1, q_interval=self.q_interval)
        if self.reward == "difference":
            why = "reward='difference' sums to R(text)"
            require(self.gamma == 1, f"{why} with gamma 1 only, found gamma {self.gamma}")
            require(not self.sources, f"{why}, so it takes no further sources, found {len(self.sources)}")
        ranked = self.reward == "dense" and TRANSFORMS[self.transform].compares_rows
        require(
            not ranked, f"reward='dense' pays each token as it comes, and '{self.transform}' compares whole returns"
        )
        for source in self.sources:
            fits = hasattr(source, "credit") or callable(source)
            require(fits, f"sources must be credit sources or make one of a policy, found {type(source).__name__}")

    def _check_objective(self) -> None:
        """Refuse what makes no reward together."""
        weight, asked = self.objective_weight, self.objective
        require(0 < weight <= 1, f"objective_weight must be above 0 and at most 1, found {weight}")
        if asked is None:
            none = "a control of the objective needs an objective"
            require(self.objective_control is None, f"{none}, found {self.objective_control}")
            return
        alone = "objective_weight 1 leaves the discriminator out: there is no control of it"
        require(weight < 1 or self.control is None, f"{alone}, found {self.control}")
        steps = self.reward in ("difference", "rollout")
        counted = "repeat_decay counts finished texts: it needs reward='terminal', --rollouts 0"
        require(asked.repeat_decay == 1 or not steps, f"{counted}, found '{self.reward}'")

    @property
    def judged(self) -> bool:
        """Whether a discriminator has a part in the reward."""
        alone = self.objective is not None and self.objective_weight == 1
        return self.control not in ("constant", "random") and not alone

    @property
    def is_score(self) -> bool:
        """Whether a finished text is paid the probability that it is real, and nothing else."""
        return (self.reward, self.transform, self.control, self.objective) == ("terminal", "prob", None, None)

    @property
    def asks_objective(self) -> bool:
        """Whether an objective is asked about texts."""
        return self.objective is not None and self.objective_control not in ("constant", "random")

    @property
    def without_discriminator(self) -> str:
        """Why no discriminator has a part in the reward, where none has."""
        return f"the '{self.control}' control" if self.control else "a reward by the objective alone"

    @property
    def completes(self) -> bool:
        """Whether prefixes are completed to pay."""
        return (self.judged or self.asks_objective) and self.reward in ("difference", "rollout")

    @property
    def compares_rows(self) -> bool:
        """Whether what a text is paid depends on the texts beside it."""
        return TRANSFORMS[self.transform].compares_rows or "shuffled" in (self.control, self.objective_control)

    def check_rows(self, rows: int) -> None:
        """Refuse too few texts side by side.

        Raises:
            InputError: If this reward compares texts, and there is one only.
        """
        shuffled = "shuffled" in (self.control, self.objective_control)
        what = "shuffled control" if shuffled else f"{self.transform} transform"
        enough = rows >= 2 or not self.compares_rows
        require(enough, f"the {what} needs at least 2 texts side by side, found 1")

    def check_discriminator(self, discriminator: Discriminator) -> None:
        """Refuse a D that lacks what is asked of it.

        Raises:
            InputError: If it has no logits of tokens and ``dense`` is paid by them, or cannot compute in the precision.
        """
        if self.reward == "dense":
            require_token_logits(discriminator)
        require_precision(self.score_precision, discriminator)

    def check_steps(self) -> None:
        """Refuse what `step` cannot pay.

        Raises:
            InputError: If what a token is paid is known only when later ones are there.
        """
        advice = "take reward='difference' or q_interval=1, or use collect"
        late = f"reward='rollout' with q_interval={self.q_interval} knows the worth of a token some tokens later"
        require(self.reward != "rollout" or self.q_interval == 1, f"{late}: {advice}")
        paid_by_token = self.reward != "dense" or (self.judged and self.objective is None)
        why = f"under the '{self.control}' control" if self.objective is None else "with an objective"
        require(paid_by_token, f"reward='dense' {why} works in collect only")

    def due(self, lengths_B: Ints, ended_B: Bools) -> Bools:
        """The texts that are paid for their newest token, bool (B,)."""
        if self.reward == "terminal":
            return ended_B
        paid_B: Bools = lengths_B % (self.q_interval if self.reward == "difference" else 1) == 0
        return ended_B | paid_B

    def discriminator_credit(self, discriminator: Discriminator, completing: Policy | None) -> CreditSource:
        """What D says tokens are worth, before any control.

        Args:
            discriminator: D.
            completing: Completes the prefixes; may be None where none are (`completes`).
        """
        if self.reward == "dense":
            return DenseCredit(discriminator, self.transform, self.gamma)
        if completing is None or not self.completes:
            return TextCredit(discriminator, self.transform, self.gamma)
        how = (self.transform, self.rollouts, self.gamma, self.q_interval, self.score_precision)
        return RolloutCredit(completing, discriminator, *how)

    def with_objective(self, of_discriminator: Callable[[], CreditSource], completing: Policy | None) -> CreditSource:
        """What tokens are worth by D and by the objective together, each under its control.

        Args:
            of_discriminator: Makes what D says tokens are worth; not asked where D has no part.
            completing: Completes the prefixes; may be None where none are (`completes`).
        """
        asked, weight = self.objective, self.objective_weight
        if asked is None:
            return controlled(self.control, of_discriminator)
        by_steps = completing if self.completes else None
        how = (self.gamma, by_steps, self.rollouts, self.q_interval)
        of_objective = controlled(self.objective_control, lambda: ObjectiveCredit(asked, *how))
        if weight == 1:
            return of_objective
        return MixedCredit(controlled(self.control, of_discriminator), of_objective, weight)

    def with_sources(self, credit_BT: Tensor, texts: Texts, wanted_BT: Tensor, policy: Policy | None = None) -> Tensor:
        """Credit and that of the further sources, added up in their order.

        Args:
            credit_BT: float; that of the reward.
            texts: The batch.
            wanted_BT: bool; the tokens asked about.
            policy: Who generates the texts; None: not known here.

        Returns:
            float (B, T).

        Raises:
            InputError: If a source is made of the policy that generates, and it is not known; if it does not give a
                finite number for each wanted token; or as a source says.
        """
        for source in self.sources:
            if not hasattr(source, "credit"):
                of_policy = "sources that are made of the policy that generates work in collect only"
                require(policy is not None, f"{of_policy}: step knows no policy")
                source = source(policy)  # type: ignore[arg-type]
            credit_BT = credit_BT + _checked(source, source.credit(texts, wanted_BT), wanted_BT).to(credit_BT.device)
        return credit_BT

    def payments(self, own_BT: Tensor, credit_BT: Tensor, texts: Texts, first_B: Tensor) -> Tensor:
        """What `step` pays at each token, from the credit to go.

        Args:
            own_BT: float; credit of the reward itself, 0 where nothing is known, and after the end.
            credit_BT: float; the same with that of the further sources.
            texts: The texts; finished ones for ``terminal``.
            first_B: int64; the first token of each text that was not given.

        Returns:
            In the dtype of the credit, (B, T); 0 after the end.
        """
        if self.reward == "rollout":
            return credit_BT
        if self.reward == "terminal":
            if self.sources:  # credit to go: at the first token it is that of the whole text
                own_BT = own_BT + (credit_BT - own_BT).gather(1, first_B[:, None])
            return own_BT * texts.last_BT
        if self.reward == "dense":  # credit to go: less what is paid later
            return (credit_BT - self.gamma * functional.pad(credit_BT[:, 1:], (0, 1))) * texts.mask_BT
        paid_BT = q_tokens(texts, self.q_interval)
        return (own_BT - q_before(own_BT, paid_BT, torch.zeros_like(own_BT))) * paid_BT


def _checked(source: CreditSource, credit_BT: Tensor, wanted_BT: Tensor) -> Tensor:
    """The credit of a source; refuses a shape that would be broadcast, and NaN or infinity at a wanted token."""
    its, expected = f"the credit of {type(source).__name__} must", tuple(wanted_BT.shape)
    found = tuple(credit_BT.shape) if isinstance(credit_BT, Tensor) else type(credit_BT).__name__
    require(found == expected, f"{its} be a tensor of shape (B, T)={expected}, found {found}")
    unsound_BT = ~torch.isfinite(credit_BT) & wanted_BT.to(credit_BT.device)
    if bool(unsound_BT.any()):
        row, position = unsound_BT.nonzero()[0].tolist()
        value = float(credit_BT[row, position])
        require(False, f"{its} be finite, found {value} at token {position + 1} of text {row + 1}")
    return credit_BT
