"""A finished run as a thing to use: the policy that it trained writes, and is measured."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from textgan_env.discriminators import DiscriminatorModule
from textgan_env.evaluation import (
    DiscriminatorWorth,
    Evaluation,
    blank_nll,
    discriminator_worth,
    evaluate,
    interpolate,
    near,
    stream_texts,
    template_of,
)
from textgan_env.objectives import ObjectiveLike
from textgan_env.policies import Decoding, EnsemblePolicy, PolicyModule
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.loading import finished_checkpoint, load_policy, policy_for
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import Task, open_causal_lm
from textgan_env.text.dataset import Split
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import MeanName
from textgan_env.utils.options import evaluation_sizes
from textgan_env.utils.reading import get_typed


class DecodingOptions(TypedDict, total=False):
    """How to write otherwise than the run says; None: as it says.

    Attributes:
        temperature: What logits are divided by.
        top_k: Write one of the k most probable tokens only.
        top_p: Write one of the most probable tokens that together reach this probability only.
    """

    temperature: float | None
    top_k: int | None
    top_p: float | None


@dataclass(frozen=True)
class _Saved:
    """A policy that generates texts of a task, and is measured."""

    policy: PolicyModule
    task: Task

    @property
    def seed(self) -> int:
        """What texts that are measured follow from, where nothing else is said."""
        return 0

    @property
    def sizes(self) -> dict[str, int | None]:
        """How many texts are measured, and how many references, where nothing else is said."""
        return evaluation_sizes("", None)

    def decoded(self, **asked: Unpack[DecodingOptions]) -> PolicyModule:
        """The policy under another decoding; it is the run's own where nothing is asked for.

        Raises:
            InputError: If a number is out of its range.
        """
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        if not given:
            return self.policy
        return self.policy.with_decoding(replace(self.policy.decoding, deterministic=False, **given))

    def sample(
        self,
        n: int = 20,
        *,
        prefix: str = "",
        template: str | None = None,
        seed: int = 0,
        **decoding: Unpack[DecodingOptions],
    ) -> list[str]:
        """Write texts; arguments and errors are those of `stream`."""
        return list(self.stream(n, prefix=prefix, template=template, seed=seed, **decoding))

    def stream(
        self,
        n: int = 20,
        *,
        prefix: str = "",
        template: str | None = None,
        seed: int = 0,
        **decoding: Unpack[DecodingOptions],
    ) -> Iterator[str]:
        """Write texts some hundred at a time, so that the first come soon and no number is too large.

        The same seed gives the same texts, however many are asked for.

        Args:
            n: How many.
            prefix: What every text begins with, in words that the task has.
            template: A whole text with ``___`` for each blank, one token each, in place of a prefix: "a ___ cat". All
                but a policy of MaskGAN see only what stands before a blank. See `textgan_env.evaluation.template_of`.
            seed: Of the draws.
            decoding: As `DecodingOptions`.

        Returns:
            An iterator; ``n`` is checked when its first text is asked for.

        Raises:
            InputError: If a number is out of its range, the prefix has an unknown word or leaves no room, or the
                template is none (`template_of`) or stands beside a prefix.
        """
        policy = self.decoded(**decoding)
        if template is not None:
            require(not prefix, f"a template is a whole text: give no prefix beside it, found '{prefix[:60]}'")
            policy = policy.given(template_of(self.task, template), self.task.end_token)
        return stream_texts(policy, self.task, n, seed, self.task.encode_writable(prefix))

    def blank_nll(
        self, *, split: Split = "test", mask_rate: float = 0.5, contiguous: bool = True, seed: int = 0
    ) -> float:
        """How well the blanks of real texts are filled, nats per blank; see `textgan_env.evaluation.blank_nll`."""
        options: Any = {"split": split, "mask_rate": mask_rate, "contiguous": contiguous, "seed": seed}
        return blank_nll(self.policy, self.task, **options)

    def interpolate(self, first: str, last: str, n: int = 7) -> list[str]:
        """Texts between two texts, where the policy is that of a VAE; see `textgan_env.evaluation.interpolate`."""
        return interpolate(self.policy, self.task, first, last, n)

    def near(self, text: str, n: int = 7, *, seed: int = 0) -> list[str]:
        """Texts near a text, where the policy is that of a VAE; see `textgan_env.evaluation.near`."""
        return near(self.policy, self.task, text, n, seed=seed)

    def evaluate(
        self,
        *,
        split: Literal["valid", "test"] = "test",
        samples: int | None = None,
        seed: int | None = None,
        objective: ObjectiveLike | None = None,
        **decoding: Unpack[DecodingOptions],
    ) -> Evaluation:
        """Measure the policy; without arguments, as the run itself did at its end, but for its objective.

        Args:
            split: Whose texts are the references.
            samples: Texts to measure; None: `sizes`.
            seed: Of these texts; None: `seed`.
            objective: Also measure it, see `textgan_env.objectives.as_objective`.
            decoding: As `DecodingOptions`.

        Raises:
            InputError: If a number is out of its range.
        """
        seed = self.seed if seed is None else seed
        sizes: Any = self.sizes if samples is None else {"samples": samples}
        return evaluate(self.decoded(**decoding), self.task, split=split, seed=seed, objective=objective, **sizes)


@dataclass(frozen=True)
class SavedRun(_Saved):
    """What `textgan_env.load` gives.

    The policy writes at the temperature that the run was started with, unless another is asked for.

    Attributes:
        policy: The finished policy, on the CPU, in eval mode.
        task: What it was trained on.
        folder: Its settings, metrics and samples.
    """

    folder: RunFolder

    @classmethod
    def load(cls, run: str | Path) -> "SavedRun":
        """Read a run folder; the errors are those of `textgan_env.runs.loading.load_policy`."""
        policy, task = load_policy(run)
        return cls(policy, task, RunFolder.open(run))

    @property
    def seed(self) -> int:
        """The run's."""
        seed: int = self.folder.about["seed"]
        return seed

    @property
    def sizes(self) -> dict[str, int | None]:
        """Those of the run's own evaluation at its end."""
        config = self.folder.about["config"]
        if "eval_samples" not in config:  # of an earlier version, which measured 10,000 texts whatever the preset
            return super().sizes
        where = f"the config of run '{self.folder.path}'"
        asked = None if config["eval_samples"] is None else get_typed(config, "eval_samples", int, where)
        return evaluation_sizes(str(config.get("preset")), asked)

    @cached_property
    def discriminator(self) -> DiscriminatorModule | None:
        """D as it stood beside the finished policy, in eval mode, without gradients.

        None where the run has none, has one that never learnt, as with some controls, or is older than what says in
        checkpoints which one it is.

        Raises:
            InputError: If the checkpoint does not hold the D that it names.
        """
        checkpoint = finished_checkpoint(self.folder)
        state = get_typed(checkpoint.document, "state", dict, f"the document of checkpoint '{checkpoint.path}'")
        done = get_typed(state, "done", int, "its state")  # the best policy may be older than what D has learnt
        learnt = any("d_auc" in row for row in read_metrics(self.folder.path) if int(row["step"]) <= done)
        if not (learnt and "discriminator" in checkpoint.header.modules and "discriminators" in checkpoint.document):
            return None
        return checkpoint.build_discriminator("discriminator").requires_grad_(False)

    def discriminator_worth(
        self, *, split: Literal["valid", "test"] = "test", samples: int | None = None, seed: int | None = None
    ) -> DiscriminatorWorth:
        """What D is worth against the finished policy at temperature 1; see `evaluation.discriminator_worth`.

        Where no oracle draws the splits, held-out texts that stand in the training text, too, are left out.

        Args:
            split: The real texts.
            samples: Most of them, and as many of the policy; None: all of the split.
            seed: Of the texts of the policy; None: that of the run.

        Raises:
            InputError: If the run has no D that has learnt, fewer than 2 texts are left, or D's logit ranks.
        """
        discriminator = self.discriminator
        none = f"run '{self.folder.path}' has no discriminator that has learnt: expected an adversarial run"
        require(discriminator is not None, none)
        assert discriminator is not None
        known_RT = self.task.writable("train") if self.task.oracle is None else None
        seed = self.seed if seed is None else seed
        how: Any = {"split": split, "samples": samples, "fitted_on": known_RT, "seed": seed}
        return discriminator_worth(discriminator, self.policy.with_decoding(Decoding()), self.task, **how)


@dataclass(frozen=True)
class SavedModel(_Saved):
    """What `textgan_env.load_model` gives.

    Attributes:
        policy: A `CausalLMPolicy` with all the model's subwords.
        task: No text, only what its tokens are: nothing can be measured.
    """

    @classmethod
    def load(cls, model: str | Path, max_length: int) -> "SavedModel":
        """Read a model; the errors are those of `textgan_env.tasks.open_causal_lm`."""
        return cls(*open_causal_lm(model, max_length))


@dataclass(frozen=True)
class SavedEnsemble(_Saved):
    """What `textgan_env.load_ensemble` gives.

    Attributes:
        policy: An `EnsemblePolicy` of the finished policies, each at the temperature of its run; its own is 1.
        task: What the first run was trained on.
    """

    @classmethod
    def load(cls, runs: Sequence[str | Path], mean: MeanName = "arithmetic") -> "SavedEnsemble":
        """Read run folders.

        Raises:
            InputError: If there is none, they are of different tasks, or as `load_policy`.
        """
        require(len(runs) > 0, "an ensemble needs at least one run")
        first, task = load_policy(runs[0])
        others = [policy_for(task, run, "further") for run in runs[1:]]
        return cls(EnsemblePolicy([first, *others], mean).eval(), task)
