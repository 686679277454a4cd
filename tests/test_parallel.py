"""Shards against whole batches, and real processes of torchrun against one: equal bits, also after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from agents import leakgan, mle, seqgan
from conftest import PROJECT, assert_refused, mistake_of, step_of
from shared_gradients import digests
from textgan_env.discriminators import ConvDiscriminator, fit_discriminator
from textgan_env.ops import torchrun as group
from textgan_env.ops.losses import gradient_snr, nll_sum
from textgan_env.ops.parallel import Sum, backward, by_rows, require_shards, sharded
from textgan_env.ops.sampling import derived_generator, seeded
from textgan_env.policies import LSTMPolicy
from textgan_env.runs import checkpointing
from textgan_env.runs.checkpointing import command_to_resume
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import CorpusTask, Task, make_task
from textgan_env.training.launch import _for_processes, launch
from textgan_env.training.mle import mle_step, trained
from textgan_env.utils.errors import InputError, friendly_errors
from textgan_env.utils.options import CommonConfig

# Texts of 1 to 5 tokens, the longest last: three shards of seven rows have 3, 8 and 14 tokens.
LENGTHS_B = torch.tensor([1, 2, 3, 5, 4, 5, 5])


# -- The arithmetic, against whole batches and plain sums. ------------------------------------------------------------
def uneven() -> tuple[nn.Parameter, Tensor, Tensor]:
    """A table of logits, tokens and the mask of texts of different lengths."""
    generator = derived_generator(0, "uneven")
    table_TV = nn.Parameter(torch.randn(5, 4, generator=generator, dtype=torch.float64))
    tokens_BT = torch.randint(4, (len(LENGTHS_B), 5), generator=generator)
    return table_TV, tokens_BT, torch.arange(5) < LENGTHS_B[:, None]


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_the_gradient_of_shards_is_that_of_a_sum_over_all_tokens(shards: int) -> None:
    table_TV, tokens_BT, mask_BT = uneven()

    def objective(tokens_BT: Tensor, mask_BT: Tensor) -> dict[str, Sum]:
        logp_BT = table_TV.log_softmax(1)[torch.arange(5), tokens_BT]
        return {"loss": nll_sum(logp_BT, mask_BT), "tokens": (mask_BT.sum().double(), 1.0 * len(mask_BT))}

    with sharded(shards):
        means, halves = backward([table_TV], (tokens_BT, mask_BT), objective)
    # By hand: d(-log p(y)) / d logits = p - (1 at y), added up token by token.
    expected_TV, total = torch.zeros(5, 4, dtype=torch.float64), 0.0
    p_TV = table_TV.detach().softmax(1)
    for row, length in enumerate(LENGTHS_B.tolist()):
        for t in range(length):
            expected_TV[t] += p_TV[t]
            expected_TV[t, tokens_BT[row, t]] -= 1
            total -= float(p_TV[t, tokens_BT[row, t]].log())
    assert halves == []
    assert float(means["tokens"]) == pytest.approx(25 / 7)
    torch.testing.assert_close(table_TV.grad, expected_TV / 25, rtol=0, atol=1e-14)
    assert float(means["loss"]) == pytest.approx(total / 25, abs=1e-13)

    # What the test would miss if all shards had one weight: the mean of their means is something else.
    shares = [objective(tokens_BT[rows], mask_BT[rows])["loss"] for rows in (slice(0, 2), slice(2, 4), slice(4, 7))]
    assert abs(sum(float((part / count).detach()) for part, count in shares) / 3 - total / 25) > 1e-2


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_the_halves_of_a_batch_share_its_count_and_add_up_to_its_gradient(shards: int) -> None:
    table_TV, tokens_BT, mask_BT = uneven()

    def objective(tokens_BT: Tensor, mask_BT: Tensor) -> dict[str, Sum]:
        return {"loss": nll_sum(table_TV.log_softmax(1)[torch.arange(5), tokens_BT], mask_BT)}

    with sharded(shards):
        _, halves_P = backward([table_TV], (tokens_BT, mask_BT), objective, halves=True)
    whole = table_TV.grad.flatten() if table_TV.grad is not None else torch.empty(0)
    expected = []
    for rows in (slice(0, 4), slice(4, 7)):  # the first half is the larger one
        total, _ = objective(tokens_BT[rows], mask_BT[rows])["loss"]
        expected.append(torch.autograd.grad(total / 25, table_TV)[0].flatten())
    for found, wanted in zip((*halves_P, whole), (*expected, expected[0] + expected[1]), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)


def test_a_gradient_takes_the_place_of_the_one_before_and_weights_without_one_have_none() -> None:
    used, unused = nn.Parameter(torch.tensor([2.0])), nn.Parameter(torch.tensor([3.0]))
    values_B = torch.tensor([1.0, 2.0, 4.0])
    for shards in (1, 2, 2):
        unused.grad = torch.ones(1)
        with sharded(shards):
            means, _ = backward([unused, used], (values_B,), lambda values_b: {"loss": ((used * values_b).sum(), 1.0)})
        # Two shards count twice: each says that it is divided by 1.
        assert used.grad is not None
        assert (float(means["loss"]), float(used.grad), unused.grad is None) == (14.0 / shards, 7.0 / shards, True)


def test_a_gradient_that_lies_otherwise_in_memory_still_moves_the_right_weights() -> None:
    weight = nn.Parameter(torch.zeros(2, 3))
    hidden_BH = torch.tensor([[1.0, 2.0, 3.0]])
    slopes_BV = torch.tensor([[10.0, -20.0]])

    def objective(hidden_bH: Tensor) -> dict[str, Sum]:
        # Strides as a product with the transposed weight, written out by hand, would give them.
        transposed_HV = hidden_bH.t() @ slopes_BV
        gradient_VH = transposed_HV.t()
        assert gradient_VH.stride() != weight.stride()
        return {"loss": (_Given.apply(weight, gradient_VH), 1.0)}  # type: ignore[no-untyped-call]

    backward([weight], [hidden_BH], objective)
    assert weight.grad is not None
    assert weight.grad.tolist() == [[10.0, 20.0, 30.0], [-20.0, -40.0, -60.0]]
    torch.optim.Adam([weight], lr=0.5, fused=True).step()
    torch.testing.assert_close(weight.detach(), torch.tensor([[-0.5] * 3, [0.5] * 3]))


class _Given(torch.autograd.Function):
    """A number whose gradient in the weight is given."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return weight.sum()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient, None


def test_what_is_minimised_is_a_weighted_sum_of_means() -> None:
    weight, values_B = nn.Parameter(torch.tensor([2.0])), torch.tensor([1.0, 2.0, 6.0, 7.0])

    def objective(values_b: Tensor) -> dict[str, Sum]:
        rows = float(len(values_b))
        return {
            "up": ((weight * values_b).sum(), rows),
            "square": ((weight**2 * values_b).sum(), rows),
            "n": (values_b.sum(), 1.0),
        }

    for shards in (1, 2):
        with sharded(shards):
            means, _ = backward([weight], (values_B,), objective, minimise={"square": 0.5, "up": -1.0})
        assert [float(means[name]) for name in ("up", "square")] == [8.0, 16.0]
        torch.testing.assert_close(weight.grad, torch.tensor([0.5 * 2 * 2 * 4 - 4.0]))


def test_rows_come_back_in_their_order_and_nothing_is_cut_inside_a_shard() -> None:
    cuts: list[list[int]] = []

    def compute(some_B: Tensor) -> tuple[Tensor, Tensor]:
        inner_B = by_rows(lambda whole_B: (whole_B,), some_B)[0]
        cuts.append(some_B.tolist())
        return inner_B, inner_B[:, None] > 2

    with sharded(3):
        numbers_B, later_B1 = by_rows(compute, torch.arange(7))
        assert cuts == [[0, 1], [2, 3], [4, 5, 6]]
        few_B = by_rows(lambda some_B: (some_B,), torch.arange(2))[0]  # fewer rows than shards
    assert numbers_B.tolist() == list(range(7))
    assert (later_B1[:, 0].tolist(), few_B.tolist()) == ([False] * 3 + [True] * 4, [0, 1])


def test_each_shard_has_dropout_of_its_own_and_the_global_generator_moves_alike_for_any_number() -> None:
    weight = nn.Parameter(torch.ones(64))
    after, masks = [], []

    def objective(rows_B: Tensor) -> dict[str, Sum]:
        kept = nn.functional.dropout(weight, 0.5)
        masks.append(kept.detach().clone())
        return {"loss": (kept.sum(), 1.0 * len(rows_B))}

    for shards in (2, 3):
        with seeded(5), sharded(shards):
            backward([weight], (torch.zeros(6),), objective, dropout=True)
            after.append(torch.get_rng_state())
    assert torch.equal(*after)
    assert all(not torch.equal(masks[0], other) for other in masks[1:2] + masks[3:])


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Texts of three to eight words."""
    words = ["a", "the", "cat", "dog", "sees", "hears", "tree", "stone"]
    dice = torch.Generator().manual_seed(0)
    lines = [
        " ".join(words[index] for index in torch.randint(8, (3 + number % 6,), generator=dice)) for number in range(200)
    ]
    path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    task = make_task("corpus", path=str(path))
    assert isinstance(task, CorpusTask)
    return task


def gradients(module: nn.Module) -> Tensor:
    return torch.cat([part.grad.flatten() for part in module.parameters() if part.grad is not None])


@pytest.mark.parametrize("shards", [1, 2, 3, 4])
def test_a_step_of_maximum_likelihood_has_the_gradient_of_one_text_at_a_time(sentences: Task, shards: int) -> None:
    """Float32: sums in another order differ by 1e-6 of the gradient's norm at most."""
    tokens_BT = sentences.split("train").tokens_BT
    tokens_BT = tokens_BT[(tokens_BT != sentences.vocab_size).sum(1).sort().indices][::13]  # the short ones first
    policy = LSTMPolicy(
        sentences.vocab_size, start_token=sentences.start_token, embed_size=6, hidden_size=7,
        forbidden=sentences.forbidden, seed=1,
    )  # fmt: skip
    mask_BT = sentences.scored(tokens_BT)
    for row in range(len(tokens_BT)):
        (-policy.log_prob(tokens_BT[row : row + 1], mask_BT[row : row + 1]).sum() / mask_BT.sum()).backward()
    expected = gradients(policy)
    with seeded(0), sharded(shards):
        mle_step(policy, torch.optim.SGD(policy.parameters(), 0.0), sentences, tokens_BT, max_grad_norm=1e9)
    assert float((gradients(policy) - expected).norm() / expected.norm()) < 1e-6
    # Equal weights for shards of 25 % and more tokens than others would be a thousand times as far off.
    policy.zero_grad()
    halves = (slice(0, len(tokens_BT) // 2), slice(len(tokens_BT) // 2, len(tokens_BT)))
    for rows in halves:
        total, count = nll_sum(policy.log_prob(tokens_BT[rows], mask_BT[rows]), mask_BT[rows])
        (total / count / 2).backward()
    assert float((gradients(policy) - expected).norm() / expected.norm()) > 1e-3


def test_a_step_of_d_has_the_gradient_of_the_whole_batch() -> None:
    """Nine texts of each side in four shards: of 4, 5, 4 and 5 rows, the third of both sides; L2 counts once."""
    generator = derived_generator(0, "sides")
    real_BT, fake_BT = (torch.randint(5, (9, 6), generator=generator) for _ in range(2))
    found = []
    for shards in (1, 4):
        judge = ConvDiscriminator(5, 6, embed_size=4, widths=(1, 2), filters=(5, 5), dropout=0.0, l2=0.5, seed=2)
        optimizer = torch.optim.SGD(judge.parameters(), 0.0)
        with sharded(shards):
            report = fit_discriminator(
                judge, optimizer, real_BT, fake_BT, steps=1, batch_size=9, generator=derived_generator(1)
            )
        found.append((gradients(judge), report))
    assert float((found[1][0] - found[0][0]).norm() / found[0][0].norm()) < 1e-6
    for name, value in found[0][1].items():
        assert found[1][1][name] == pytest.approx(value, rel=1e-6)


def seqgan_of(task: Task, **changes: Any) -> seqgan.SeqGAN:
    config = replace(seqgan.smoke("corpus"), batch_size=14, rollouts=3, embed_size=5, hidden_size=6, ema_decay=0.0)
    return seqgan.SeqGAN(replace(config, **changes), task)


@pytest.mark.parametrize("changes", [
    {},
    {"transform": "rank", "gamma": 0.9, "ent_coef": 0.1},
    {"control": "shuffled"},
    {"control": "random", "rollouts": 0, "transform": "prob"},
    {"initial_state": "random", "baseline": "position", "writing_temperature": 1.5},
], ids=str)  # fmt: skip
def test_texts_of_a_g_step_of_seqgan_do_not_depend_on_shards_and_its_gradient_hardly(
    sentences: Task, changes: dict[str, Any]
) -> None:
    """Credit 1e-5, the gradient 1e-5 of its norm."""
    seen = []
    for shards in (1, 2, 3):
        agent = seqgan_of(sentences, **changes)
        agent.reference.load_state_dict(seqgan_of(sentences, **changes, seed=1).policy.state_dict())
        with sharded(shards):
            agent.envs.reset(seed=4)
            agent.policy.eval()
            batch = agent.envs.collect(agent.behaviour_policy())
            credit_BT = batch.credit_BT
            columns = (batch.tokens_BT, batch.mask_BT, agent.advantage(batch), batch.keys.seed_B, batch.keys.episode_B)
            _, halves_P = backward(trained(agent.policy), columns, agent._objective, halves=True)
            snr = float(gradient_snr(*halves_P))
        seen.append((batch.tokens_BT, credit_BT, gradients(agent.policy), snr))
    for tokens_BT, credit_BT, gradient, snr in seen[1:]:
        assert torch.equal(tokens_BT, seen[0][0])
        torch.testing.assert_close(credit_BT, seen[0][1], rtol=1e-5, atol=1e-5)
        assert float((gradient - seen[0][2]).norm() / seen[0][2].norm()) < 1e-5
        assert snr == pytest.approx(seen[0][3], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("variant", ["paper", "reference"])
def test_gradients_of_leakgan_hardly_depend_on_shards(sentences: Task, variant: str) -> None:
    """1e-5 of their norms, of the Manager's, the Worker's, and in maximum likelihood of both."""
    config = replace(leakgan.smoke("corpus"), batch_size=11, goal_steps=2, q_interval=1, ema_decay=0.0, variant=variant)  # type: ignore[arg-type]
    config = replace(config, mle_batch_size=150, d_epochs=1, dropout=0.0, mle_interval=1)
    seen = []
    for shards in (1, 2, 3):
        agent = leakgan.LeakGAN(config, sentences)
        with sharded(shards):
            values = dict(agent.g_step(step_of(0, "g")))
            of_g_step = gradients(agent.averaged())
            agent.averaged().load_state_dict(leakgan.LeakGAN(config, sentences).averaged().state_dict())
            values |= agent.mle_steps_of("mle_epoch").alone(0)
        seen.append((of_g_step, gradients(agent.averaged()), {name: float(value) for name, value in values.items()}))
    for number in (1, 2):
        for expected, found in zip(seen[0][:2], seen[number][:2], strict=True):
            assert float((found - expected).norm() / expected.norm()) < 1e-5
        assert seen[number][2] == pytest.approx(seen[0][2], rel=1e-4, abs=1e-5)


# -- What is refused. -------------------------------------------------------------------------------------------------
@contextmanager
def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, size: int) -> Iterator[None]:
    """As if this were one of several; it cannot talk to the others."""
    with monkeypatch.context() as patch:
        patch.setattr(group, "_rank", rank)
        patch.setattr(group, "_size", size)
        told = {
            "WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size,
            "TORCHELASTIC_RUN_ID": "x",
        }  # fmt: skip
        for name, value in told.items():
            patch.setenv(name, str(value))
        for name in ("MASTER_ADDR", "MASTER_PORT"):
            patch.setenv(name, "0")
        yield


@pytest.mark.moves_global_rng
@pytest.mark.parametrize(("words", "sentence"), [
    (["--shards", "0"], "shards must be at least 1, found 0"),
    (
        ["--shards", "9", "--batch-size", "8"],
        "each batch is cut into 9 shards and must have as many texts, found batch_size 8",
    ),
    (["--shards", "two"], "no type matching INT"),
    (["--resume", "no-run", "--shards", "2"], "leave out --shards"),
])  # fmt: skip
def test_shards_that_do_not_suit_are_one_sentence(
    words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--task", "toy", "--preset", "smoke", "--runs", str(tmp_path / "runs")] if "--resume" not in words else []
    assert sentence in mistake_of(mle.main, [*given, *words], capsys)
    assert not (tmp_path / "runs").exists()


def test_more_processes_than_shards_or_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with as_process(monkeypatch, 1, 3):
        require_shards(3, {"batch_size": 3})
        expected = "3 processes cannot share out 2 shards, which is what --shards of this run says: start at most 2"
        assert_refused(expected, require_shards, 2, {"batch_size": 64})
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert_refused("3 processes need as many GPUs on --device cuda, found 2", group.own_device, "cuda")
        assert_refused("give --device cuda, found --device cuda:1", group.own_device, "cuda:1")
        assert group.own_device("cpu") == "cpu"
        chosen: list[int] = []
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        assert (group.own_device("cuda"), chosen) == ("cuda:1", [1])


def test_processes_that_torchrun_did_not_start_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="several processes are started by torchrun --nproc-per-node N, found WORLD_S"):
        launch(replace(mle.smoke("toy"), runs=tmp_path), mle.MLE)
    assert list(tmp_path.iterdir()) == []


def test_an_agent_without_shards_trains_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CommonConfig(task="toy")
    assert _for_processes(config) == config
    with as_process(monkeypatch, 0, 2):
        assert_refused("trains in one process: start it without torchrun, found 2 processes", _for_processes, config)
        ready = _for_processes(mle.smoke("toy"))
        assert (ready.shards, ready.threads) == (2, torch.get_num_threads())
        assert _for_processes(replace(mle.smoke("toy"), shards=4, threads=3)).threads == 3


def test_before_they_have_met_the_first_process_alone_tells_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for rank in (0, 1):
        with as_process(monkeypatch, rank, 2), pytest.raises(SystemExit) as stop, friendly_errors():
            raise InputError("no such thing")
        said.append((stop.value.code, capsys.readouterr().err))
    assert said == [(2, "error: no such thing\n"), (2, "")]


def test_the_command_to_go_on_names_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder(Path("runs/x-1"))
    monkeypatch.setattr(checkpointing, "typed_program", lambda name: name)  # whatever environment is active
    for program, expected in {
        "agents/seqgan.py": "torchrun --nproc-per-node 2 agents/seqgan.py --resume runs/x-1",
        "textgan train mle": "torchrun --nproc-per-node 2 --no-python textgan train mle --resume runs/x-1",
    }.items():
        monkeypatch.setattr(sys, "argv", [program])
        plain = expected.removeprefix("torchrun --nproc-per-node 2 ").replace("--no-python ", "")
        assert command_to_resume(run) == plain.replace("agents/", "python agents/")
        with as_process(monkeypatch, 0, 2):
            assert command_to_resume(run) == expected


# -- Real processes, by gloo on this machine. -------------------------------------------------------------------------
AGENTS: dict[str, tuple[Callable[[str], Any], Callable[..., Any]]] = {
    "mle": (mle.smoke, mle.MLE),
    "seqgan": (seqgan.smoke, seqgan.SeqGAN),
    "leakgan": (leakgan.smoke, leakgan.LeakGAN),
}


def torchrun(agent: str, processes: int, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
    pipe, script = subprocess.PIPE, str(PROJECT / "agents" / f"{agent}.py")
    return subprocess.Popen(
        [*command, script, *words], env=environment, stdout=pipe, stderr=subprocess.STDOUT, text=True
    )


def alone(agent: str, runs: Path, **changes: Any) -> RunFolder:
    preset, make_agent = AGENTS[agent]
    return launch(replace(preset("toy"), runs=runs, threads=1, **changes), make_agent)


def content(run: RunFolder) -> dict[str, Any]:
    """What must be equal in two runs, bit for bit."""
    names = ("metrics.jsonl", "metrics.csv", "samples.txt", "final_samples.txt", "evaluation.json")
    tensors = {
        f"{path.stem}: {name}": (tensor.dtype, tensor.shape, tensor.numpy().tobytes())
        for path in (run.last_checkpoint, run.best_checkpoint)
        for name, tensor in load_checkpoint(path).all_tensors.items()
    }
    return tensors | {name: (run.path / name).read_text() for name in names}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("long_ends_of_runs")  # as those of the other processes
@pytest.mark.parametrize(("agent", "processes", "shards"), [("mle", 2, 2), ("seqgan", 2, 3), ("leakgan", 2, 2)])
def test_processes_give_the_bits_of_one_process_with_the_same_shards(
    agent: str, processes: int, shards: int, tmp_path: Path
) -> None:
    words = ["--task", "toy", "--preset", "smoke", "--runs", str(tmp_path / "shared")]
    given = [] if shards == processes else ["--shards", str(shards)]  # as many as processes without
    told = torchrun(agent, processes, *words, *given)
    output = told.communicate(timeout=500)[0]
    assert told.returncode == 0, output
    assert output.count("run folder:") == 1
    shared = RunFolder.open(tmp_path / "shared" / f"{agent}-toy-1")
    assert [path.name for path in (tmp_path / "shared").iterdir()] == [shared.path.name]
    assert (shared.about["config"]["shards"], shared.about["config"]["threads"]) == (shards, 1)
    assert content(shared) == content(alone(agent, tmp_path / "alone", shards=shards))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("processes", "shared"), [(2, True), (3, True), (3, False)])
def test_gradients_have_the_bits_of_one_process_with_and_without_shared_memory(
    processes: int, shared: bool, tmp_path: Path
) -> None:
    memory = tmp_path / "memory"
    if shared:
        memory.mkdir()
    started = torchrun("../tests/shared_gradients", processes, str(tmp_path), str(memory))
    output = started.communicate(timeout=200)[0]
    assert started.returncode == 0, output
    told = [json.loads((tmp_path / str(rank)).read_text()) for rank in range(processes)]
    assert told == [{"digests": digests(), "shared": shared, "threads of gloo": 0}] * processes
    assert not shared or not [*memory.iterdir()]  # nothing is left behind


def worker(torchrun_id: int, rank: int) -> int:
    """The process of a rank."""
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            parent = re.search(r"^PPid:\s+(\d+)$", status.read_text(), re.MULTILINE)
            if parent and int(parent[1]) == torchrun_id:
                variables = (status.parent / "environ").read_bytes().split(b"\0")
                if f"RANK={rank}".encode() in variables:
                    return int(status.parent.name)
        except OSError:  # it has ended since
            continue
    raise AssertionError(f"no process of rank {rank}")


def wait_for_rounds(started: subprocess.Popen[str], folder: Path, rounds: int) -> None:
    """Wait until a run has so many rows of its log, and a checkpoint."""
    for _ in range(3000):
        assert started.poll() is None, started.communicate()[0]
        begun = all((folder / name).exists() for name in ("metrics.jsonl", "checkpoints/last.safetensors"))
        if begun and len(read_metrics(folder)) >= rounds:
            return
        time.sleep(0.1)
    raise AssertionError("it takes too long")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
def test_a_run_of_killed_and_stopped_processes_goes_on_with_any_number_of_them_to_the_same_bits(tmp_path: Path) -> None:
    """Two processes, of which one is killed; three, of which one is told to end; then one alone."""
    rounds = {"rounds": 60, "mle_epochs": 20}
    words = ["--rounds", "60", "--mle-epochs", "20", "--checkpoint-every", "0.2", "--shards", "3"]
    folder = tmp_path / "cut" / "seqgan-toy-1"
    first = torchrun("seqgan", 2, "--task", "toy", "--preset", "smoke", "--runs", str(tmp_path / "cut"), *words)
    wait_for_rounds(first, folder, 3)
    os.kill(worker(first.pid, 1), signal.SIGKILL)
    output = first.communicate(timeout=200)[0]
    told = [line for line in output.splitlines() if line.startswith(("error:", "stopped by", "fault"))]
    assert len(told) == 1, output
    assert told[0].startswith(("error: round ", "stopped by SIGTERM"))  # torchrun sends that soon after
    assert "another process of this run has ended" in told[0] or told[0].startswith("stopped by")
    assert re.search(r"to resume: (\S+/)?torchrun --nproc-per-node 2 \S+seqgan.py --resume \S+seqgan-toy-1$", told[0])
    assert "/textgan_env/" not in output  # no traceback of ours
    assert first.returncode != 0

    done = len(read_metrics(folder))
    second = torchrun("seqgan", 3, "--resume", str(folder))
    wait_for_rounds(second, folder, done + 3)
    os.kill(worker(second.pid, 2), signal.SIGTERM)  # one hears it, all end at the same boundary
    output = second.communicate(timeout=200)[0]
    told = [line for line in output.splitlines() if line.startswith(("error:", "stopped by", "fault"))]
    assert len(told) == 1, output
    assert re.search(r"^stopped by SIGTERM; to resume: (\S+/)?torchrun --nproc-per-node 3 .*--resume", told[0])
    assert "/textgan_env/" not in output

    stands = load_checkpoint(folder / "checkpoints" / "last.safetensors").document["state"]
    assert done < stands["done"] < 80
    third = alone("seqgan", tmp_path, resume=folder)
    assert content(third) == content(alone("seqgan", tmp_path / "whole", shards=3, checkpoint_every=0.2, **rounds))


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
def test_a_process_that_waits_for_one_that_stands_still_says_how_to_resume_before_it_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "seqgan-toy-1"
    words = ["--preset", "smoke", "--mle-epochs", "200", "--checkpoint-every", "0.2"]
    started = torchrun("seqgan", 2, "--task", "toy", "--runs", str(tmp_path), *words)
    wait_for_rounds(started, folder, 3)
    os.kill(worker(started.pid, 1), signal.SIGSTOP)
    started.send_signal(signal.SIGTERM)
    output = started.communicate(timeout=200)[0]
    (told,) = [line for line in output.splitlines() if line.startswith(("error:", "stopped by", "fault"))]
    assert re.search(r"^stopped by SIGTERM; to resume: (\S+/)?torchrun --nproc-per-node 2 .*--resume", told)
    last = load_checkpoint(folder / "checkpoints" / "last.safetensors")  # whole
    assert last.document["state"]["done"] <= len(read_metrics(folder))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_other_numbers_of_shards_end_within_the_noise_of_seeds(tmp_path: Path) -> None:
    """Six seeds: NLL-test 1.340 with 1 shard, standard deviation .011; with 2 and 4 shards 1.342 and 1.343."""
    ends: dict[int, list[float]] = {}
    for shards in (1, 2, 4):
        options = {"shards": shards, "epochs": 5, "batch_size": 64, "show_samples": 0, "eval_every": 9}
        runs = [alone("mle", tmp_path / f"{shards}", seed=seed, **options) for seed in range(6)]
        values = [json.loads((run.path / "evaluation.json").read_text())["values"] for run in runs]
        ends[shards] = [value["nll_test"] for value in values]
    assert len({tuple(end) for end in ends.values()}) == 3  # dropout draws other units
    for shards in (2, 4):
        assert abs(mean(ends[shards]) - mean(ends[1])) < stdev(ends[1])


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_mistake_is_told_by_one_of_the_processes(tmp_path: Path) -> None:
    started = torchrun(
        "mle", 2, "--task", "toy", "--preset", "smoke", "--shards", "1", "--runs", str(tmp_path / "runs")
    )
    output = started.communicate(timeout=200)[0]
    told = [line for line in output.splitlines() if line.startswith(("error:", "stopped by", "fault"))]
    assert told == [
        "error: 2 processes cannot share out 1 shard, which is what --shards of this run says: start at most 1"
    ]
    assert "/textgan_env/" not in output
    assert not (tmp_path / "runs").exists()
