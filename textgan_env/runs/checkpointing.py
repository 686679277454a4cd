"""What a run must not lose: how far it is, a snapshot of the newest good state in memory, and checkpoints on the disk.

A run can be resumed from after each batch of a step (`textgan_env.training.schedule`). What a step draws at random
follows from the seed and the step's name. So what is saved is counters, the numbers that the round has given so far,
weights, optimizers, and in the middle of a step the state of torch's global generators, which dropout draws from.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.optim import Optimizer

from textgan_env.discriminators import DiscriminatorModule
from textgan_env.objectives import names_code
from textgan_env.ops.torchrun import all_reduce_max, from_first, is_first, processes
from textgan_env.policies import PolicyModule
from textgan_env.runs.checkpoints import Checkpoint, load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.listing import agent_of
from textgan_env.runs.numbers import RoundNumbers
from textgan_env.runs.snapshot import Snapshot, take_snapshot
from textgan_env.tasks import PLACE_OPTIONS, Task
from textgan_env.utils.errors import InputError, Stopped, require, signal_name
from textgan_env.utils.files import check_lock, force_to_disk
from textgan_env.utils.options import CommonConfig
from textgan_env.utils.printing import say
from textgan_env.utils.programs import typed_path, typed_program
from textgan_env.utils.reading import get_typed, preview, read_typed
from textgan_env.utils.stopping import StopSignals

#: What the names of policies begin with that an agent learns from and never changes: a resumed run makes them again.
TEACHER = "teacher."
_PAUSE = 1.0  # seconds between two snapshots in memory; what a run that is stopped by force loses
_SHARE = 0.02  # of the time, at most, goes into them
_RENAMED = {"steps": "batches", "looks_without_progress": "without_progress"}  # in the state of earlier versions

#: A count.
Natural = Annotated[int, Field(ge=0)]


class Checkpointable(Protocol):
    """What of an agent is saved, and restored.

    Attributes:
        task: What it learns to generate.
        finished: The name, among its modules, of the policy as it would be used now.
        modules: Everything with weights, by the name it has in checkpoints.
        optimizers: By the name each has in checkpoints.
    """

    task: Task
    finished: str
    modules: dict[str, nn.Module]
    optimizers: dict[str, Optimizer]


@dataclass(frozen=True)
class RunState:
    """Where a run stands.

    Attributes:
        done: Rounds done.
        batches: Batches done of the round after them.
        values: The numbers that these batches gave, to be averaged at the round's end.
        best: The lowest NLL on the valid split that an evaluation found.
        best_round: After which round.
        lows: What `patience` compares with; it and what follows are of the last phase alone.
        without_progress: Evaluations since the last progress.
        stopped: Why the schedule ended early; "" while it has not.
    """

    done: Natural = 0
    batches: Natural = 0
    values: Mapping[str, Sequence[float]] = field(default_factory=dict)
    best: float = float("inf")
    best_round: Natural = 0
    lows: Mapping[str, float] = field(default_factory=dict)
    without_progress: Natural = 0
    stopped: str = ""


class CheckpointManager:
    """Keeps a run: restores it, saves it once an interval, and saves it when it is stopped or goes wrong.

    Of several processes all come to the same save points and stop at the same one; the first alone saves.

    Args:
        agent: What learns.
        run: Where checkpoints go.
        config: The run's options.
        signals: What may ask it to end.

    Attributes:
        state: Where the run stands; replace it, then call `save_point`.
        numbers: What the batches of the round have given so far.
        random: State of torch's global generators in the middle of a step, by name; empty elsewhere.
        where: Which step was taken last, for a message; "" before and after all of them.
        logs: Files that must be on the disk before a checkpoint says that what they hold is done.
    """

    def __init__(self, agent: Checkpointable, run: RunFolder, config: CommonConfig, signals: StopSignals) -> None:
        self.state = RunState()
        self.numbers = RoundNumbers()
        self.random: Mapping[str, Tensor] = {}
        self.where = ""
        self.logs: Sequence[Path] = ()
        self._agent, self._run, self._config, self._signals = agent, run, config, signals
        self._snapshot: Snapshot | None = None
        self._on_disk: Snapshot | None = None
        self._taken_at = self._written_at = time.monotonic()
        self._pause = _PAUSE
        self._document = _document_of(agent, config)

    def resume(self, checkpoint: Checkpoint | None) -> None:
        """Bring the agent and the state back to a checkpoint, or write a first one.

        Args:
            checkpoint: The run's `newest_checkpoint`.

        Raises:
            InputError: If it does not fit.
        """
        if checkpoint is not None:
            require_same_run(checkpoint, self._run)
            _require_same_agent(checkpoint, self._document)
            checkpoint.require_vocabulary(self._agent.task.vocabulary)
            for name, module in self._agent.modules.items():
                checkpoint.restore_module(name, module)
            for name, optimizer in self._agent.optimizers.items():
                checkpoint.restore_optimizer(name, optimizer)
            self.state = _state_in(checkpoint)
            self.numbers = RoundNumbers(self.state.values)
            self.random = checkpoint.tensors
        self._take()
        self._on_disk = self._snapshot if checkpoint is not None else None
        self.write()  # where there is none: from now on the run needs nothing but itself

    def save_point(self, *, write: bool = False) -> None:
        """The run could be resumed from here: see whether it is to be saved, or to end.

        Args:
            write: Save it in any case.

        Raises:
            InputError: If a weight or a loss is not finite any more.
            Stopped: If a signal asked for the end.
            OSError: If a checkpoint cannot be written.
        """
        now = time.monotonic()
        due = now - self._written_at >= self._config.checkpoint_every
        with self._signals.held():
            asked = all_reduce_max(self._signals.requested or 0)
        if due or write or asked or now - self._taken_at >= self._pause:
            self._take()
            cost = time.monotonic() - now
            self._pause = max(_PAUSE, cost / _SHARE)
        if due or write:
            self.write()
        if asked:
            self._signals.close()
            self.write()
            from_first(None)  # has written; the end of another process would end it, too
            self._signals.requested = asked
            self._signals.check()

    def write(self) -> None:
        """Write the newest snapshot, unless it is on the disk; the last checkpoint becomes the previous one."""
        if self._snapshot is None or self._snapshot is self._on_disk:
            return
        for log in self.logs:
            force_to_disk(log)
        self._snapshot.write(self._run.last_checkpoint, keep=self._run.previous_checkpoint)
        self._on_disk = self._snapshot
        self._written_at = time.monotonic()

    def write_best(self, state: RunState) -> None:
        """Write the agent as it is now as the best one.

        Args:
            state: Where the run stands when the round is over.

        Raises:
            OSError: If it cannot be written.
        """
        _snapshot_of(self._agent, self._document, state, {}).write(self._run.best_checkpoint)

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Whatever ends the work inside: the newest good state is written, and the message says how to resume.

        Raises:
            Stopped: If a signal ended it.
            InputError: If the work could not continue, e.g. because a number was not finite.
        """
        try:
            yield
        except OSError:
            # A full disk, most likely, whose last checkpoint is whole; or the reader of what is printed went away.
            self._signals.close()
            with suppress(OSError):
                self.write()
            raise
        except BaseException as error:
            self._signals.close()
            self.write()
            if isinstance(error, Stopped):
                raise Stopped(error.number, self._stopped_by(error.number)) from None
            if isinstance(error, InputError):
                said = f"{self.where}: {error}; from before that, {self._how_to_resume()}" if self.where else str(error)
                raise InputError(said) from None
            raise

    def last_words(self, number: int) -> None:
        """Say how to resume, when a signal ends this process where it is; nothing can be written any more.

        Args:
            number: Of the signal.
        """
        if is_first():
            say(self._stopped_by(number), file=sys.stderr)

    def _stopped_by(self, number: int) -> str:
        return f"stopped by {signal_name(number)}; {self._how_to_resume()}"

    def _how_to_resume(self) -> str:
        own = getattr(self._config, "objective", None)
        again = f" --objective {shlex.quote(own)}" if own is not None and names_code(own) else ""
        return f"to resume: {command_to_resume(self._run)}{again}"

    def _take(self) -> None:
        """Make a snapshot the newest good state.

        Raises:
            InputError: If a weight or a loss is not finite.
        """
        if not is_first():
            return
        for name, module in self._agent.modules.items():
            for key, parameter in module.named_parameters():
                finite = bool(torch.isfinite(parameter).all())
                require(finite, f"weight '{name}/{key}' holds NaN or infinity: try a smaller learning rate")
        state = replace(self.state, values=self.numbers.lists())
        self._snapshot = _snapshot_of(self._agent, self._document, state, self.random)
        self._taken_at = time.monotonic()


def require_saveable(agent: Checkpointable, config: CommonConfig) -> None:
    """Refuse an agent whose checkpoints could not be read back, before anything is learnt; see `Snapshot`."""
    _snapshot_of(agent, _document_of(agent, config), RunState(), {}).require_readable()


def _snapshot_of(
    agent: Checkpointable, document: Mapping[str, Any], state: RunState, tensors: Mapping[str, Tensor]
) -> Snapshot:
    """A copy of everything that a checkpoint holds."""
    return take_snapshot(
        modules=agent.modules,
        optimizers=agent.optimizers,
        document={**document, "state": asdict(state)},
        vocabulary=agent.task.vocabulary,
        tensors=tensors,
    )


def _document_of(agent: Checkpointable, config: CommonConfig) -> dict[str, Any]:
    """What a checkpoint says of an agent, as long as it runs."""
    policies: dict[str, Any] = {
        name: {"module": name, "kind": policy.kind, "config": policy.config()}
        for name, policy in agent.modules.items()
        if isinstance(policy, PolicyModule)
    }
    return {
        "agent": type(agent).__name__,
        "config": json.loads(json.dumps(asdict(config), default=str)),  # paths as text
        "task": agent.task.config(),
        "max_length": agent.task.max_length,
        "files": files_document(agent.task),
        "policy": policies[agent.finished],
        "teachers": [policy for name, policy in policies.items() if name.startswith(TEACHER)],
        "discriminators": {
            name: {"kind": module.kind, **module.config()}
            for name, module in agent.modules.items()
            if isinstance(module, DiscriminatorModule)
        },
    }


def files_document(task: Task) -> dict[str, Any] | None:
    """The hashes of a task's files as JSON; None where nobody knows whether they are those of the run."""
    if task.files is None or not task.proven:
        return None
    return {option: asdict(known) for option, known in task.files.items()}


def command_to_resume(run: RunFolder) -> str:
    """What is typed to resume a run."""
    script = sys.argv[0]
    if script.endswith(".py"):
        words = typed_path(script)
        program = "" if processes() > 1 else f"{typed_program('python')} "
    else:
        name, _, rest = script.partition(" ")  # textgan train AGENT
        words = f"{typed_program(name)} {rest}" if rest else typed_path(script)
        program = "--no-python " if processes() > 1 else ""
    several = f"{typed_program('torchrun')} --nproc-per-node {processes()} " if processes() > 1 else ""
    return f"{several}{program}{words} --resume {typed_path(run.path)}"


def newest_checkpoint(run: RunFolder) -> Checkpoint | None:
    """The last checkpoint or, where it cannot be read, the one before it; an unreadable one is moved out of the way.

    Returns:
        None where there is none yet.

    Raises:
        InputError: If none of those that are there can be read.
    """
    paths = [path for path in (run.last_checkpoint, run.previous_checkpoint) if os.path.lexists(path)]
    broken: list[str] = []
    for path in paths:
        try:
            checkpoint = load_checkpoint(path, inside=run.path)
        except InputError as error:
            broken.append(str(error))
            continue
        if broken:
            aside = run.last_checkpoint.with_name("unreadable.safetensors")
            check_lock(aside)
            os.replace(run.last_checkpoint, aside)
            say(f"warning: {broken[0]}; it is now '{aside.name}', and the run resumes from '{path.name}'")
        return checkpoint
    require(not broken, f"{'; '.join(broken)}: there is no checkpoint to resume from")
    return None


def require_same_run(checkpoint: Checkpoint, run: RunFolder) -> None:
    """Refuse a checkpoint that was put into the folder of another run.

    Raises:
        InputError: If its agent, task, preset or seed is another.
    """
    document = f"the document of checkpoint '{checkpoint.path}'"
    config, agent = get_typed(checkpoint.document, "config", dict, document), checkpoint.document.get("agent")
    expected = run.about["config"]
    for name in ("task", "preset", "seed"):
        found = config.get(name)
        same = found == expected.get(name)
        require(same, f"{document} has {name} {preview(found)}, but run '{run.path}' has {preview(expected.get(name))}")
    of_run = agent_of(run.about)
    # A name of several words has hyphens; runs of earlier versions have none there.
    same = isinstance(agent, str) and of_run.replace("-", "").startswith(agent.lower())
    require(same, f"{document} is of the agent {preview(agent)}, but run '{run.path}' is of {preview(of_run)}")


def _require_same_agent(checkpoint: Checkpoint, document: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose task or policy is not this run's; where their files lie may have changed."""
    of_checkpoint = f"the document of checkpoint '{checkpoint.path}'"
    for name in ("task", "policy"):
        expected: dict[str, Any] = json.loads(json.dumps(document[name]))  # as JSON gives it back
        found = get_typed(checkpoint.document, name, dict, of_checkpoint)
        keys = (found.keys() | expected.keys()) - set(PLACE_OPTIONS)
        of_other = sorted(key for key in keys if found.get(key) != expected.get(key))
        by_its = ", ".join(of_other)[:200]
        require(not of_other, f"{of_checkpoint} describes another {name} than this run's, by its {by_its}")
    files = checkpoint.document.get("files")
    same = files is None or files == document["files"]
    require(same, f"{of_checkpoint} has other hashes of the files of its task than this run")


def _state_in(checkpoint: Checkpoint) -> RunState:
    """Where the run stands by its checkpoint.

    Raises:
        InputError: If a part of it is missing or of another kind.
    """
    where = f"the state in checkpoint '{checkpoint.path}'"
    saved = get_typed(checkpoint.document, "state", dict, f"the document of checkpoint '{checkpoint.path}'")
    if "steps" in saved:  # of an earlier version, whose rounds were counted otherwise inside
        require(saved["steps"] == 0, f"{where} was saved in the middle of a round by an earlier version")
        saved = {_RENAMED.get(name, name): value for name, value in saved.items()}
    missing = sorted({known.name for known in fields(RunState)} - saved.keys())
    require(not missing, f"{where} has no {', '.join(missing)}")
    return read_typed(RunState, saved, where)
