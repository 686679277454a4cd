"""What a run measures of its policy: as its last phase begins, and at its end, with a verdict."""

import json
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from textgan_env.evaluation import Evaluation, evaluate, missing_lines, nll
from textgan_env.evaluation.verdict import Compared, as_text, compared, from_nothing, real_values, verdict
from textgan_env.ops.confidence import intervals_over_texts
from textgan_env.ops.metric_table import charts
from textgan_env.ops.plots import learning_curve
from textgan_env.policies import Decoding, PolicyModule
from textgan_env.rewards import AskedObjective
from textgan_env.runs.checkpointing import Checkpointable, RunState
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import MetricLog
from textgan_env.runs.measured import keep_per_text, keep_start, kept_per_text
from textgan_env.tasks import Task
from textgan_env.utils.files import write_safely
from textgan_env.utils.options import CommonConfig, evaluation_sizes
from textgan_env.utils.printing import say
from textgan_env.utils.programs import typed_path, typed_program


def policy_of(agent: Checkpointable) -> PolicyModule:
    """The policy as it would be used now."""
    policy = agent.modules[agent.finished]
    assert isinstance(policy, PolicyModule)
    return policy


def asked_by(agent: Checkpointable) -> AskedObjective | None:
    """The objective that an agent is paid by; None where it is paid by none."""
    asked: AskedObjective | None = getattr(agent, "asked", None)
    return asked


def decoding_of(config: CommonConfig) -> Decoding:
    """How the finished policy is to generate."""
    return Decoding(config.temperature, deterministic=config.deterministic)


def measure_start(agent: Checkpointable, run: RunFolder, config: CommonConfig) -> None:
    """Measure the policy as it is now, as the finished one will be: what the run's verdict is about.

    It is measured against the test split, too, and decides nothing.

    Raises:
        OSError: If it cannot be kept.
    """
    result = _measured(agent, config)
    keep_start(run, result.document(), result.per_text)


def finish(agent: Any, run: RunFolder, config: CommonConfig, log: MetricLog, state: RunState) -> None:
    """Measure the finished policy on the test split, write its samples, draw the curve, and say where everything is.

    Args:
        agent: A `textgan_env.training.loop.Agent`.
        run: Where everything goes.
        config: The run's options.
        log: Its measurements.
        state: Where it stands: at the end.

    Raises:
        OSError: If a file cannot be written.
    """
    if config.select == "best":
        load_checkpoint(run.best_checkpoint, inside=run.path).restore_module(agent.finished, policy_of(agent))
    result = _measured(agent, config)
    rows, found = _verdict(agent.task, run, config, result)
    document = result.document() | found
    document |= {"select": config.select, "round": state.best_round if config.select == "best" else state.done}
    keep_per_text(run, "end", result.per_text)
    write_safely(run.evaluation_file, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    texts = [agent.task.text(tokens) for tokens in result.tokens_BT[:20].tolist()]
    write_safely(run.path / "final_samples.txt", "\n".join(texts) + "\n")
    _draw(agent, run, log)
    if config.select == "best":
        say(f"\nThe finished policy is that of round {state.best_round}, whose nll_valid was the lowest.")
    _tell(run, config, result, rows, str(found["sentence"]), texts)


def _measured(agent: Checkpointable, config: CommonConfig) -> Evaluation:
    """The policy as it is now, measured as at the end."""
    sizes: Any = evaluation_sizes(config.preset, config.eval_samples)
    policy, asked = policy_of(agent).with_decoding(decoding_of(config)), asked_by(agent)
    if asked is None:
        return evaluate(policy, agent.task, seed=config.seed, **sizes)
    # Measuring takes calls of its own: who limits them is not made to spend some unasked.
    with asked.uncounted():
        result = evaluate(policy, agent.task, seed=config.seed, objective=None if asked.budget else asked, **sizes)
    return replace(result, values={**result.values, "objective_calls": float(asked.calls)})


def _verdict(
    task: Task, run: RunFolder, config: CommonConfig, result: Evaluation
) -> tuple[list[Compared], dict[str, Any]]:
    """The finished policy beside real text and the policy that the run began with: the table, and what is kept."""
    sizes: Any = evaluation_sizes(config.preset, config.eval_samples)
    real, began, before = real_values(task, "test", **sizes), run.start, kept_per_text(run, "start")
    ends = {} if began is None or before is None else intervals_over_texts(result.per_text, before)
    rows = compared(result.values, None if began is None else began["values"], real, ends)
    found, sentence = verdict(rows) if began else from_nothing(rows, task.vocab_size - len(task.forbidden))
    kept = {"start": None if began is None else began["values"], "real": real, "ends": ends}
    return rows, kept | {"verdict": found, "sentence": sentence}


def _draw(agent: Any, run: RunFolder, log: MetricLog) -> None:
    """The picture of the learning curve."""
    levels, oracle = {}, agent.task.oracle
    if oracle is not None:
        valid_BT = agent.task.split("valid").tokens_BT
        levels["entropy of real text"] = nll(oracle, valid_BT, agent.task.scored(valid_BT))[0]
    title = f"{run.path.name} (at temperature 1)"
    learning_curve(log.rows, run.curve_file, lines=charts(agent.curves), x_label="round", title=title, levels=levels)


def _tell(
    run: RunFolder, config: CommonConfig, result: Evaluation, rows: list[Compared], sentence: str, texts: list[str]
) -> None:
    """Print the table, the verdict, some texts, and what can be done next."""
    decoding = "most probable token always" if config.deterministic else f"temperature {config.temperature:g}"
    about = f"{result.settings['samples']:,} texts against {result.settings['references']:,} of the test split"
    say(f"\nMeasured on {about}, {decoding} ({result.units}):\n")
    say("\n".join([as_text(rows), *missing_lines(result.missing)]))
    if "nll" in result.settings:
        say(result.settings["nll"])
    if any(row.ends for row in rows):
        say("Intervals are over the texts of this one run; other seeds can differ by more: textgan compare.")
    say(f"\n{sentence}")
    say(f"\n{len(texts)} texts, as they come, {decoding}:")
    say("\n".join(f"    {text}" for text in texts))
    program, folder = typed_program("textgan"), typed_path(run.path)
    safer = f"{0.8 * config.temperature:.2g}"  # than the run's own, which may be far from 1
    say(f"\nrun folder: {run.path}\nmore texts: {program} sample {folder} -n 20 --temperature {safer}")
    # The live page needs Gradio, the other page nothing.
    say(f"watch it generate: {program} {'play' if find_spec('gradio') else 'report'} {folder}")
