"""The reward of a discriminator that learns along, as a reward function of TRL's trainers."""

import hashlib
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from textgan_env.discriminators import DiscriminatorModule, fit_discriminator, make_discriminator, score_logits
from textgan_env.ops.metrics import distinct_shares, roc_auc
from textgan_env.ops.sampling import derived_generator, derived_seed
from textgan_env.text.corpus_options import as_texts
from textgan_env.trl.asked import Completion, RewardFunction, text_of
from textgan_env.trl.processes import from_first, gathered
from textgan_env.trl.reading import Reading
from textgan_env.utils.errors import require, require_at_least, require_known
from textgan_env.utils.kinds import DISCRIMINATORS

_MOST_HELD_OUT = 1000  # texts, which are scored at every call

#: What a text is paid: the discriminator's logit, or the probability that it is real.
Paid = Literal["logit", "probability"]
#: What the discriminator is fitted to.
Objective = Literal["pairs", "cross-entropy"]


class DiscriminatorReward(RewardFunction):
    """Pays a completion for how real a discriminator finds it, and teaches the discriminator on what it was shown.

    The scheme of GAD (Ye et al. 2025, "Generative Adversarial Distillation", arXiv 2511.10643): the discriminator
    learns -log sigmoid(logit of a real text - logit of a completion), and the model is paid the logit. Where we differ:
    the discriminator is a small network of the texts' own words, not a language model; real texts and completions are
    paired at random, not by prompt; and it learns from earlier completions, too. With p the real texts' distribution
    and q the model's its best logit is log p / q + constant: with a discriminator that keeps up, and with advantages
    that are not divided by their standard deviation, the policy gradient is that of -KL(q || p).

    At each call the completions of all processes are scored first, together with real texts held out, which it never
    learns from: `auc` is the probability that one of these scores above a completion. Then it may learn. With
    `textgan_env.trl.callbacks.DiscriminatorCallback` it does so in training only, else in evaluation, too. Where the
    trainer gives ``log_metric``, it logs under its name ``auc``; ``loss``, nats, of a refit; ``words``, the mean
    length; ``distinct_2`` and ``distinct_3``, the share of different n-grams.

    The first process refits and tells the others. It works on the CPU, where the same calls give the same bits.

    Args:
        texts: The real texts; a copy counts as often as it stands there.
        discriminator: ``pair``, ``conv`` or ``recurrent``.
        options: Further arguments of that discriminator.
        objective: ``pairs``, or ``cross-entropy``, of each text by itself.
        paid: The logit, or the probability. Within GRPO's group only the logit tells good texts apart that are all far
            from real.
        refit_every: Calls from one refit to the next.
        steps: Optimizer steps of a refit; 0: it stays as it is, after a warm-up.
        batch_size: Texts of each side in a step.
        learning_rate: None: that which the discriminator was tuned with.
        replay: It learns from so many of the newest completions, those since the last refit in any case.
        held_out: Share of the real texts, at least one text and at most 1,000.
        judge_prompts: Whether a text is prompt and completion. Then the real texts have to be so, too, with like
            prompts.
        reading: How texts become tokens.
        seed: Of the weights, of what is held out, and of the refits.
        name: Under which it logs, and is saved.

    Raises:
        InputError: If there are fewer than two real texts, or an option is refused.
    """

    def __init__(
        self,
        texts: Sequence[str],
        *,
        discriminator: str = "pair",
        options: Mapping[str, Any] | None = None,
        objective: Objective = "pairs",
        paid: Paid = "logit",
        refit_every: int = 1,
        steps: int = 10,
        batch_size: int = 64,
        learning_rate: float | None = None,
        replay: int = 512,
        held_out: float = 0.2,
        judge_prompts: bool = False,
        reading: Reading | None = None,
        seed: int = 0,
        name: str = "discriminator",
    ) -> None:
        super().__init__(name)
        require(name.isidentifier(), f"name must be a word of letters, digits and _, found {name!r}")
        require_known("discriminator", discriminator, [k for k, v in DISCRIMINATORS.items() if v.offered and v.network])
        require_known("objective", objective, get_args(Objective))
        require_known("kind of reward", paid, get_args(Paid))
        require_at_least(1, refit_every=refit_every, batch_size=batch_size)
        require_at_least(0, steps=steps, replay=replay, seed=seed)
        self.kind, self.options, self.objective, self.paid_as = discriminator, dict(options or {}), objective, paid
        self.refit_every, self.steps, self.batch_size, self.replay = refit_every, steps, batch_size, replay
        self.judge_prompts, self.seed = judge_prompts, seed
        learnt, unseen = _apart(as_texts(texts), held_out, seed)
        self.reader = (reading or Reading()).reader(learnt)
        self.real_RT, self.unseen_RT = self.reader.encode(learnt), self.reader.encode(unseen)
        self.discriminator = self.new_discriminator()
        self.optimizer = self.discriminator.make_optimizer(learning_rate)
        self.replayed_RT = self.waiting_RT = self.real_RT[:0]
        self.calls, self.refits, self.learns = 0, 0, True

    def new_discriminator(self) -> DiscriminatorModule:
        """A discriminator as this one was before it learnt."""
        sizes = {"vocab_size": self.reader.vocabulary.size, "max_length": self.reader.max_length}
        words: Any = {"vocabulary": self.reader.vocabulary.to_json()} if self.kind == "lm" else {}
        return make_discriminator(self.kind, **sizes, **words, seed=derived_seed(self.seed, "weights"), **self.options)

    def judged(self, prompts: Sequence[Completion], completions: Sequence[Completion]) -> list[str]:
        """The texts that are judged."""
        if not self.judge_prompts:
            return [text_of(completion) for completion in completions]
        pairs = zip(prompts, completions, strict=True)
        return [text_of(one) + "\n" * (not isinstance(one, str)) + text_of(other) for one, other in pairs]

    def logits(self, texts: Sequence[str], discriminator: DiscriminatorModule | None = None) -> Tensor:
        """How real texts look to the discriminator now, or to another of the same words: float (R,), high for real."""
        return score_logits(discriminator or self.discriminator, self.reader.encode(texts))

    def paid(self, logits_R: Tensor) -> list[float]:
        """What texts with these logits are paid."""
        rewards: list[float] = (logits_R if self.paid_as == "logit" else logits_R.sigmoid()).tolist()
        return rewards

    def rewards(
        self, *, prompts: Sequence[Completion], completions: Sequence[Completion], **columns: Any
    ) -> list[float]:
        """Score, measure, remember; refit when it is time."""
        texts, own = gathered(self.judged(prompts, completions))
        require(bool(texts), f"{self.__name__} needs at least one completion, found 0")
        tokens_RT = self.reader.encode(texts)
        logits_R = score_logits(self.discriminator, tokens_RT)
        told = self._measured(tokens_RT, logits_R)
        if self.learns and self.steps:
            self.calls += 1
            self.waiting_RT = torch.cat([self.waiting_RT, tokens_RT])
            if self.calls % self.refit_every == 0:
                told["loss"] = self._refit(self.steps)
        log = columns.get("log_metric")
        if log is not None:
            for name, value in told.items():
                log(f"{self.__name__}/{name}", value)
        return self.paid(logits_R[own])

    def warm_up(self, completions: Sequence[Completion], *, steps: int, prompts: Sequence[Completion] = ()) -> float:
        """Fit the discriminator to completions before training, as GAD does.

        Args:
            completions: Of the model as it is; all processes give the same.
            steps: Optimizer steps.
            prompts: Of the completions, where they are judged.

        Returns:
            The mean loss, nats.

        Raises:
            InputError: If there is no completion, or the loss is not finite.
        """
        self.waiting_RT = self.reader.encode(self.judged(prompts, completions))
        return self._refit(steps)

    def state_dict(self) -> dict[str, Any]:
        """All that learns and counts, copied: numbers, texts and tensors, which `torch.load` reads by weights_only."""
        own = {name: getattr(self, name) for name in ("calls", "refits", "replayed_RT", "waiting_RT")}
        parts = {"discriminator": self.discriminator.state_dict(), "optimizer": self.optimizer.state_dict()}
        return deepcopy({**own, **parts, "made_for": self._made_for()})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, bit for bit.

        Args:
            state: What `state_dict` of a reward made of the same texts and options gave.

        Raises:
            InputError: If it is of other texts or options; the sentence names them.
        """
        saved, here = dict(state).get("made_for", {}), self._made_for()
        other = [name for name in here if saved.get(name) != here[name]]
        require(not other, f"the saved state of {self.__name__} is of another {', '.join(other)}")
        state = deepcopy(dict(state))
        self.discriminator.load_state_dict(state["discriminator"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.calls, self.refits = state["calls"], state["refits"]
        self.replayed_RT, self.waiting_RT = state["replayed_RT"], state["waiting_RT"]

    def _made_for(self) -> dict[str, str]:
        """What a state must have been saved with to be taken up here."""
        real = (self.real_RT.numpy().tobytes(), self.unseen_RT.numpy().tobytes())
        return {
            "discriminator": f"{self.kind} {sorted(self.discriminator.config().items())}",
            "vocabulary": self.reader.vocabulary.fingerprint(),
            "set of real texts": hashlib.sha256(b"".join(real)).hexdigest(),
            "seed": str(self.seed),
        }

    def _measured(self, tokens_RT: Tensor, logits_R: Tensor) -> dict[str, float]:
        """What can be said of completions before they are learnt from."""
        unseen_R = score_logits(self.discriminator, self.unseen_RT)
        words = [self.reader.vocabulary.decode(row) for row in tokens_RT.tolist()]
        distinct = distinct_shares(words, 3)
        return {
            "auc": roc_auc(unseen_R.numpy(), logits_R.numpy()),
            "words": sum(map(len, words)) / len(words),
            **{f"distinct_{n}": distinct[n] for n in (2, 3) if distinct[n] == distinct[n]},  # NaN of texts too short
        }

    def _refit(self, steps: int) -> float:
        """Fit on the newest completions; the first process does it, and all go on from its weights."""
        fake_RT = torch.cat([self.replayed_RT, self.waiting_RT])[-max(self.replay, len(self.waiting_RT)) :]
        generator = derived_generator(self.seed, "refit", self.refits)

        def fit() -> tuple[float, dict[str, Any], dict[str, Any]]:
            said = fit_discriminator(
                self.discriminator, self.optimizer, self.real_RT, fake_RT,
                steps=steps, batch_size=self.batch_size, generator=generator, objective=self.objective,
            )  # fmt: skip
            return said["loss"], self.discriminator.state_dict(), self.optimizer.state_dict()

        loss, weights, moments = from_first(fit)
        self.discriminator.load_state_dict(weights)
        self.optimizer.load_state_dict(moments)
        self.replayed_RT = fake_RT[max(0, len(fake_RT) - self.replay) :]
        self.waiting_RT, self.refits = self.real_RT[:0], self.refits + 1
        return loss


def _apart(texts: Sequence[str], held_out: float, seed: int) -> tuple[list[str], list[str]]:
    """Real texts to learn from and texts held out, drawn at random: copies are texts of their own."""
    require(len(texts) >= 2, f"at least two real texts are needed, one of them to be held out, found {len(texts)}")
    require(0 < held_out < 1, f"held_out must be a share above 0 and below 1, found {held_out}")
    order = torch.randperm(len(texts), generator=derived_generator(seed, "held out")).tolist()
    first = min(max(1, round(held_out * len(texts))), len(texts) - 1, _MOST_HELD_OUT)
    return [texts[row] for row in order[first:]], [texts[row] for row in order[:first]]
