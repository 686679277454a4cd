"""Every path of the project on the fake GPU and on the CPU, compared: run by test_gpu.py in a process of its own.

    PYTHONPATH=. python tests/gpu_paths.py paths|runs|mutants|steps FILE [T ...]

writes JSON, name -> what was found. ``paths`` are single calls, ``runs`` whole runs of all agents, ``mutants`` what is
found when the code has a fault of devices, ``steps`` how often g-steps at some T launch and wait.
"""

import inspect
import json
import math
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import fake_gpu
from agents import class_of, module_of
from agents.leakgan import LeakGAN, LeakGANConfig
from agents.maligan import MaliGAN, MaliGANConfig
from agents.mle import MLE, MLEConfig, smoke
from agents.seqgan import SeqGAN, SeqGANConfig
from conftest import PROJECT, step_of
from textgan_env.discriminators import (
    ReplayedTexts,
    discriminator_report,
    fit,
    fit_discriminator,
    make_discriminator,
    score_features,
    score_logits,
)
from textgan_env.envs.game import TextGame
from textgan_env.evaluation import evaluate
from textgan_env.ops import sampling, tiles
from textgan_env.ops.sampling import derived_generator
from textgan_env.policies import Decoding, EnsemblePolicy, LSTMPolicy, MemoriserPolicy, MixturePolicy, TransformerPolicy
from textgan_env.rewards import Keys, complete, generate, rollouts
from textgan_env.tasks import OracleTask, Task, ToyTask, fit_ngram
from textgan_env.training import mle
from textgan_env.training.launch import launch

B, T, V, N, END = 8, 8, 60, 3, 7
#: What the device of a path gives, to be compared.
Path_ = Callable[[str], Any]


def oracle_task(max_length: int = T) -> OracleTask:
    """Texts of numbers, all of T tokens."""
    return OracleTask(max_length=max_length, vocab_size=V, train_size=64, valid_size=32, test_size=32)


TASK = oracle_task()
TOKENS_BT = TASK.split("train").tokens_BT[:B]


def policy(device: str, **options: Any) -> LSTMPolicy:
    """A small network, the same on every device."""
    sizes: dict[str, Any] = {"embed_size": 8, "hidden_size": 8, "init_scale": 1.0}
    return LSTMPolicy(V, start_token=0, **sizes, **options).to(device).eval()


def written(device: str, decoding: Decoding | None = None, end_token: int | None = None, **options: Any) -> Any:
    """Texts from a policy."""
    writer = policy(device, **options).with_decoding(decoding or Decoding())
    return generate(writer, Keys.counted(3, 40, device=writer.device), T, end_token=end_token)


def transformer() -> TransformerPolicy:
    """A small one whose layers matter."""
    made = TransformerPolicy(V, start_token=0, max_length=T, embed_size=8, hidden_size=8)
    for parameter in made.parameters():
        torch.nn.init.normal_(parameter, generator=derived_generator(parameter.numel()))
    return made


def of_policy(make: Callable[[], Any]) -> Path_:
    """Texts from a policy of another kind, and their log-probability."""

    def path(device: str) -> Any:
        writer = make().to(device)
        tokens_BT, lengths_B = generate(writer, Keys.counted(3, 40, device=writer.device), T)
        return tokens_BT, lengths_B, writer.log_prob(tokens_BT, tokens_BT < writer.vocab_size)

    return path


def drawn_from_blocks(device: str) -> Any:
    """Texts whose tokens are drawn in two levels, as they are from many rows or a large vocabulary."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "_AT_ONCE", 0)
        return written(device)


def completed(device: str, make: Callable[[], Any] | None = None, **options: Any) -> Any:
    """Completions of some prefixes: an early end, texts of which nothing is wanted, whole new texts."""
    writer = make().to(device) if make else policy(device)
    tokens_BT = TOKENS_BT.repeat(5, 1)
    wanted_BT = torch.rand(tokens_BT.shape, generator=derived_generator(0, "wanted")) < 0.5
    wanted_BT[3] = False
    keys = Keys.counted(3, len(tokens_BT), device=writer.device)
    return vars(complete(writer, tokens_BT.to(device), wanted_BT.to(device), keys=keys, rollouts=N, **options))


def judged(kind: str) -> Path_:
    """A discriminator is fitted, then asked in all ways."""

    def path(device: str) -> Any:
        judge = make_discriminator(kind, vocab_size=V, max_length=T).to(device)
        real_BT, fake_BT = TOKENS_BT.to(device), TOKENS_BT.flip(0, 1).to(device)
        optimizer, generator = judge.make_optimizer(), derived_generator(0, "fit")
        numbers = fit_discriminator(judge, optimizer, real_BT, fake_BT, steps=3, batch_size=4, generator=generator)
        asked = (
            score_logits(judge, real_BT),
            score_features(judge, real_BT),
            judge.eval().score_real(fake_BT).detach(),
        )
        # Texts of the host are brought to the discriminator, and its logits back.
        return numbers, asked, score_logits(judge, TOKENS_BT), vars(discriminator_report(judge, real_BT, fake_BT))

    return path


def stepped(agent: Any, config: Any, *methods: str, task: Task = TASK) -> Path_:
    """Some steps of an agent: their numbers, and the weights after them."""

    def path(device: str) -> Any:
        learner = agent(replace(config, device=device), task)
        numbers = [getattr(learner, method)(step_of(1, method)) for method in methods]
        return numbers, {name: module.state_dict() for name, module in learner.modules.items()}

    return path


SIZES: dict[str, Any] = {"batch_size": B, "embed_size": 8, "hidden_size": 8}
SEQGAN = SeqGANConfig(**SIZES, mle_batch_size=16, d_batch_size=16, rollouts=N)
AS_PUBLISHED = replace(SEQGAN, discriminator="conv", transform="prob", baseline="none", kl_coef=0.0)
LEAKGAN = LeakGANConfig(**SIZES, mle_batch_size=32, d_batch_size=16, rollouts=2)
# Short texts of four words, one of which ends them.
SHORT = ToyTask(vocab_size=4, max_length=5, size=64)
SHORT.end_token = 3


def paths() -> dict[str, Path_]:
    """All single calls by name."""
    decodings = (Decoding(), Decoding(top_k=5), Decoding(top_p=0.8), Decoding(temperature=0.7))
    found: dict[str, Path_] = {
        **{f"generate, {decoding}": partial(written, decoding=decoding) for decoding in decodings},
        "generate, most probable": lambda device: written(device, Decoding(deterministic=True)),
        "generate, random start": lambda device: written(device, initial_state="random"),
        "generate, end token": lambda device: written(device, end_token=END),
        "generate, forbidden tokens": lambda device: written(device, forbidden=(1, 2)),
        "generate, two layers": lambda device: written(device, num_layers=2),
        "generate, in two levels": drawn_from_blocks,
        "generate, n-grams": of_policy(lambda: fit_ngram(TASK, order=3)),
        "generate, table": of_policy(lambda: ToyTask(vocab_size=3, max_length=T).oracle),
        "generate, transformer": of_policy(transformer),
        "generate, memoriser": of_policy(lambda: MemoriserPolicy(TOKENS_BT, vocab_size=V, start_token=0)),
        "generate, ensemble": of_policy(lambda: EnsemblePolicy([policy("cpu"), policy("cpu", seed=1)])),
        "generate, mixture": of_policy(lambda: MixturePolicy([policy("cpu"), policy("cpu", seed=1)], [0.3, 0.7])),
        "complete": completed,
        "complete, end token": lambda device: completed(device, end_token=END),
        "complete, small tiles": lambda device: completed(device, tile=32),
        "complete, transformer": lambda device: completed(device, transformer),
        "complete, transformer, small tiles": lambda device: completed(device, transformer, tile=32),
        "evaluate": lambda device: evaluate(policy(device), TASK, samples=40, bleu_samples=20).values,
        "discriminator, conv": judged("conv"),
        "discriminator, pair": judged("pair"),
        "MLE": stepped(MLE, MLEConfig(**SIZES), "mle_batch"),
        "MaliGAN": stepped(MaliGAN, MaliGANConfig(**SIZES), "mle_batch", "g_step", "d_batch"),
    }
    options: tuple[dict[str, Any], ...] = (
        {}, {"rollouts": 0}, {"control": "random"}, {"control": "shuffled"}, {"control": "constant", "ent_coef": 0.1},
        {"control": "untrained"}, {"negatives": "replayed"}, {"rollout_lag": 0.5}, {"ent_coef": 0.1}, {"shards": 2},
        {"transform": "rank"}, {"initial_state": "random"}, {"discriminator": "bleu"}, {"gamma": 0.9},
        {"writing_temperature": 1.2}, {"baseline": "position"},
    )  # fmt: skip
    for changed in options:
        config = replace(SEQGAN, **changed)
        methods = ("g_step", "mle_step") if config.discriminator == "bleu" else ("g_step", "d_batch", "mle_step")
        found[f"SeqGAN, {changed}"] = stepped(SeqGAN, config, *methods)
    found["SeqGAN as published"] = stepped(SeqGAN, AS_PUBLISHED, "g_step", "d_batch", "mle_batch")
    found["SeqGAN, end token"] = stepped(SeqGAN, SEQGAN, "g_step", "d_batch", "mle_batch", task=SHORT)
    leaks: tuple[dict[str, Any], ...] = (
        {}, {"discriminator": "conv"}, {"variant": "reference"}, {"control": "shuffled"}, {"end_reward": "q"},
    )  # fmt: skip
    for changed in leaks:
        steps = ("mle_batch", "g_step", "d_batch")
        found[f"LeakGAN, {changed}"] = stepped(LeakGAN, replace(LEAKGAN, **changed), *steps)
    found["LeakGAN, end token"] = stepped(LeakGAN, LEAKGAN, "mle_batch", "g_step", task=SHORT)
    return found


def runs() -> dict[str, Path_]:
    """The smoke preset of each agent from begin to end, with its checkpoints and its evaluation."""

    def run(name: str, device: str) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            config = replace(module_of(name).PRESETS["smoke"]("toy"), threads=1, show_samples=0, device=device)
            if name == "distill":
                taught = replace(smoke("toy"), threads=1, show_samples=0, device=device, runs=Path(folder) / "teacher")
                config = replace(config, teachers=(launch(taught, MLE).path,))
            done = launch(replace(config, runs=Path(folder), checkpoint_every=0.0), class_of(name))
            rows = [json.loads(line) for line in (done.path / "metrics.jsonl").read_text("utf-8").splitlines()]
            timed = ("seconds", "time")
            return [{name: row[name] for name in row if not name.startswith(timed)} for row in rows]

    agents = (path.stem for path in sorted((PROJECT / "agents").glob("[a-z]*.py")) if path.stem != "cli")
    return {name: partial(run, name) for name in agents}


def difference(expected: Any, found: Any, at: str = "") -> str | None:
    """Where two results differ, or None.

    Tokens must be equal. A gradient adds up in another order on a GPU, and Adam makes a step of any gradient: weights
    must be equal to a tenth of a step.
    """
    if isinstance(expected, Mapping):
        keys = [None] if expected.keys() != found.keys() else []
        parts = [difference(expected[key], found[key], f"{at}.{key}") for key in expected if not keys]
        return f"{at}: other names" if keys else next((part for part in parts if part), None)
    if isinstance(expected, Tensor):
        return difference(expected.tolist(), found.tolist(), at)
    if isinstance(expected, Sequence) and not isinstance(expected, str):
        if len(expected) != len(found):
            return f"{at}: {len(expected)} and {len(found)}"
        parts = [difference(*pair, f"{at}[{place}]") for place, pair in enumerate(zip(expected, found, strict=True))]
        return next((part for part in parts if part), None)
    if isinstance(expected, float) or isinstance(found, float):
        both_nan = math.isnan(expected) and math.isnan(found)
        alike = math.isclose(expected, found, rel_tol=1e-4, abs_tol=2e-4) or both_nan
    else:
        alike = expected == found
    return None if alike else f"{at}: {expected} on the CPU, {found} on the GPU"


def compared(path: Path_) -> dict[str, Any]:
    """What a path gives on both devices: the error or the difference, if there is one."""
    try:
        expected = path("cpu")
        fake_gpu.reset()
        found = path(fake_gpu.NAME)
        counts = {"launches": fake_gpu.LAUNCHES.total(), "syncs": fake_gpu.SYNCS.total()}
        return {"wrong": difference(expected, found), **counts}
    except Exception:
        return {"wrong": traceback.format_exc(limit=-6)}


def counted(agent: Any, config: Any, method: str, max_length: int) -> dict[str, Any]:
    """Launches and synchronisations of one step, and where the latter come from."""
    learner = agent(replace(config, device=fake_gpu.NAME), oracle_task(max_length))
    fake_gpu.reset()
    getattr(learner, method)(step_of(1))
    return {"launches": fake_gpu.LAUNCHES.total(), "syncs": fake_gpu.SYNCS.total(), "waits": dict(fake_gpu.SYNCS)}


def steps(*lengths: int) -> dict[str, Any]:
    """Of the agents' steps, at some T."""
    agents = {
        "SeqGAN as published": (SeqGAN, AS_PUBLISHED),
        "SeqGAN": (SeqGAN, SEQGAN),
        "LeakGAN": (LeakGAN, replace(LEAKGAN, discriminator="conv")),
    }
    return {
        f"{name}, T={max_length}": counted(*agent, "g_step", max_length)
        for max_length in lengths
        for name, agent in agents.items()
    }


#: Function -> code in it, and the same with a fault: a device is left out, a transfer is left out, or draws are to be
#: made on the GPU by a generator of the host.
FAULTS: dict[Callable[..., Any], tuple[str, str]] = {
    rollouts._generate_side_by_side: ("torch.arange(length, device=tokens_BT.device)", "torch.arange(length)"),
    rollouts._complete: ("torch.arange(rollouts, device=tokens_BT.device)", "torch.arange(rollouts)"),
    tiles.numbers_of: ("torch.arange(len(mask_X), device=mask_X.device)", "torch.arange(len(mask_X))"),
    fit._orders: ("order.to(side_BT.device)", "order"),
    mle.mle_step: ("tokens_BT.to(policy.device)", "tokens_BT"),
    TextGame.collect: (".cpu().numpy()", ".numpy()"),
    ReplayedTexts.renew: ("generator=generator)", "generator=generator, device=fresh_RT.device)"),
}


@contextmanager
def faulty(function: Any, right: str, wrong: str) -> Iterator[None]:
    """Inside, a function has a fault."""
    source = textwrap.dedent(inspect.getsource(function))
    assert right in source, f"{function.__name__} has changed"
    made: dict[str, Any] = {}
    exec(source.replace(right, wrong), function.__globals__, made)
    before, function.__code__ = function.__code__, made[function.__name__].__code__
    try:
        yield
    finally:
        function.__code__ = before


def mutants() -> dict[str, dict[str, Any]]:
    """What one path finds when a function has a fault; ``none``: without one."""
    steps = ("mle_batch", "g_step", "d_batch", "mle_step")
    path = stepped(SeqGAN, replace(SEQGAN, negatives="replayed", rollouts=2, batch_size=4), *steps, task=oracle_task(5))
    found = {"none": compared(path)}
    for function, (right, wrong) in FAULTS.items():
        with faulty(function, right, wrong):
            found[function.__name__] = compared(path)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    fake_gpu.register()
    group = sys.argv[1]
    if group in ("paths", "runs"):
        say = {name: compared(path) for name, path in (paths if group == "paths" else runs)().items()}
    else:
        say = steps(*map(int, sys.argv[3:])) if group == "steps" else mutants()
    Path(sys.argv[2]).write_text(json.dumps(say), encoding="utf-8")
