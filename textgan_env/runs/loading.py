"""The finished policy of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from textgan_env.policies import Decoding, PolicyModule
from textgan_env.runs.checkpointing import require_same_run
from textgan_env.runs.checkpoints import Checkpoint, load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.tasks import Task, saved_task
from textgan_env.utils.errors import require
from textgan_env.utils.reading import get_typed


def pretrained_policy(
    run: str | Path, task: Task, *, kinds: Sequence[str] = (), same: Mapping[str, object] | None = None
) -> PolicyModule:
    """The finished policy of a run, to begin with on the same task, at temperature 1.

    Args:
        run: The run folder.
        task: What to generate.
        kinds: Which kinds of policy will do; (): all.
        same: Name -> value: what the policy must have been made with. A discriminator is named by its kind.

    Raises:
        InputError: If the run is of another task, its policy is another, or as `load_policy`.
    """
    policy, of_run = load_policy(run)
    found, expected = (f"task '{one.name}', V={one.vocab_size}, T={one.max_length}" for one in (of_run, task))
    require(found == expected, f"the pre-trained run '{run}' is of {found}; expected {expected}")
    fits = not kinds or policy.kind in kinds
    require(fits, f"the pre-trained run '{run}' must hold a policy of kind {', '.join(kinds)}, found {policy.kind}")
    for name, wanted in (same or {}).items():
        value = policy.config()[name]
        value = value["kind"] if isinstance(value, dict) else value
        require(value == wanted, f"the pre-trained run '{run}' has {name}={value}; this run asks for {name}={wanted}")
    return policy.with_decoding(Decoding())


def load_policy(run: str | Path) -> tuple[PolicyModule, Task]:
    """The finished policy of a run, and the task it was trained on.

    Args:
        run: The run folder.

    Returns:
        The policy (eval mode) under the decoding that the run asked for, and the task, made again.

    Raises:
        InputError: If the folder is not that of a run, or holds no whole checkpoint, or the task's words have changed.
        MissingDataError: If the task's text is not here any more.
    """
    folder = RunFolder.open(run)
    config, of_config = folder.about["config"], f"the config of run '{run}'"
    checkpoint = finished_checkpoint(folder)
    require_same_run(checkpoint, folder)
    policy = checkpoint.build_policy()
    described = get_typed(checkpoint.document, "task", dict, f"the document of checkpoint '{checkpoint.path}'")
    task = saved_task(described, f"the task of run '{run}'", vocab_size=policy.vocab_size)
    same = checkpoint.vocabulary == task.vocabulary
    require(same, f"the text that run '{run}' was trained on has other words now: put it back as it was")
    lengths = {part.max_length for part in policy.modules() if hasattr(part, "max_length")}
    same = lengths <= {task.max_length} and policy.start_token == task.start_token
    same = same and policy.vocab_size == task.vocab_size
    require(same, f"the policy of run '{run}' is for texts of another length, beginning or vocabulary than its task's")
    temperature = get_typed(config, "temperature", float, of_config)
    return policy.with_decoding(
        Decoding(temperature, deterministic=get_typed(config, "deterministic", bool, of_config))
    ), task


def finished_checkpoint(run: RunFolder) -> Checkpoint:
    """The checkpoint with the finished policy: the best or the last, as the run was told to select.

    Raises:
        InputError: If there is no whole one.
    """
    best = run.about["config"].get("select") == "best" and run.best_checkpoint.exists()
    return load_checkpoint(run.best_checkpoint if best else run.last_checkpoint)
