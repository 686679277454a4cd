"""What every agent shares: a schedule of named phases, and the loop that runs it, logs it, saves it and shows it."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Protocol

from textgan_env.evaluation import FEW_LATENT_DRAWS, diversity, likelihoods, stream_texts, valid_share
from textgan_env.ops.parallel import sharded
from textgan_env.ops.sampling import derived_seed
from textgan_env.ops.torchrun import from_first, is_first, processes
from textgan_env.rewards import BudgetSpentError, Keys, generate_scored
from textgan_env.runs.checkpointing import Checkpointable, CheckpointManager, RunState
from textgan_env.runs.checkpoints import Checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import MetricLog, Progress, console_line
from textgan_env.runs.numbers import RoundNumbers
from textgan_env.tasks import Task
from textgan_env.training.finish import asked_by, finish, measure_start, policy_of
from textgan_env.training.schedule import Round, Schedule
from textgan_env.utils.errors import require
from textgan_env.utils.options import CommonConfig, SharedConfig
from textgan_env.utils.stopping import StopSignals

_END_WITHIN = 20.0  # seconds from a signal to the end of one of several processes; torchrun kills them after 30
_EVALUATIONS = 20  # of a run, where the config does not say
_EVALUATED = 1_000  # texts that an evaluation generates, at most
_LEAST_ENTROPY = 0.5  # of a policy, as a share of its NLL of real text; the two are alike where it fits
_LEAST_SPREAD = 0.005  # of credits over texts: a discriminator that is unsure spreads probabilities by .05 and more


class Agent(Checkpointable, Protocol):
    """One algorithm: what it saves, in which order it does what, and what of it is shown."""

    @property
    def curves(self) -> Sequence[str]:
        """What the learning curve shows: names of `textgan_env.ops.metric_table`."""

    def schedule(self) -> Schedule:
        """What to do, in which order: phases of steps, each a method that takes a `Step` and returns numbers to log."""

    def at_evaluation(self) -> dict[str, float]:
        """What an evaluation logs beside the measures of the policy: name -> number."""

    def pace(self) -> str:
        """How long a part of the run takes on this machine, a sentence; "" where it is soon seen."""

    def doubt(self) -> str:
        """What a person should know before the last phase begins, a sentence; "" where there is nothing."""


def train(agent: Agent, run: RunFolder, config: CommonConfig, checkpoint: Checkpoint | None = None) -> None:
    """Run an agent's schedule from where its run stands: log, show, save, and measure the policy at the end.

    All randomness of a step follows from the seed and the step's name, so a run that is resumed from a checkpoint does
    what the uninterrupted run does. What is saved when, and what happens at a signal: `textgan_env.runs.checkpointing`.

    Args:
        agent: What learns.
        run: Where everything goes.
        config: The run's options.
        checkpoint: The newest of the run, from where it is resumed; None: it has none yet.

    Raises:
        InputError: If a checkpoint does not fit, or a loss or weight is not finite any more.
        Stopped: If a signal asked for the end; a checkpoint has been written.
        OSError: If a file cannot be written, e.g. on a full disk; the last checkpoint is whole.
    """
    schedule = agent.schedule()
    with StopSignals() as signals:
        manager = CheckpointManager(agent, run, config, signals)
        manager.resume(checkpoint)
        done = manager.state.done
        too_far = f"the checkpoint of '{run.path}' has {done:,} of {schedule.rounds:,} rounds done"
        require(done <= schedule.rounds, too_far)
        if set(config.overrides) - {"device", "threads"}:
            manager.state = replace(manager.state, stopped="")  # asked to continue, and otherwise
        # Alone there is nobody to wait for, and a long step may end when it will.
        bounded = signals.bounded(_END_WITHIN, manager.last_words) if processes() > 1 else nullcontext()
        with bounded, manager.guard():
            if not is_first():
                _train_rounds(agent, run, config, schedule, manager, None)
                return
            log = MetricLog(run.path, resume_at=manager.state.done)
            run.rewind(manager.state.done)
            manager.logs = (*log.files, run.samples_file)
            with log:
                _train_rounds(agent, run, config, schedule, manager, log)
            manager.where = ""
            finish(agent, run, config, log, manager.state)


def _train_rounds(
    agent: Agent,
    run: RunFolder,
    config: CommonConfig,
    schedule: Schedule,
    manager: CheckpointManager,
    log: MetricLog | None,
) -> None:
    """The rounds that are left; a process without a log computes its shards only."""
    eval_every = config.eval_every or max(1, schedule.rounds // _EVALUATIONS)
    known: Mapping[str, str] = {}  # warnings of the evaluation before: what goes on is not said again
    with Progress(schedule.rounds, run.path.name, initial=manager.state.done) as bar:
        if manager.state.done or manager.state.batches:
            bar.print(f"resuming after round {manager.state.done} and {manager.state.batches} batches")
        if log is not None and manager.state.done < schedule.rounds and (pace := agent.pace()):
            bar.print(pace)
        for current in schedule.after(manager.state.done):
            if manager.state.stopped:
                break
            if log is not None and current.phase is schedule.last_phase and current.index == manager.state.batches == 0:
                _begin_last_phase(agent, run, config, bar, learnt=current.number > 1)
            _do_steps(current, config, manager, bar)
            bar.update(current.number - manager.state.done)
            values = manager.numbers.means() | ({} if (asked := asked_by(agent)) is None else asked.round_numbers())
            last = current.number == schedule.rounds or (current.phase is schedule.last_phase and current.is_last)
            last |= bool(manager.state.stopped)
            state = replace(manager.state, done=current.number, batches=0, values={})
            if log is not None:
                if last or current.index % eval_every == 0:
                    values |= _evaluate(agent, _evaluated(config)) | agent.at_evaluation()
                    warnings = _warnings(agent.task, values, _evaluated(config))
                    fresh = {name: text for name, text in warnings.items() if name not in known}
                    known = warnings
                    _show(agent, run, config, current, values, fresh, bar)
                    state = _updated(state, values, warnings, config, last_phase=current.phase is schedule.phases[-1])
                    if state.best_round == current.number:
                        manager.write_best(state)
                log.write(current.number, values, current.phase.name)
            manager.state = replace(state, stopped=from_first(state.stopped))
            manager.numbers, manager.random = RoundNumbers(), {}
            manager.save_point(write=last or bool(manager.state.stopped))
        if manager.state.stopped:
            bar.print(f"stopped after round {manager.state.done} of {schedule.rounds}: {manager.state.stopped}")


def _begin_last_phase(agent: Agent, run: RunFolder, config: CommonConfig, bar: Progress, *, learnt: bool) -> None:
    """Measure the policy as the last phase finds it, if it has learnt before, and say what a person should know."""
    if learnt or getattr(config, "pretrained", None) is not None:
        bar.print("measuring the policy that this phase begins with ...")
        measure_start(agent, run, config)
    if doubt := agent.doubt():
        bar.print(f"warning: {doubt}")


def _do_steps(current: Round, config: CommonConfig, manager: CheckpointManager, bar: Progress) -> None:
    """The batches of a round that are left, with a save point after each."""
    shards = config.shards or 1 if isinstance(config, SharedConfig) else 1
    for steps, step in current.steps(config.seed, manager.state.batches, manager.random):
        manager.where = f"{current}, {steps.name} {step.repeat + 1}"
        if step.batches > 1:
            manager.where += f", batch {step.batch + 1} of {step.batches}"
        try:
            with sharded(shards):
                manager.numbers.add(steps.run(step))
        except BudgetSpentError as spent:  # what asks comes before what learns: G is whole
            manager.state = replace(manager.state, stopped=str(spent))
            return
        manager.state = replace(manager.state, batches=manager.state.batches + 1)
        manager.random = {} if step.is_last else step.memory.random
        bar.within(min(1.0, manager.state.batches / max(1, current.batches)))
        manager.save_point()


def _updated(
    state: RunState, values: Mapping[str, float], warnings: Mapping[str, str], config: CommonConfig, *, last_phase: bool
) -> RunState:
    """The state after an evaluation: the best round so far, progress of the last phase, and whether to stop.

    Progress is a new low of NLL-valid, or of D's AUC where an agent reports one.
    """
    if values["nll_valid"] < state.best:
        state = replace(state, best=values["nll_valid"], best_round=state.done)
    if last_phase:
        lows = {name: values[name] for name in ("nll_valid", "d_auc") if name in values}
        progress = any(value < state.lows.get(name, math.inf) for name, value in lows.items())
        lows = {name: min(value, state.lows.get(name, math.inf)) for name, value in lows.items()}
        state = replace(state, lows=lows, without_progress=0 if progress else state.without_progress + 1)
        if 0 < config.patience <= state.without_progress:
            state = replace(state, stopped=f"{config.patience} evaluations without progress")
    if config.stop_on_collapse and "collapse" in warnings:
        state = replace(state, stopped=warnings["collapse"])
    return state


def _evaluate(agent: Agent, texts: int = _EVALUATED) -> dict[str, float]:
    """NLLs, cover and fit, diversity: from the valid split and fresh texts, never from the test split."""
    policy, task = policy_of(agent), agent.task
    valid_BT = task.split("valid").head(2000).tokens_BT
    keys = Keys.counted(derived_seed(0, "look"), texts, device=policy.device)
    written = generate_scored(policy, keys, task.max_length, end_token=task.end_token)
    tokens_BT = written.tokens_RT.cpu()
    values = likelihoods(policy, task, valid_BT, tokens_BT, "valid", written.logp_RT, latent_draws=FEW_LATENT_DRAWS)
    return values | diversity(task, tokens_BT) | valid_share(task, tokens_BT)


def _evaluated(config: CommonConfig) -> int:
    """Texts that an evaluation generates: no more than are measured at the end, for policies that write slowly."""
    return min(_EVALUATED, config.eval_samples or _EVALUATED)


def _show(
    agent: Agent,
    run: RunFolder,
    config: CommonConfig,
    current: Round,
    values: Mapping[str, float],
    warnings: Mapping[str, str],
    bar: Progress,
) -> None:
    """Print what an evaluation found: the numbers that the learning curve shows, some texts, and what is wrong."""
    seed, count = derived_seed(config.seed, "show"), max(1, config.show_samples)
    texts = list(stream_texts(policy_of(agent), agent.task, count, seed))
    run.append_samples(current.number, texts)
    shown = {name: value for name, value in values.items() if name in agent.curves}
    label = console_line(current.phase.name, current.index + 1, current.phase.rounds, shown, bar.seconds_left)
    warned = [f"warning: {text}" for text in warnings.values()]
    bar.print("\n".join([label, *(f"    {text}" for text in texts[: config.show_samples]), *warned]))


def _warnings(task: Task, values: Mapping[str, float], texts: int = _EVALUATED) -> dict[str, str]:
    """What a user should know before the run has ended: its texts become one, or the reward says nothing."""
    real = diversity(task, task.split("valid").head(texts).tokens_BT)
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
