"""The finished policy of a run."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from textgan_env.policies import Decoding, PolicyModule
from textgan_env.runs.checkpointing import require_same_run
from textgan_env.runs.checkpoints import Checkpoint, load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.tasks import Task, WordsTask, saved_task
from textgan_env.utils.errors import MissingDataError, require
from textgan_env.utils.reading import get_typed, most_weights, read_typed

#: Tokens of a text whose length only a checkpoint says.
_Length: Any = Annotated[int, Field(ge=1, le=2**16)]
_resumed: ContextVar[Checkpoint | None] = ContextVar("resumed", default=None)


@contextmanager
def resuming(checkpoint: Checkpoint | None) -> Iterator[None]:
    """Make the agent of a run that is resumed: no network is larger than its checkpoint, and no other run is read.

    Args:
        checkpoint: Its newest; None: there is none yet, and nothing is kept from anything.
    """
    if checkpoint is None:
        yield
        return
    token = _resumed.set(checkpoint)
    try:
        with most_weights(sum(tensor.numel() for tensor in checkpoint.all_tensors.values())):
            yield
    finally:
        _resumed.reset(token)


def pretrained_policy(
    run: str | Path, task: Task, *, kinds: Sequence[str] = (), same: Mapping[str, object] | None = None
) -> PolicyModule:
    """The finished policy of a run, to begin with on the same task, at temperature 1.

    Args:
        run: The run folder.
        task: What to generate.
        kinds: Which kinds of policy will do; (): all.
        same: Name -> value: what the policy must have been made with. A discriminator is named by its kind.

    Returns:
        The policy; while a run is `resuming`, whose weights come from its checkpoint, that of the checkpoint.

    Raises:
        InputError: If the run is of another task, its policy is another, or as `load_policy`.
    """
    if (checkpoint := _resumed.get()) is not None:
        return checkpoint.build_policy().with_decoding(Decoding())
    policy = policy_for(task, run, "pre-trained").with_decoding(Decoding())
    fits = not kinds or policy.kind in kinds
    wanted = f"the pre-trained run '{run}' must hold a policy of kind {', '.join(kinds)}, found {policy.kind}"
    require(fits, f"{wanted}; without --pretrained the agent pre-trains its own")
    for name, asked in (same or {}).items():
        value = policy.config()[name]
        value = value["kind"] if isinstance(value, dict) else value
        require(value == asked, f"the pre-trained run '{run}' has {name}={value}; this run asks for {name}={asked}")
    return policy


def teacher_policies(runs: Sequence[str | Path], task: Task) -> list[PolicyModule]:
    """The policies of finished runs on the same task, to learn from, at temperature 1.

    Args:
        runs: The run folders.
        task: What is learnt.

    Returns:
        The policies; while a run is `resuming`, those of its checkpoint.

    Raises:
        InputError: If there is no run, one has not finished or is of another task, or as `load_policy`.
    """
    if (checkpoint := _resumed.get()) is not None:
        teachers = [policy.with_decoding(Decoding()) for policy in checkpoint.build_teachers()]
        same = {(one.vocab_size, one.start_token) for one in teachers} == {(task.vocab_size, task.start_token)}
        require(
            same, f"the teachers in checkpoint '{checkpoint.path}' are of another vocabulary than task '{task.name}'"
        )
        return teachers
    require(len(runs) > 0, "no teacher: give --teachers RUN, the folder of a finished run on the same task, or several")
    for run in runs:
        finished = RunFolder.open(run).evaluation_file.exists()
        require(finished, f"the teacher run '{run}' has not finished: resume it first")
    return [policy_for(task, run, "teacher").with_decoding(Decoding()) for run in runs]


def policy_for(task: Task, run: str | Path, what: str) -> PolicyModule:
    """The finished policy of a run, under the decoding that the run asked for, if it is of this task.

    Args:
        task: What it is to generate.
        run: The run folder.
        what: What an error calls the run.

    Raises:
        InputError: If the task is another or has other words, or as `load_policy`.
    """
    policy, of_run = load_policy(run)
    found, expected = (f"task '{one.name}', V={one.vocab_size}, T={one.max_length}" for one in (of_run, task))
    require(found == expected, f"the {what} run '{run}' is of {found}; expected {expected}")
    same = of_run.vocabulary == task.vocabulary
    require(same, f"the {what} run '{run}' has learnt from a text with other words")
    return policy


def load_policy(run: str | Path) -> tuple[PolicyModule, Task]:
    """The finished policy of a run, and the task it was trained on.

    Args:
        run: The run folder.

    Returns:
        The policy (eval mode) under the decoding that the run asked for, and the task, made again; a `WordsTask` where
        its text is not here.

    Raises:
        InputError: If the folder is not that of a run, or holds no whole checkpoint, or the task's text has changed.
        MissingDataError: If the task's text is not here any more, and its words are not known, either.
    """
    folder = RunFolder.open(run)
    config, of_config = folder.about["config"], f"the config of run '{run}'"
    checkpoint = finished_checkpoint(folder)
    require_same_run(checkpoint, folder)
    policy = checkpoint.build_policy()
    described = get_typed(checkpoint.document, "task", dict, f"the document of checkpoint '{checkpoint.path}'")
    files = checkpoint.document.get("files")
    try:
        task = saved_task(described, f"the task of run '{run}'", files=files, vocab_size=policy.vocab_size)
    except MissingDataError as error:
        task = _without_text(checkpoint, described, error)
    same = checkpoint.vocabulary == task.vocabulary
    require(same, f"the text that run '{run}' was trained on has other words now: put it back as it was")
    lengths = {part.max_length for part in policy.modules() if hasattr(part, "max_length")}
    same = lengths <= {task.max_length} and policy.start_token == task.start_token
    same = same and policy.vocab_size == task.vocab_size
    require(same, f"the policy of run '{run}' is for texts of another length, beginning or vocabulary than its task's")
    temperature = get_typed(config, "temperature", float, of_config)
    deterministic = get_typed(config, "deterministic", bool, of_config)
    return policy.with_decoding(Decoding(temperature, deterministic=deterministic)), task


def _without_text(checkpoint: Checkpoint, described: dict[str, Any], error: MissingDataError) -> Task:
    """The task as far as a checkpoint knows it.

    Raises:
        MissingDataError: As it was, where that is too little: no words, or rules that only a tokenizer has.
        InputError: If the length of texts is none.
    """
    length, vocabulary = checkpoint.document.get("max_length"), checkpoint.vocabulary
    if length is None or vocabulary is None or described.get("tokenizer") is not None:
        raise error from None
    length = read_typed(_Length, length, f"max_length in '{checkpoint.path}'")
    return WordsTask(vocabulary, length, str(error), described)


def finished_checkpoint(run: RunFolder) -> Checkpoint:
    """The checkpoint with the finished policy: the best or the last, as the run was told to select.

    Raises:
        InputError: If there is no whole one.
    """
    best = run.about["config"].get("select") == "best" and run.best_checkpoint.exists()
    return load_checkpoint(run.best_checkpoint if best else run.last_checkpoint, inside=run.path)
