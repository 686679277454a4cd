"""The reward of an environment, described once and checked once."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from textgan_env.discriminators import Discriminator
from textgan_env.ops.reward_kinds import CONTROLS, REWARDS, TRANSFORMS, ControlName, RewardName, TransformName
from textgan_env.policies.base import Policy
from textgan_env.rewards.credit import CreditSource, RolloutCredit, TextCredit, check_gamma, check_transform
from textgan_env.rewards.texts import Texts
from textgan_env.utils.errors import require, require_known

#: What an environment takes as a further source: a `CreditSource`, or what makes one of the policy that generates.
Source = CreditSource | Callable[[Policy], CreditSource]


@dataclass(frozen=True)
class RewardSpec:
    """How an environment pays for text.

    Args:
        reward: ``rollout`` pays Q, the credit itself: learn with gamma 0, as SeqGAN does. ``difference`` pays the
            change of Q and sums to R(text), ``terminal`` pays R(text) at the end: learn with gamma 1.
        transform: f in R = f(D(text)), a name of `TRANSFORMS`.
        rollouts: N, completions of each prefix.
        gamma: Discount of R for each token that is still to come; 1 with ``difference``.
        control: None, or a reward that knows nothing of the text: ``constant``, ``random`` or ``shuffled``.
        sources: Further credit, added to that of the reward in this order. A callable is given the policy that
            generates the texts, at each `TextGame.collect`, and returns the source: so ``lambda policy:
            KLCredit(policy, reference, 1.0)`` always asks the policy as it is. Sources that ask whole texts, such as
            KL, work in ``collect`` and with ``terminal`` only; not with ``difference``.

    Raises:
        InputError: If a name is unknown, a number out of range, or two of them do not fit each other.
    """

    reward: RewardName = "rollout"
    transform: TransformName = "prob"
    rollouts: int = 16
    gamma: float = 1.0
    control: ControlName | None = None
    sources: tuple[Source, ...] = ()

    def __post_init__(self) -> None:
        """Check names and numbers; lists of sources become tuples."""
        object.__setattr__(self, "sources", tuple(self.sources))
        require_known("reward mode", self.reward, REWARDS)
        if self.control is not None:
            require_known("control", self.control, CONTROLS)
        check_transform(self.transform)
        check_gamma(self.gamma)
        advice = "reward='terminal' asks for the whole text's score"
        require(self.rollouts >= 1, f"rollouts must be at least 1, found {self.rollouts}: {advice}")
        if self.reward == "difference":
            why = "reward='difference' sums to R(text)"
            require(self.gamma == 1, f"{why} with gamma 1 only, found gamma {self.gamma}")
            require(not self.sources, f"{why}, so it takes no further sources, found {len(self.sources)}")
        for source in self.sources:
            fits = hasattr(source, "credit") or callable(source)
            require(fits, f"sources must be credit sources or make one of a policy, found {type(source).__name__}")

    @property
    def judged(self) -> bool:
        """Whether a discriminator has a part in the reward."""
        return self.control not in ("constant", "random")

    @property
    def completes(self) -> bool:
        """Whether prefixes are completed to pay."""
        return self.judged and self.reward != "terminal"

    @property
    def compares_rows(self) -> bool:
        """Whether what a text is paid depends on the texts beside it."""
        return TRANSFORMS[self.transform].compares_rows or self.control == "shuffled"

    def check_rows(self, rows: int) -> None:
        """Refuse too few texts side by side.

        Raises:
            InputError: If this reward compares texts, and there is one only.
        """
        what = "shuffled control" if self.control == "shuffled" else f"{self.transform} transform"
        enough = rows >= 2 or not self.compares_rows
        require(enough, f"the {what} needs at least 2 texts side by side, found 1")

    def discriminator_credit(self, discriminator: Discriminator, completing: Policy | None) -> CreditSource:
        """What D says tokens are worth, before any control.

        Args:
            discriminator: D.
            completing: Completes the prefixes; may be None where none are (`completes`).
        """
        if completing is None or not self.completes:
            return TextCredit(discriminator, self.transform, self.gamma)
        return RolloutCredit(completing, discriminator, self.transform, self.rollouts, self.gamma)

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
            InputError: If a source is made of the policy that generates, and it is not known; or as a source says.
        """
        for source in self.sources:
            if not hasattr(source, "credit"):
                of_policy = "sources that are made of the policy that generates work in collect only"
                require(policy is not None, f"{of_policy}: step knows no policy")
                source = source(policy)  # type: ignore[arg-type]
            credit_BT = credit_BT + source.credit(texts, wanted_BT).to(credit_BT.device)
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
        before_BT = functional.pad(own_BT[:, :-1], (1, 0))
        return (own_BT - before_BT) * texts.mask_BT
