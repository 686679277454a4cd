"""From a config to a run that trains."""

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from textgan_env.objectives import names_code
from textgan_env.ops import torchrun
from textgan_env.ops.parallel import require_shards
from textgan_env.runs.checkpointing import files_document, newest_checkpoint, require_saveable
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.loading import resuming
from textgan_env.tasks import Task, make_task, saved_task
from textgan_env.training.finish import decoding_of
from textgan_env.training.loop import Agent, train
from textgan_env.training.threads import choose_threads
from textgan_env.utils.errors import InputError, require, require_at_least
from textgan_env.utils.options import CommonConfig, Config, SharedConfig, evaluation_sizes, saved_options
from textgan_env.utils.printing import say


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
    with torchrun.process_group(), ExitStack() as held:
        if config.resume is not None:
            with torchrun.first_before_others():
                run = RunFolder.open(config.resume)
                if torchrun.is_first():
                    held.enter_context(run.locked())
                config = _config_of(run, config)
        return _launch(_for_processes(config), make_agent, run, held)


def _for_processes(config: Config) -> Config:
    """The config with what follows from the number of processes.

    Raises:
        InputError: If they are too many for the run, or its agent trains in one.
    """
    several = torchrun.processes() > 1
    if several and config.threads is None:
        # torchrun gives each process one thread; so has then the run when it is resumed without it.
        config = replace(config, threads=torch.get_num_threads())
    if isinstance(config, SharedConfig):
        config = replace(config, shards=torchrun.processes() if config.shards is None else config.shards)
        require_shards(config.shards or 0, config.batch_sizes())
    else:
        found = f"found {torchrun.processes()} processes"
        require(not several, f"this agent trains in one process: start it without torchrun, {found}")
    return config


def _launch(
    config: Config, make_agent: Callable[[Config, Task], Agent], run: RunFolder | None, held: ExitStack
) -> RunFolder:
    """`launch`, with the lock on the folder of the run, if there is one already, in ``held``."""
    config = replace(config, device=config.device or "cpu")
    here = replace(config, device=torchrun.own_device(config.device or "cpu"))
    _set_up_torch(here)
    checkpoint = None
    if run is None:
        with torchrun.first_before_others():  # a text that is not here is fetched once
            task = make_task(config.task, **config.task_options())
    else:
        # Its config may be anybody's: no text is fetched for it, and no network is larger than its checkpoint.
        with torchrun.first_before_others():  # a checkpoint that cannot be read is moved out of the way
            checkpoint = newest_checkpoint(run)
        files = (run.about["task"] or {}).get("files") if checkpoint is None else checkpoint.document.get("files")
        described = {"name": config.task, **config.task_options()}
        task = saved_task(described, f"the task of run '{run.path}'", files=files)
        others = getattr(config, "pretrained", None) or getattr(config, "teachers", ())
        began = checkpoint is not None or not others
        require(began, f"run '{run.path}' has no checkpoint yet: begin it again")
    say(task)
    if run is None and config.threads is None and torch.device(here.device or "cpu").type == "cpu":
        held.callback(torch.set_num_threads, torch.get_num_threads())
        threads = choose_threads(lambda: make_agent(here, task), config)
        torch.set_num_threads(threads)
        config, here = (replace(options, threads=threads) for options in (config, here))
    with resuming(checkpoint):
        agent = make_agent(here, task)
    # What would be refused at the end is refused now, before there is a folder.
    agent.schedule()
    decoding_of(config)
    evaluation_sizes(config.preset, config.eval_samples)
    if run is None and torchrun.is_first():
        require_saveable(agent, config)
        agent_name = name_of(type(agent))
        run = RunFolder.create(
            config.runs,
            config.name or f"{agent_name}-{_text_name(config)}",
            agent=agent_name,
            config=asdict(config),
            task={**task.config(), "about": str(task), "files": files_document(task)},
            seed=config.seed,
            device=config.device or "cpu",
        )
        held.enter_context(run.locked())
        if (pretrained := getattr(config, "pretrained", None)) is not None:
            run.keep_pretraining(pretrained)
    run = RunFolder(Path(torchrun.from_first("" if run is None else str(run.path))))
    train(agent, run, config, checkpoint)
    return run


def _text_name(config: CommonConfig) -> str:
    """What a run is called after: the task, or the file of an own text."""
    if config.task != "corpus" or config.corpus is None:
        return config.task
    name = Path(config.corpus).name.partition(".")[0]  # without .txt, .txt.gz
    return re.sub(r"[^\w-]+", "-", name).strip("-")[:40] or "corpus"


def name_of(agent: type[Agent]) -> str:
    """An agent as its runs are called: of class ExpertIteration ``expert-iteration``, of SeqGAN ``seqgan``."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", "-", agent.__name__).lower()


def _config_of(run: RunFolder, given: Config) -> Config:
    """The config a run was made with, and what is given again; a run of another agent or version is refused."""
    saved = saved_options(type(given), run.about["config"], given, f"'{run.path}'")
    _require_objective(run, saved.get("objective"), given)
    saved |= {"resume": None, "overrides": given.overrides}
    overrides = {name: getattr(given, name) for name in given.overrides}
    changed = {name: value for name, value in overrides.items() if value != saved[name]}
    if changed:
        run.record_options(changed)
        say(f"from here on: {', '.join(f'{name} {value}, was {saved[name]}' for name, value in changed.items())}")
    return replace(given, **saved | overrides)


def _require_objective(run: RunFolder, saved: Any, given: Config) -> None:
    """Refuse another objective than the run's, and one of a person's own that was not given again.

    A run folder may be anybody's: code that it names is never loaded.

    Args:
        run: The run that is resumed.
        saved: The objective in its config.
        given: What was typed.
    """
    typed = getattr(given, "objective", None) if "objective" in given.overrides else None
    own = isinstance(saved, str) and names_code(saved)
    again = f"run '{run.path}' is paid by a function of a file, and no file is run because a run folder names it"
    require(not own or typed is not None, f"{again}: give --objective FILE.py:NAME again")
    same = typed is None or typed == saved or (own and names_code(typed))
    require(same, f"a resumed run keeps its objective {saved or '(none)'}: leave out --objective {typed}")


def _set_up_torch(config: CommonConfig) -> None:
    if config.threads is not None:
        require_at_least(1, threads=config.threads)
        require(config.threads <= 1024, f"threads must be at most 1024, found {config.threads}")
        torch.set_num_threads(config.threads)
    # An NVIDIA GPU would round what its LSTMs multiply to 10 bits (TF32): no text would be scored as it was generated.
    # As in products, TF32 is off unless it was asked for: torch.set_float32_matmul_precision("high").
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32
    try:
        float(torch.zeros(1, device=config.device))  # the device 'meta' holds no numbers
        torch.zeros(1, dtype=torch.float64, device=config.device)
    except TypeError:
        needs = "draws need numbers of 64 bits (float64), which it does not have"
        raise InputError(f"device '{config.device}' cannot be used: {needs}") from None
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise InputError(f"device '{config.device}' cannot be used: {str(error).splitlines()[0]}") from None
