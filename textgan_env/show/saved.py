"""A finished run as a thing to use: the policy that it trained writes, and is measured."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack

from textgan_env.discriminators import DiscriminatorModule
from textgan_env.evaluation import Evaluation, evaluate, stream_texts
from textgan_env.policies import PolicyModule
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.loading import finished_checkpoint, load_policy
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import Task
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
class SavedRun:
    """What `textgan_env.load` gives.

    The policy writes at the temperature that the run was started with, unless another is asked for.

    Attributes:
        folder: Its settings, metrics and samples.
        policy: The finished policy, on the CPU, in eval mode.
        task: What it was trained on.
    """

    folder: RunFolder
    policy: PolicyModule
    task: Task

    @classmethod
    def load(cls, run: str | Path) -> "SavedRun":
        """Read a run folder; the errors are those of `textgan_env.runs.loading.load_policy`."""
        policy, task = load_policy(run)
        return cls(RunFolder.open(run), policy, task)

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

    def decoded(self, **asked: Unpack[DecodingOptions]) -> PolicyModule:
        """The policy under another decoding; it is the run's own where nothing is asked for.

        Raises:
            InputError: If a number is out of its range.
        """
        given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
        if not given:
            return self.policy
        return self.policy.with_decoding(replace(self.policy.decoding, deterministic=False, **given))

    def sample(self, n: int = 20, *, prefix: str = "", seed: int = 0, **decoding: Unpack[DecodingOptions]) -> list[str]:
        """Write texts; arguments and errors are those of `stream`."""
        return list(self.stream(n, prefix=prefix, seed=seed, **decoding))

    def stream(
        self, n: int = 20, *, prefix: str = "", seed: int = 0, **decoding: Unpack[DecodingOptions]
    ) -> Iterator[str]:
        """Write texts some hundred at a time, so that the first come soon and no number is too large.

        The same seed gives the same texts, however many are asked for.

        Args:
            n: How many.
            prefix: What every text begins with, in words that the task has.
            seed: Of the draws.
            decoding: As `DecodingOptions`.

        Returns:
            An iterator; ``n`` is checked when its first text is asked for.

        Raises:
            InputError: If a number is out of its range, the prefix has an unknown word or leaves no room.
        """
        return stream_texts(self.decoded(**decoding), self.task, n, seed, self.task.encode_writable(prefix))

    def evaluate(
        self,
        *,
        split: Literal["valid", "test"] = "test",
        samples: int = 10_000,
        seed: int | None = None,
        **decoding: Unpack[DecodingOptions],
    ) -> Evaluation:
        """Measure the policy; without arguments, as the run itself did at its end.

        Args:
            split: Whose texts are the references.
            samples: Texts to measure.
            seed: Of these texts; None: that of the run.
            decoding: As `DecodingOptions`.

        Raises:
            InputError: If a number is out of its range.
        """
        own = self.folder.about["seed"]
        policy = self.decoded(**decoding)
        return evaluate(policy, self.task, split=split, samples=samples, seed=own if seed is None else seed)
