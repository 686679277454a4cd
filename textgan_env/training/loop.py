"""What every agent shares: a schedule of named phases, and the loop that runs it, logs it, saves it and shows it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from torch import nn
from torch.optim import Optimizer

from textgan_env.evaluation import diversity, evaluate, likelihoods, nll, sample_texts
from textgan_env.ops.loops import mean
from textgan_env.ops.parallel import (
    cut,
    from_first,
    is_first,
)
from textgan_env.ops.plots import learning_curve
from textgan_env.ops.sampling import derived_generator, derived_seed
from textgan_env.policies import Decoding, PolicyModule
from textgan_env.rewards import Keys, generate
from textgan_env.runs.checkpointing import Checkpointable, CheckpointManager, RunState, with_step
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import MetricLog, Progress, console_line
from textgan_env.tasks import Task
from textgan_env.training.schedule import Round, Schedule
from textgan_env.utils.errors import require
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import CommonConfig, SharedConfig
from textgan_env.utils.stopping import StopSignals

Module = TypeVar("Module", bound=nn.Module)

_LOOKS = 20  # at the policy, where the config does not say
_LOOKED_AT = 1_000  # texts a look writes
_LEAST_ENTROPY = 0.5  # of a policy, as a share of its NLL of real text; the two are alike where it fits
_LEAST_SPREAD = 0.005  # of credits over texts: a discriminator that is unsure spreads probabilities by .05 and more


class Agent(Checkpointable, Protocol):
    """One algorithm. Its step methods, named by its schedule, take a `torch.Generator` and return numbers to log.

    Attributes:
        task: What it learns to write.
        finished: The name, among its modules, of the policy as it would be used now: measured, and shown.
    """

    task: Task
    finished: str

    def schedule(self) -> Schedule:
        """What to do, in which order."""

    def modules(self) -> Mapping[str, nn.Module]:
        """Everything with weights, by the name it has in checkpoints."""

    def optimizers(self) -> Mapping[str, Optimizer]:
        """Likewise."""

    def curves(self) -> dict[str, dict[str, str]]:
        """What the learning curve shows: unit -> logged name -> name of the line."""


def train(agent: Agent, run: RunFolder, config: CommonConfig) -> None:
    """Run an agent's schedule from where its folder stands: log, show, save, and measure the policy at the end.

    All randomness of a step follows from the seed and the step's name, so a run that goes on from a checkpoint does
    what the uninterrupted run does. What is saved when, and what happens at a signal: `textgan_env.runs.checkpointing`.

    Args:
        agent: What learns.
        run: Where everything goes; with a last checkpoint in it, the run goes on from there.
        config: The run's options.

    Raises:
        InputError: If a checkpoint does not fit, or a loss or weight is not finite any more.
        Stopped: If a signal asked for the end; a checkpoint has been written.
        OSError: If a file cannot be written, e.g. on a full disk; the last checkpoint is whole.
    """
    schedule = agent.schedule()
    with StopSignals() as signals:
        keeper = CheckpointManager(agent, run, config, signals)
        keeper.resume()
        done = keeper.state.done
        require(
            done <= schedule.rounds, f"the checkpoint of '{run.path}' has {done:,} of {schedule.rounds:,} rounds done"
        )
        if set(config.overrides) - {"device", "threads"}:
            keeper.state = replace(keeper.state, stopped="")  # asked to go on, and otherwise
        with keeper.guard():
            if not is_first():
                _train_rounds(agent, run, config, schedule, keeper, None)
                return
            log = MetricLog(run.path, resume_at=keeper.state.done)
            run.rewind(keeper.state.done)
            keeper.written_before = (log.force, run.force_samples)
            with log:
                _train_rounds(agent, run, config, schedule, keeper, log)
            keeper.where = ""
            _finish(agent, run, config, log, keeper.state)


def _train_rounds(
    agent: Agent,
    run: RunFolder,
    config: CommonConfig,
    schedule: Schedule,
    keeper: CheckpointManager,
    log: MetricLog | None,
) -> None:
    """The rounds that are left; without a log, beside the process that has it, and looks."""
    shards = config.shards or 1 if isinstance(config, SharedConfig) else 1
    eval_every = config.eval_every or max(1, schedule.rounds // _LOOKS)
    with Progress(schedule.rounds, f"{run.path.name}", initial=keeper.state.done) as bar:
        if keeper.state.done or keeper.state.steps:
            bar.print(f"going on after round {keeper.state.done} and {keeper.state.steps} steps")
        for current in schedule.after(keeper.state.done):
            if keeper.state.stopped:
                break
            for number, (name, repeat) in enumerate(current.steps()):
                if number >= keeper.state.steps:
                    with keeper.step(f"{current}, {name} {repeat + 1}"):
                        values = _step(agent, current, name, repeat, config.seed, shards)
                    keeper.state = with_step(keeper.state, values)
                    keeper.boundary()
            values = _averaged(keeper.state.values)
            bar.update()
            state = replace(keeper.state, done=current.number, steps=0, values={})
            last = current.number == schedule.rounds
            if log is not None and (last or current.index % eval_every == 0):
                values |= _look(agent)
                warnings = _warnings(agent.task, values)
                _show(agent, run, config, current, values, warnings, bar)
                if values["nll_valid"] < state.best:
                    state = replace(state, best=values["nll_valid"], best_round=current.number)
                    keeper.write_best(state)
                if current.phase is schedule.phases[-1]:
                    state = _judged(state, values, config.patience)
                if config.stop_on_collapse and "collapse" in warnings:
                    state = replace(state, stopped=warnings["collapse"])
            if log is not None:
                log.write(current.number, values, current.phase.name)
            state = replace(state, stopped=from_first(state.stopped))
            keeper.state = state
            keeper.boundary(write=last or bool(state.stopped))
        if keeper.state.stopped:
            bar.print(f"stopped after round {keeper.state.done} of {schedule.rounds}: {keeper.state.stopped}")


def _judged(state: RunState, values: Mapping[str, float], patience: int) -> RunState:
    """The state after a look: progress is a new low of NLL-valid, or of D's AUC where an agent reports one."""
    lows = {name: values[name] for name in ("nll_valid", "d_auc") if name in values}
    progress = any(value < state.lows.get(name, math.inf) for name, value in lows.items())
    lows = {name: min(value, state.lows.get(name, math.inf)) for name, value in lows.items()}
    waited = 0 if progress else state.looks_without_progress + 1
    stopped = f"{patience} looks without progress" if 0 < patience <= waited else ""
    return replace(state, lows=lows, looks_without_progress=waited, stopped=stopped)


def run_round(agent: Agent, current: Round, seed: int) -> dict[str, float]:
    """All steps of a round; the numbers to log, averaged where several steps give one."""
    state = RunState()
    for name, repeat in current.steps():
        state = with_step(state, _step(agent, current, name, repeat, seed))
    return _averaged(state.values)


def _step(agent: Agent, current: Round, name: str, repeat: int, seed: int, shards: int = 1) -> dict[str, float]:
    """One step of a round, whose randomness follows from the seed and its name; its batches are cut into shards.

    Raises:
        InputError: If a loss is not finite. (Other numbers may be: what SB3 explains of a constant is NaN.)
    """
    generator = derived_generator(seed, current.phase.name, current.index, name, repeat)
    with cut(shards):
        # Plain numbers, which a checkpoint can hold; libraries give numpy's, too.
        values = {key: float(value) for key, value in getattr(agent, name)(generator).items()}
    for key, value in values.items():
        require("loss" not in key or math.isfinite(value), f"{key} is {value}: try a smaller learning rate")
    return values


def _averaged(values: Mapping[str, Sequence[float]]) -> dict[str, float]:
    return {key: mean(parts) for key, parts in values.items()}


def _look(agent: Agent) -> dict[str, float]:
    """NLLs, cover and fit, diversity: from the valid split and fresh texts, never from the test split."""
    policy, task = _policy(agent), agent.task
    valid_BT = task.split("valid").head(2000).tokens_BT
    keys = Keys.counted(derived_seed(0, "look"), _LOOKED_AT, device=policy.device)
    tokens_BT = generate(policy, keys, task.max_length, end_token=task.end_token)[0].cpu()
    return likelihoods(policy, task, valid_BT, tokens_BT, "valid") | diversity(task, tokens_BT)


def _show(
    agent: Agent,
    run: RunFolder,
    config: CommonConfig,
    current: Round,
    values: Mapping[str, float],
    warnings: Mapping[str, str],
    bar: Progress,
) -> None:
    """Print what a look saw: the numbers that the learning curve shows, some texts, and what is wrong."""
    texts = sample_texts(_policy(agent), agent.task, max(1, config.show_samples), derived_seed(config.seed, "show"))
    run.append_samples(current.number, texts)
    named = {name for lines in agent.curves().values() for name in lines}
    shown = {name: value for name, value in values.items() if name in named}
    label = console_line(current.phase.name, current.index + 1, current.phase.rounds, shown, bar.seconds_left)
    told = [f"warning: {text}" for text in warnings.values()]
    bar.print("\n".join([label, *(f"    {text}" for text in texts[: config.show_samples]), *told]))


def _warnings(task: Task, values: Mapping[str, float]) -> dict[str, str]:
    """What a person should know before the run has ended: the texts become one, or the reward says nothing."""
    real = diversity(task, task.split("valid").head(_LOOKED_AT).tokens_BT)
    found = {}
    if values["unique"] < 0.5 * real["unique"]:
        found["collapse"] = (
            f"the policy collapses: {values['unique']:.0%} of its texts are different, of real ones "
            f"{real['unique']:.0%}"
        )
    elif values.get("nll_self", math.inf) < _LEAST_ENTROPY * values["nll_valid"]:
        found["collapse"] = (
            f"the policy collapses: its entropy is {values['nll_self']:.2f} nats a token, where real text costs it "
            f"{values['nll_valid']:.2f}"
        )
    if values["adjacent_repeats"] > real["adjacent_repeats"] + 0.2:
        found["loops"] = (
            f"the policy loops: {values['adjacent_repeats']:.0%} of its tokens repeat the one before, "
            f"of real ones {real['adjacent_repeats']:.0%}"
        )
    if values.get("credit_spread", 1.0) < _LEAST_SPREAD:
        found["gradient"] = (
            f"the gradient vanishes: credits differ by {values['credit_spread']:.2g} between texts, since the "
            "discriminator is sure of all of them or knows nothing"
        )
    return found


def _finish(agent: Agent, run: RunFolder, config: CommonConfig, log: MetricLog, state: RunState) -> None:
    """Measure the finished policy on the test split, write its samples, draw the curve, and say where everything is."""
    if config.select == "best":
        load_checkpoint(run.best_checkpoint).restore_module(agent.finished, _policy(agent))
    policy = _policy(agent).with_decoding(decoding_of(config))
    result = evaluate(policy, agent.task, seed=config.seed)
    document = result.document()
    document |= {"select": config.select, "round": state.best_round if config.select == "best" else state.done}
    write_safely(run.path / "evaluation.json", json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    texts = [agent.task.text(tokens) for tokens in result.tokens_BT[:20].tolist()]
    write_safely(run.path / "final_samples.txt", "\n".join(texts) + "\n")
    oracle = {"entropy of real text": _entropy(agent.task)} if agent.task.oracle is not None else None
    title = f"{run.path.name} (at temperature 1)"
    learning_curve(log.rows, run.curve_file, lines=agent.curves(), x_label="round", title=title, levels=oracle)
    about = f"{result.settings['samples']:,} texts against the test split, {_told(config)}"
    if config.select == "best":
        print(f"\nThe finished policy is that of round {state.best_round}, whose nll_valid was the lowest.")
    print(f"\nMeasured on {about} (NLLs in nats per token, the rest are shares):\n{result.table()}")
    print(f"\n{len(texts)} texts, as they come, {_told(config)}:")
    print("\n".join(f"    {text}" for text in texts))
    print(f"\nrun folder: {run.path}\nmore texts: textgan sample {run.path} -n 20 --temperature 0.8")
    print(f"watch it write: textgan play {run.path}")


def decoding_of(config: CommonConfig) -> Decoding:
    """How the finished policy is to write."""
    return Decoding(config.temperature, deterministic=config.deterministic)


def _told(config: CommonConfig) -> str:
    return "most probable token always" if config.deterministic else f"temperature {config.temperature:g}"


def _entropy(task: Task) -> float:
    assert task.oracle is not None
    valid_BT = task.split("valid").tokens_BT
    return nll(task.oracle, valid_BT, task.scored(valid_BT))[0]


def _policy(agent: Agent) -> PolicyModule:
    policy = agent.modules()[agent.finished]
    assert isinstance(policy, PolicyModule)
    return policy
