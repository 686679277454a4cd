"""What every agent shares: a schedule of named phases, and the loop that runs it, logs it, saves it and shows it."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn
from torch.optim import Optimizer

from textgan_env.checkpoints import Checkpoint, load_checkpoint
from textgan_env.discriminators import DiscriminatorModule, ReplayedTexts, fit_discriminator, judge_report
from textgan_env.errors import InputError, require
from textgan_env.evaluation import diversity, evaluate, likelihoods, nll, sample_texts
from textgan_env.files import write_safely
from textgan_env.keeping import Keeper, Kept, RunState, newest_checkpoint, require_same_run, with_step
from textgan_env.logs import MetricLog, Progress, console_line
from textgan_env.loops import each, mean
from textgan_env.losses import nll_per_token
from textgan_env.options import CommonConfig, Config, SharedConfig
from textgan_env.parallel import (
    backward,
    cut,
    first_before_others,
    from_first,
    is_first,
    joined,
    own_device,
    processes,
    require_shards,
)
from textgan_env.policies import Decoding, LaggedCopy, LSTMPolicy, PolicyModule
from textgan_env.reading import fits, member, most_weights, shown, told
from textgan_env.render import learning_curve
from textgan_env.rollouts import Keys, write
from textgan_env.runs import RunFolder
from textgan_env.sampling import derived_generator, derived_seed, evaluating, fold, sample_categorical
from textgan_env.stopping import StopSignals
from textgan_env.tasks import Task, make_task, saved_task

Module = TypeVar("Module", bound=nn.Module)

_LOOKS = 20  # at the policy, where the config does not say
_LOOKED_AT = 1_000  # texts a look writes
_LEAST_ENTROPY = 0.5  # of a policy, as a share of its NLL of real text; the two are alike where it fits
_LEAST_SPREAD = 0.005  # of credits over texts: a discriminator that is unsure spreads probabilities by .05 and more


@dataclass(frozen=True)
class Phase:
    """A named part of a schedule.

    Attributes:
        name: For example "mle" or "adversarial".
        rounds: How many rounds it has; checkpoints and log rows stand between rounds.
        steps: What one round does: (method of the agent, how many times), in order.
        last_step: A method of the agent that the last round ends with, or "".
    """

    name: str
    rounds: int
    steps: tuple[tuple[str, int], ...]
    last_step: str = ""

    def steps_of(self, index: int) -> tuple[tuple[str, int], ...]:
        """What round ``index`` does."""
        is_last = index == self.rounds - 1
        return (*self.steps, (self.last_step, 1)) if self.last_step and is_last else self.steps


@dataclass(frozen=True)
class Round:
    """One round of a phase.

    Attributes:
        phase: The phase.
        index: Which round of the phase, from 0.
        number: Which round of the run, from 1.
    """

    phase: Phase
    index: int
    number: int

    def steps(self) -> list[tuple[str, int]]:
        """(method of the agent, which time in the round, from 0), in order."""
        named = self.phase.steps_of(self.index)
        return [(name, repeat) for name, times in named for repeat in range(times)]

    def __str__(self) -> str:
        return f"round {self.index + 1} of {self.phase.rounds} ({self.phase.name})"


class Schedule:
    """Phases one after the other, as rounds that are counted through the whole run.

    Args:
        phases: In order; a phase of 0 rounds is left out.

    Raises:
        InputError: If a phase has a negative number of rounds, two have one name (the name seeds its random numbers),
            or there is no round at all.
    """

    def __init__(self, phases: tuple[Phase, ...]) -> None:
        for phase in phases:
            require(phase.rounds >= 0, f"phase '{phase.name}' must have at least 0 rounds, found {phase.rounds}")
        names = [phase.name for phase in phases]
        require(len(set(names)) == len(names), f"phases must have different names, found {', '.join(names)}")
        self.phases = phases
        self.rounds = sum(phase.rounds for phase in phases)
        require(self.rounds >= 1, "nothing to do: every phase of the schedule has 0 rounds")

    def after(self, done: int) -> Iterator[Round]:
        """The rounds that are left when ``done`` rounds of the run are."""
        number = 0
        for phase in self.phases:
            for index in range(phase.rounds):
                number += 1
                if number > done:
                    yield Round(phase, index, number)


class Patience(nn.Module):
    """Says when a phase has stopped helping; its memory is in checkpoints like any module's weights.

    Args:
        rounds: Rounds without a better value after which it is over; 0: never.
    """

    def __init__(self, rounds: int) -> None:
        super().__init__()
        self.rounds = rounds
        self.best: torch.Tensor
        self.rounds_since: torch.Tensor
        self.register_buffer("best", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("rounds_since", torch.tensor(0))

    def note(self, value: float) -> None:
        """Take the value of a round; lower is better."""
        better = value < float(self.best)
        self.rounds_since.copy_(torch.zeros_like(self.rounds_since) if better else self.rounds_since + 1)
        self.best.clamp_(max=value)

    @property
    def over(self) -> bool:
        """Whether the last rounds brought nothing."""
        return 0 < self.rounds <= int(self.rounds_since)


class Agent(Kept, Protocol):
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
    what the uninterrupted run does. What is saved when, and what happens at a signal: `textgan_env.keeping`.

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
        keeper = Keeper(agent, run, config, signals)
        keeper.resume()
        done = keeper.state.done
        require(
            done <= schedule.rounds, f"the checkpoint of '{run.path}' has {done:,} of {schedule.rounds:,} rounds done"
        )
        if set(config.anew) - {"device", "threads"}:
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
    agent: Agent, run: RunFolder, config: CommonConfig, schedule: Schedule, keeper: Keeper, log: MetricLog | None
) -> None:
    """The rounds that are left; without a log, beside the process that has it, and looks."""
    shards = config.shards or 1 if isinstance(config, SharedConfig) else 1
    look_every = config.look_every or max(1, schedule.rounds // _LOOKS)
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
            if log is not None and (last or current.index % look_every == 0):
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
    tokens_BT = write(policy, keys, task.max_length, end_token=task.end_token)[0].cpu()
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
    elif values["nll_self"] < _LEAST_ENTROPY * values["nll_valid"]:
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
    policy = _policy(agent).with_decoding(_decoding(config))
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


def _decoding(config: CommonConfig) -> Decoding:
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


def launch(config: Config, make_agent: Callable[[Config, Task], Agent]) -> RunFolder:
    """Make task, agent and run folder as a config says, and train; or go on with the run that it names.

    Started by torchrun in several processes, all train and the first keeps the run: see `textgan_env.parallel`.

    Args:
        config: From the command line.
        make_agent: Makes the agent.

    Returns:
        The folder of the finished run.

    Raises:
        InputError: If an option, a file or a checkpoint is refused, or another process trains in the folder.
    """
    run = None
    with joined(), ExitStack() as held:
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
        # torchrun gives each process one thread; so has then whoever goes on with the run without it.
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
    _decoding(config)
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


def mle_epoch(
    policy: PolicyModule,
    optimizer: Optimizer,
    task: Task,
    *,
    batch_size: int,
    clip_norm: float,
    generator: torch.Generator,
    after_step: Callable[[], None] | None = None,
    own_share: float = 0.0,
) -> float:
    """One pass over the training texts by maximum likelihood, in a fresh order, dropout on.

    Args:
        policy: Learns; it is in training mode afterwards.
        optimizer: Of its weights.
        task: Gives the texts; PAD and unknown words are not learnt.
        batch_size: Texts a step.
        clip_norm: Largest norm of the gradient.
        generator: Of the order and of dropout.
        after_step: Called after each step.
        own_share: Share of the tokens read that are the policy's own (scheduled sampling).

    Returns:
        The mean of the losses, nats per token.

    Raises:
        InputError: If one is not finite, or tokens of its own are asked of a policy that cannot read others than it is
            to write.
    """

    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor | None]]:
        for tokens_BT, _ in task.split("train").batches(batch_size, generator):
            yield tokens_BT, mixed_inputs(policy, tokens_BT, own_share, generator) if own_share else None

    def learn_from(batch: tuple[torch.Tensor, torch.Tensor | None]) -> tuple[torch.Tensor]:
        tokens_BT, read_BT = batch
        loss = mle_step(policy, optimizer, task, tokens_BT, clip_norm, read_BT)
        if after_step is not None:
            after_step()
        return (loss,)

    policy.train()
    seed = fold(generator)
    seen = each(batches(), learn_from, ("loss",), seed=seed)
    return mean(seen["loss"])


def mle_step(
    policy: PolicyModule,
    optimizer: Optimizer,
    task: Task,
    tokens_BT: torch.Tensor,
    clip_norm: float,
    read_BT: torch.Tensor | None = None,
) -> torch.Tensor:
    """One step of maximum likelihood on some real texts, in the mode (dropout) that the policy is in.

    Args:
        policy: Learns.
        optimizer: Of its weights.
        task: Says which tokens count.
        tokens_BT: int64.
        clip_norm: Largest norm of the gradient.
        read_BT: int64; what it reads before each token, where that is not the text itself (`mixed_inputs`).

    Returns:
        The loss before the step, nats per token, float scalar.
    """
    tokens_BT = tokens_BT.to(policy.device)
    mask_BT = task.scored(tokens_BT)

    def share_of(rows: slice) -> tuple[torch.Tensor]:
        if read_BT is None:
            logp_bT = policy.log_prob(tokens_BT[rows], mask_BT[rows])
        else:
            require(isinstance(policy, LSTMPolicy), f"a {policy.kind} policy cannot learn by scheduled sampling")
            assert isinstance(policy, LSTMPolicy)
            logp_bT = policy.log_prob_after(read_BT[rows], tokens_BT[rows], mask_BT[rows])
        return (nll_per_token(logp_bT, mask_BT[rows], mask_BT),)

    optimizer.zero_grad()
    weights = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    (loss,) = backward(weights, len(tokens_BT), share_of, dropout=True)
    torch.nn.utils.clip_grad_norm_(policy.parameters(), clip_norm)
    optimizer.step()
    return loss


def mixed_inputs(
    policy: PolicyModule, tokens_BT: torch.Tensor, own_share: float, generator: torch.Generator
) -> torch.Tensor:
    """Texts in which a share of the tokens is drawn from the policy, each given the mixed ones before it.

    Scheduled sampling (Bengio et al. 2015): the coin is thrown for each token. An end is never drawn away: PAD, and
    the token before it, stay.

    Args:
        policy: Draws, dropout off.
        tokens_BT: int64; real texts.
        own_share: Probability that a token is drawn.
        generator: Of coins and draws.

    Returns:
        int64 (B, T).
    """
    tokens_BT = tokens_BT.to(policy.device)
    coins_BT = torch.rand(tokens_BT.shape, generator=generator).to(policy.device) < own_share
    coins_BT &= torch.roll(tokens_BT, -1, 1) != policy.vocab_size
    uniform_BT = torch.rand(tokens_BT.shape, generator=generator, dtype=torch.float64).to(policy.device)
    mixed_BT = tokens_BT.clone()
    with torch.no_grad(), evaluating(policy):
        state, last_B = policy.begin(len(tokens_BT)), torch.full_like(tokens_BT[:, 0], policy.start_token)
        for position in range(tokens_BT.shape[1] - 1):  # nothing is read after the last token
            logits_BV, state = policy.step(last_B, state)
            drawn_B = sample_categorical(logits_BV, uniform_BT[:, position], overwrite=True)
            last_B = torch.where(coins_BT[:, position], drawn_B, tokens_BT[:, position])
            mixed_BT[:, position] = last_B
    return mixed_BT


def update_average(average: LaggedCopy[Module], policy: Module, optimizer: Optimizer) -> None:
    """Move an average of weights after a step of the optimizer; it forgets the random start within an epoch."""
    steps = float(next(iter(optimizer.state.values()))["step"])
    average.update(policy, min(average.rate, steps / (steps + 10)))


def refit_discriminator(
    discriminator: DiscriminatorModule,
    optimizer: Optimizer,
    policy: PolicyModule,
    task: Task,
    *,
    epochs: int,
    batch_size: int,
    generator: torch.Generator,
    replay: ReplayedTexts | None = None,
) -> dict[str, float]:
    """A d-step: refit D on as many fresh texts of G as there are training texts, and ask it about unseen ones.

    Args:
        discriminator: D.
        optimizer: Of D.
        policy: G, at the temperature it is to write at.
        task: Gives real text: the train split to learn, the valid split to ask about.
        epochs: Passes over both.
        batch_size: Texts of each side in a step.
        generator: Of the texts, their order and dropout.
        replay: Keeps half of the negatives of the fit before; None: all are fresh.

    Returns:
        ``d_loss`` while fitting; ``d_auc``, ``d_accuracy`` and ``d_value`` on texts that neither D nor G has seen.
    """
    real_BT, held_out_BT = task.writable("train").to(policy.device), task.writable("valid").to(policy.device)
    keys = Keys.counted(fold(generator), len(real_BT) + len(held_out_BT), device=policy.device)
    written_BT = write(policy, keys, task.max_length, end_token=task.end_token)[0]
    fresh_BT, unseen_BT = written_BT.tensor_split([len(real_BT)])
    fit = fit_discriminator(
        discriminator,
        optimizer,
        real_BT,
        fresh_BT if replay is None else replay.renew(fresh_BT, generator),
        steps=epochs * math.ceil(len(real_BT) / batch_size),
        batch_size=batch_size,
        generator=generator,
    )
    report = judge_report(discriminator, held_out_BT, unseen_BT)
    return {"d_loss": fit.loss, "d_auc": report.auc, "d_accuracy": report.accuracy, "d_value": report.value}


def pretrained_policy(run: str | Path, task: Task) -> PolicyModule:
    """The finished policy of a run, to begin with on the same task, at temperature 1.

    Raises:
        InputError: If the run is of another task, or as `load_policy`.
    """
    policy, of_run = load_policy(run)
    found, expected = (f"task '{one.name}', V={one.vocab_size}, T={one.max_length}" for one in (of_run, task))
    require(found == expected, f"the pre-trained run '{run}' is of {found}; expected {expected}")
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
    described = member(checkpoint.document, "task", dict, f"the document of checkpoint '{checkpoint.path}'")
    task = saved_task(described, f"the task of run '{run}'", vocab_size=policy.vocab_size)
    same = checkpoint.vocabulary == task.vocabulary
    require(same, f"the text that run '{run}' was trained on has other words now: put it back as it was")
    lengths = {part.max_length for part in policy.modules() if hasattr(part, "max_length")}
    same = lengths <= {task.max_length} and policy.start_token == task.start_token
    same = same and policy.vocab_size == task.vocab_size
    require(same, f"the policy of run '{run}' is for texts of another length, beginning or vocabulary than its task's")
    temperature = member(config, "temperature", float, of_config)
    return policy.with_decoding(
        Decoding(temperature, deterministic=member(config, "deterministic", bool, of_config))
    ), task


def finished_checkpoint(run: RunFolder) -> Checkpoint:
    """The checkpoint with the finished policy: the best or the last, as the run was told to select.

    Raises:
        InputError: If there is no whole one.
    """
    best = run.about["config"].get("select") == "best" and run.best_checkpoint.exists()
    return load_checkpoint(run.best_checkpoint if best else run.last_checkpoint)


def _config_of(run: RunFolder, given: Config) -> Config:
    """The config a run was made with, and what is given anew; a run of another agent or version is refused."""
    saved: dict[str, Any] = dict(run.about["config"])
    different = sorted(set(saved) ^ {field.name for field in fields(given)})
    named = ", ".join(different[:4]) + (f" and {len(different) - 4} others" if len(different) > 4 else "")
    require(not different, f"'{run.path}' was not made by this agent in this version: its config differs in {named}")
    # JSON knows no paths: whatever the config says is one becomes one again.
    paths = [field.name for field in fields(given) if "Path" in str(field.type) and saved[field.name] is not None]
    for field_ in fields(given):
        value = saved[field_.name]
        asked = f"option {field_.name} of run '{run.path}' must be {told(field_.type)}, found {shown(value)}"
        require(fits(value, field_.type), asked)
    saved |= {name: Path(saved[name]) for name in paths} | {"resume": None, "anew": given.anew}
    anew = {name: getattr(given, name) for name in given.anew}
    changed = {name: value for name, value in anew.items() if value != saved[name]}
    if changed:
        run.record_options(changed)
        print(f"from here on: {', '.join(f'{name} {value}, was {saved[name]}' for name, value in changed.items())}")
    return replace(given, **saved | anew)


def _weights_in(run: RunFolder) -> int:
    """How many weights the newest checkpoint of a run holds; where there is none yet, any number may be."""
    checkpoint = newest_checkpoint(run)
    return 2**62 if checkpoint is None else sum(tensor.numel() for tensor in checkpoint.all_tensors.values())


def _set_up_torch(config: CommonConfig) -> None:
    if config.threads is not None:
        require(config.threads >= 1, f"threads must be at least 1, found {config.threads}")
        require(config.threads <= 1024, f"threads must be at most 1024, found {config.threads}")
        torch.set_num_threads(config.threads)
    try:
        float(torch.zeros(1, device=config.device))  # the device 'meta' holds no numbers
    except (RuntimeError, AssertionError, ValueError, NotImplementedError) as error:
        raise InputError(f"device '{config.device}' cannot be used: {str(error).splitlines()[0]}") from None
