"""What every agent shares: a schedule of named phases, and the loop that runs it, logs it, saves it and shows it."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from textgan_env.evaluation import diversity, evaluate, likelihoods, nll, sample_texts
from textgan_env.ops.metric_table import charts
from textgan_env.ops.parallel import from_first, is_first, sharded
from textgan_env.ops.plots import learning_curve
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies import Decoding, PolicyModule
from textgan_env.rewards import Keys, generate
from textgan_env.runs.checkpointing import Checkpointable, CheckpointManager, RunState
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import MetricLog, Progress, console_line
from textgan_env.runs.numbers import RoundNumbers
from textgan_env.tasks import Task
from textgan_env.training.schedule import Round, Schedule
from textgan_env.utils.errors import require
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import CommonConfig, SharedConfig
from textgan_env.utils.stopping import StopSignals

_EVALUATIONS = 20  # of a run, where the config does not say
_EVALUATED = 1_000  # texts that an evaluation generates
_LEAST_ENTROPY = 0.5  # of a policy, as a share of its NLL of real text; the two are alike where it fits
_LEAST_SPREAD = 0.005  # of credits over texts: a discriminator that is unsure spreads probabilities by .05 and more


class Agent(Checkpointable, Protocol):
    """One algorithm: what it saves, in which order it does what, and what of it is shown."""

    @property
    def curves(self) -> Sequence[str]:
        """What the learning curve shows: names of `textgan_env.ops.metric_table`."""

    def schedule(self) -> Schedule:
        """What to do, in which order: phases of steps, each a method that takes a `Step` and returns numbers to log."""


def train(agent: Agent, run: RunFolder, config: CommonConfig) -> None:
    """Run an agent's schedule from where its folder stands: log, show, save, and measure the policy at the end.

    All randomness of a step follows from the seed and the step's name, so a run that is resumed from a checkpoint does
    what the uninterrupted run does. What is saved when, and what happens at a signal: `textgan_env.runs.checkpointing`.

    Args:
        agent: What learns.
        run: Where everything goes; with a last checkpoint in it, the run is resumed from there.
        config: The run's options.

    Raises:
        InputError: If a checkpoint does not fit, or a loss or weight is not finite any more.
        Stopped: If a signal asked for the end; a checkpoint has been written.
        OSError: If a file cannot be written, e.g. on a full disk; the last checkpoint is whole.
    """
    schedule = agent.schedule()
    with StopSignals() as signals:
        manager = CheckpointManager(agent, run, config, signals)
        manager.resume()
        done = manager.state.done
        require(
            done <= schedule.rounds, f"the checkpoint of '{run.path}' has {done:,} of {schedule.rounds:,} rounds done"
        )
        if set(config.overrides) - {"device", "threads"}:
            manager.state = replace(manager.state, stopped="")  # asked to continue, and otherwise
        with manager.guard():
            if not is_first():
                _train_rounds(agent, run, config, schedule, manager, None)
                return
            log = MetricLog(run.path, resume_at=manager.state.done)
            run.rewind(manager.state.done)
            manager.before_writing = (log.force, run.force_samples)
            with log:
                _train_rounds(agent, run, config, schedule, manager, log)
            manager.where = ""
            _finish(agent, run, config, log, manager.state)


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
    with Progress(schedule.rounds, run.path.name, initial=manager.state.done) as bar:
        if manager.state.done or manager.state.batches:
            bar.print(f"resuming after round {manager.state.done} and {manager.state.batches} batches")
        for current in schedule.after(manager.state.done):
            if manager.state.stopped:
                break
            _do_steps(current, config, manager)
            bar.update(current.number - manager.state.done)
            values = manager.numbers.means()
            last = current.number == schedule.rounds or (current.phase is schedule.phases[-1] and current.is_last)
            state = replace(manager.state, done=current.number, batches=0, values={})
            if log is not None:
                if last or current.index % eval_every == 0:
                    values |= _evaluate(agent)
                    warnings = _warnings(agent.task, values)
                    _show(agent, run, config, current, values, warnings, bar)
                    state = _updated(state, values, warnings, config, last_phase=current.phase is schedule.phases[-1])
                    if state.best_round == current.number:
                        manager.write_best(state)
                log.write(current.number, values, current.phase.name)
            manager.state = replace(state, stopped=from_first(state.stopped))
            manager.numbers, manager.random = RoundNumbers(), {}
            manager.save_point(write=last or bool(manager.state.stopped))
        if manager.state.stopped:
            bar.print(f"stopped after round {manager.state.done} of {schedule.rounds}: {manager.state.stopped}")


def _do_steps(current: Round, config: CommonConfig, manager: CheckpointManager) -> None:
    """The batches of a round that are left, with a save point after each."""
    shards = config.shards or 1 if isinstance(config, SharedConfig) else 1
    for steps, step in current.steps(config.seed, manager.state.batches, manager.random):
        manager.where = f"{current}, {steps.name} {step.repeat + 1}"
        if step.batches > 1:
            manager.where += f", batch {step.batch + 1} of {step.batches}"
        with sharded(shards):
            manager.numbers.add(steps.run(step))
        manager.state = replace(manager.state, batches=manager.state.batches + 1)
        manager.random = {} if step.is_last else step.memory.random
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


def _evaluate(agent: Agent) -> dict[str, float]:
    """NLLs, cover and fit, diversity: from the valid split and fresh texts, never from the test split."""
    policy, task = _policy(agent), agent.task
    valid_BT = task.split("valid").head(2000).tokens_BT
    keys = Keys.counted(derived_seed(0, "look"), _EVALUATED, device=policy.device)
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
    """Print what an evaluation found: the numbers that the learning curve shows, some texts, and what is wrong."""
    texts = sample_texts(_policy(agent), agent.task, max(1, config.show_samples), derived_seed(config.seed, "show"))
    run.append_samples(current.number, texts)
    shown = {name: value for name, value in values.items() if name in agent.curves}
    label = console_line(current.phase.name, current.index + 1, current.phase.rounds, shown, bar.seconds_left)
    warned = [f"warning: {text}" for text in warnings.values()]
    bar.print("\n".join([label, *(f"    {text}" for text in texts[: config.show_samples]), *warned]))


def _warnings(task: Task, values: Mapping[str, float]) -> dict[str, str]:
    """What a user should know before the run has ended: the texts become one, or the reward says nothing."""
    real = diversity(task, task.split("valid").head(_EVALUATED).tokens_BT)
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
    learning_curve(log.rows, run.curve_file, lines=charts(agent.curves), x_label="round", title=title, levels=oracle)
    about = f"{result.settings['samples']:,} texts against the test split, {_decoding_text(config)}"
    if config.select == "best":
        print(f"\nThe finished policy is that of round {state.best_round}, whose nll_valid was the lowest.")
    print(f"\nMeasured on {about} (NLLs in nats per token, the rest are shares):\n{result.table()}")
    print(f"\n{len(texts)} texts, as they come, {_decoding_text(config)}:")
    print("\n".join(f"    {text}" for text in texts))
    print(f"\nrun folder: {run.path}\nmore texts: textgan sample {run.path} -n 20 --temperature 0.8")
    print(f"watch it generate: textgan play {run.path}")


def decoding_of(config: CommonConfig) -> Decoding:
    """How the finished policy is to generate."""
    return Decoding(config.temperature, deterministic=config.deterministic)


def _decoding_text(config: CommonConfig) -> str:
    """The decoding, in words."""
    return "most probable token always" if config.deterministic else f"temperature {config.temperature:g}"


def _entropy(task: Task) -> float:
    """NLL of real text under the oracle that it comes from, nats per token."""
    assert task.oracle is not None
    valid_BT = task.split("valid").tokens_BT
    return nll(task.oracle, valid_BT, task.scored(valid_BT))[0]


def _policy(agent: Agent) -> PolicyModule:
    """The policy as it would be used now."""
    policy = agent.modules[agent.finished]
    assert isinstance(policy, PolicyModule)
    return policy
