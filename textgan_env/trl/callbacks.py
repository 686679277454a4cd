"""What a trainer of TRL is told of a discriminator: when it may learn, and that it is part of a checkpoint."""

import io
from pathlib import Path
from typing import Any

import torch

from textgan_env.trl.reward import DiscriminatorReward
from textgan_env.utils.errors import InputError, require, require_package
from textgan_env.utils.files import write_safely

require_package("transformers", "trl", "textgan_env.trl.callbacks")

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments  # noqa: E402


class DiscriminatorCallback(TrainerCallback):
    """Keeps a discriminator in the trainer's checkpoints, takes it up again, and lets it learn in training only.

    In a folder ``checkpoint-N`` the first process writes ``reward_NAME.pt`` after the trainer's own files. A trainer
    that is resumed has done N steps when it begins: then the file of that step is read, in all processes.

    Args:
        reward: Give it to the trainer, too, as a reward function.
        resume_from: The folder that is resumed from, where it does not lie in ``output_dir``.
    """

    def __init__(self, reward: DiscriminatorReward, resume_from: str | Path | None = None) -> None:
        self.reward, self.resume_from = reward, resume_from

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take up the discriminator of a trainer that is resumed.

        Raises:
            InputError: If the checkpoint holds none, or it does not fit.
        """
        self.reward.learns = False
        if state.global_step > 0:
            folder = self._folder(args, state) if self.resume_from is None else Path(self.resume_from)
            self.reward.load_state_dict(_read(folder / self._name))

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Completions are those of training now."""
        self.reward.learns = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """What comes now may be evaluation."""
        self.reward.learns = False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the discriminator beside the model."""
        if args.should_save:
            content = io.BytesIO()
            torch.save(self.reward.state_dict(), content)
            write_safely(self._folder(args, state) / self._name, content.getvalue())

    @property
    def _name(self) -> str:
        """Of the file."""
        return f"reward_{self.reward.__name__}.pt"

    @staticmethod
    def _folder(args: TrainingArguments, state: TrainerState) -> Path:
        """Of the checkpoint at this step."""
        return Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"


def _read(path: Path) -> dict[str, Any]:
    """The state in a file; nothing that stands in it is executed."""
    missing = f"no discriminator at '{path}': the run was saved without it, or give resume_from the folder resumed from"
    require(path.is_file(), missing)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the library raises nothing narrower
        reason = str(error).partition("\n")[0]
        raise InputError(f"'{path}' is no whole state of a discriminator: {reason}") from None
    return state
