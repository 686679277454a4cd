"""From a config to a run that trains."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from textgan_env.ops.parallel import (
    first_before_others,
    from_first,
    is_first,
    own_device,
    process_group,
    processes,
    require_shards,
)
from textgan_env.runs.checkpointing import newest_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.tasks import Task, make_task, saved_task
from textgan_env.training.loop import Agent, decoding_of, train
from textgan_env.utils.errors import InputError, require, require_at_least
from textgan_env.utils.options import RENAMED, CommonConfig, Config, SharedConfig
from textgan_env.utils.reading import most_weights, read_typed


def launch(config: Config, make_agent: Callable[[Config, Task], Agent]) -> RunFolder:
    """Make task, agent and run folder as a config says, and train; or resume the run that it names.

    Started by torchrun in several processes, all train and the first keeps the run: see `textgan_env.ops.parallel`.

    Args:
        config: From the command line.
        make_agent: Makes the agent.

    Returns:
        The folder of the finished run.

    Raises:
        InputError: If an option, a file or a checkpoint is refused, or another process trains in the folder.
    """
    run = None
    with process_group(), ExitStack() as held:
        if config.resume is not None:
            with first_before_others():
                run = RunFolder.open(config.resume)
                if is_first():
                    held.enter_context(run.locked())
                config = _config_of(run, config)
        return _launch(_for_processes(config), make_agent, run, held)


def _for_processes(config: Config) -> Config:
    """The config with what follows from the number of processes.

    Raises:
        InputError: If they are too many for the run, or its agent trains in one.
    """
    several = processes() > 1
    if several and config.threads is None:
        # torchrun gives each process one thread; so has then the run when it is resumed without it.
        config = replace(config, threads=torch.get_num_threads())
    if isinstance(config, SharedConfig):
        config = replace(config, shards=processes() if config.shards is None else config.shards)
        require_shards(config.shards or 0, config.batch_sizes())
    else:
        found = f"found {processes()} processes"
        require(not several, f"this agent trains in one process: start it without torchrun, {found}")
    return config


def _launch(
    config: Config, make_agent: Callable[[Config, Task], Agent], run: RunFolder | None, held: ExitStack
) -> RunFolder:
    """`launch`, with the lock on the folder of the run, if there is one already, in ``held``."""
    config = replace(config, device=config.device or "cpu")
    here = replace(config, device=own_device(config.device or "cpu"))
    _set_up_torch(here)
    if run is None:
        with first_before_others():  # a text that is not here is fetched once
            task = make_task(config.task, **config.task_options())
        print(task, flush=True)
        agent = make_agent(here, task)
    else:
        # Its config may be anybody's: no text is fetched for it, and no network is larger than its checkpoint.
        task = saved_task({"name": config.task, **config.task_options()}, f"the task of run '{run.path}'")
        print(task, flush=True)
        with first_before_others():  # a checkpoint that cannot be read is moved out of the way
            weights = _weights_in(run)
        with most_weights(weights):
            agent = make_agent(here, task)
    # What would be refused at the end is refused now, before there is a folder.
    agent.schedule()
    decoding_of(config)
    if run is None and is_first():
        run = RunFolder.create(
            config.runs,
            f"{type(agent).__name__.lower()}-{config.task}",
            config=asdict(config),
            task={**task.config(), "about": str(task)},
            seed=config.seed,
            device=config.device or "cpu",
        )
        held.enter_context(run.locked())
    run = RunFolder(Path(from_first("" if run is None else str(run.path))))
    train(agent, run, config)
    return run


def _config_of(run: RunFolder, given: Config) -> Config:
    """The config a run was made with, and what is given again; a run of another agent or version is refused."""
    saved: dict[str, Any] = {RENAMED.get(name, name): value for name, value in run.about["config"].items()}
    saved = {name: getattr(given, name) for name in given.added if hasattr(given, name)} | saved
    different = sorted(set(saved) ^ {field.name for field in fields(given)})
    named = ", ".join(different[:4]) + (f" and {len(different) - 4} others" if len(different) > 4 else "")
    require(not different, f"'{run.path}' was not made by this agent in this version: its config differs in {named}")
    read = read_typed(type(given), saved, f"the config of run '{run.path}'")
    saved = {field.name: getattr(read, field.name) for field in fields(given)} | {
        "resume": None,
        "overrides": given.overrides,
    }
    overrides = {name: getattr(given, name) for name in given.overrides}
    changed = {name: value for name, value in overrides.items() if value != saved[name]}
    if changed:
        run.record_options(changed)
        print(f"from here on: {', '.join(f'{name} {value}, was {saved[name]}' for name, value in changed.items())}")
    return replace(given, **saved | overrides)


def _weights_in(run: RunFolder) -> int:
    """How many weights the newest checkpoint of a run holds; where there is none yet, any number may be."""
    checkpoint = newest_checkpoint(run)
    return 2**62 if checkpoint is None else sum(tensor.numel() for tensor in checkpoint.all_tensors.values())


def _set_up_torch(config: CommonConfig) -> None:
    if config.threads is not None:
        require_at_least(1, threads=config.threads)
        require(config.threads <= 1024, f"threads must be at most 1024, found {config.threads}")
        torch.set_num_threads(config.threads)
    try:
        float(torch.zeros(1, device=config.device))  # the device 'meta' holds no numbers
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise InputError(f"device '{config.device}' cannot be used: {str(error).splitlines()[0]}") from None
