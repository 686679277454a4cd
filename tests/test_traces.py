"""Traces of texts: Q is the mean of the completions that are shown, the parts are the logit, the plane is a plane."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from agents.mle import MLE
from agents.mle import smoke as mle_smoke
from agents.seqgan import SeqGAN
from agents.seqgan import smoke as seqgan_smoke
from conftest import assert_refused, make_run
from textgan_env import load
from textgan_env.discriminators import (
    ConvDiscriminator,
    DiscriminatorModule,
    PairDiscriminator,
    discriminator_report,
    score_logits,
)
from textgan_env.envs import defaults
from textgan_env.evaluation import stream_texts
from textgan_env.ops.sampling import derived_seed
from textgan_env.policies import LSTMPolicy
from textgan_env.rewards import Keys, RolloutCredit, Texts, generate
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.folder import RunFolder
from textgan_env.show.traces import Plane, RunDiscriminator, real_texts, trace, write_traces
from textgan_env.tasks import CorpusTask, make_task

WORDS = ("cat", "dog", "fox", "cow", "bee")
LINES = [f"{article} {noun} {verb}" for article in ("the", "a") for noun in WORDS for verb in ("sat", "ran", "ate")]


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "my.txt"
    file.write_text("\n".join([*LINES, "the old cat sat and sat", "a fox ran away again"]))
    return file


@pytest.fixture(scope="module")
def task(text_file: Path) -> CorpusTask:
    made = make_task("corpus", path=str(text_file))
    assert isinstance(made, CorpusTask)
    return made


@pytest.fixture
def policy(task: CorpusTask) -> LSTMPolicy:
    return LSTMPolicy(
        task.vocab_size, start_token=task.start_token, embed_size=4, hidden_size=4, init_scale=1.0,
        forbidden=task.forbidden, seed=1,
    ).eval()  # fmt: skip


def uncertain(judge: DiscriminatorModule) -> DiscriminatorModule:
    """A judge whose scores differ from text to text."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7)
    return judge.eval().requires_grad_(False)


@pytest.fixture
def judge(task: CorpusTask) -> DiscriminatorModule:
    return uncertain(PairDiscriminator(task.vocab_size, task.max_length, rank=3))


def padded(task: CorpusTask, tokens: tuple[int, ...]) -> Tensor:
    return torch.tensor([[*tokens, *[task.vocab_size] * (task.max_length - len(tokens))]])


# -- Texts, Q and completions -----------------------------------------------------------------------------------------
def test_q_is_the_mean_of_the_scores_shown_and_what_the_environment_pays(
    task: CorpusTask, policy: LSTMPolicy, judge: DiscriminatorModule
) -> None:
    traces = write_traces(policy, task, judge, 5, rollouts=4, seed=2)
    keys = Keys.counted(derived_seed(2, "samples"), 5)
    tokens_BT, lengths_B = generate(policy, keys, task.max_length, end_token=task.end_token)
    texts = Texts.finished(tokens_BT, lengths_B, keys, task.end_token)
    credit_BT = RolloutCredit(policy, judge, rollouts=4).credit(texts, texts.mask_BT)
    assert len({round(one.score_real, 6) for one in traces}) > 1
    for row, found in enumerate(traces):
        length = int(lengths_B[row])
        assert found.tokens == tuple(tokens_BT[row, :length].tolist())
        np.testing.assert_allclose(found.q, credit_BT[row, :length], rtol=1e-6)
        for q, completions in zip(found.q[:-1], found.completions[:-1], strict=True):
            assert len(completions) == 4
            assert q == pytest.approx(math.fsum(one.score_real for one in completions) / 4, abs=1e-7)
        assert (found.completions[-1], found.q[-1]) == ((), found.score_real)


def test_completions_are_whole_texts_whose_score_is_the_judges(
    task: CorpusTask, policy: LSTMPolicy, judge: DiscriminatorModule
) -> None:
    (found,) = write_traces(policy, task, judge, 1, rollouts=3, seed=4)
    for at, completions in enumerate(found.completions):
        for one in completions:
            whole = (*found.tokens[: at + 1], *one.tokens)
            assert one.tokens[-1] == task.end_token or len(whole) == task.max_length
            assert one.score_real == pytest.approx(float(judge.score_real(padded(task, whole))[0]), abs=1e-6)
    for length, score in enumerate(found.stopped):
        assert score == pytest.approx(float(judge.score_real(padded(task, found.tokens[:length]))[0]), abs=1e-6)
    assert len(found.stopped) == len(found.features_SF) == len(found.tokens) + 1


def test_traced_texts_are_those_of_sample_and_the_first_of_more(
    task: CorpusTask, policy: LSTMPolicy, judge: DiscriminatorModule
) -> None:
    few, more = (write_traces(policy, task, judge, count, rollouts=2, seed=7) for count in (2, 3))
    assert [task.text(one.tokens) for one in more] == list(stream_texts(policy, task, 3, 7))
    assert [(one.tokens, one.q) for one in few] == [(one.tokens, one.q) for one in more[:2]]


def test_a_text_of_anybody_is_traced_and_an_unfinished_one_to_its_last_token(
    task: CorpusTask, policy: LSTMPolicy, judge: DiscriminatorModule
) -> None:
    tokens = task.encode("the cat")
    found = trace(policy, task, judge, tokens, rollouts=3)
    assert [len(completions) for completions in found.completions] == [3, 3]
    assert len(found.q) == 2
    assert task.end_token is not None
    ended = trace(policy, task, judge, [*tokens, task.end_token], rollouts=3)
    assert ended.q[:2] == found.q
    assert [len(completions) for completions in ended.completions] == [3, 3, 0]


def test_a_text_that_is_over_at_once_has_one_q_and_no_completions(
    task: CorpusTask, policy: LSTMPolicy, judge: DiscriminatorModule
) -> None:
    assert task.end_token is not None
    found = trace(policy, task, judge, [task.end_token], rollouts=3)
    assert (found.completions, found.q) == (((),), (found.score_real,))


@pytest.mark.parametrize("tokens", [[], [2] * 8, [2, 99]])
def test_what_is_no_text_of_the_task_is_refused(
    task: CorpusTask, policy: LSTMPolicy, judge: DiscriminatorModule, tokens: list[int]
) -> None:
    assert task.max_length == 7
    assert_refused("tokens", trace, policy, task, judge, tokens)


def test_no_texts_are_refused(task: CorpusTask, policy: LSTMPolicy, judge: DiscriminatorModule) -> None:
    assert_refused("number of texts", write_traces, policy, task, judge, 0)


# -- Parts of a logit -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("length", [0, 1, 2, 5, 7])
@pytest.mark.parametrize("kind", ["pair", "conv"])
def test_the_parts_of_a_logit_add_up_to_it(task: CorpusTask, kind: str, length: int) -> None:
    judge = uncertain(
        PairDiscriminator(task.vocab_size, 7, rank=3, distances=3)
        if kind == "pair"
        else ConvDiscriminator(task.vocab_size, 7, embed_size=3, widths=(1, 2, 4), filters=(2, 3, 2))
    )
    tokens_T = padded(task, tuple(range(1, length + 1)))[0]
    parts = judge.parts(tokens_T)
    assert math.fsum(part.value for part in parts) == pytest.approx(float(judge.logits(tokens_T[None])[0]), abs=1e-5)
    assert parts[-1].name == "constant"
    assert all(-1 <= position <= length for part in parts for position in part.positions)


def test_parts_of_the_pair_judge_are_the_sums_that_its_docstring_names(task: CorpusTask) -> None:
    judge: Any = uncertain(PairDiscriminator(task.vocab_size, 7, rank=2, distances=2))
    mark, (a, b) = task.vocab_size, (3, 4)
    left, right, single, weight = judge.left, judge.right, judge.single[:, 0], judge.output.weight[0]

    def pair(one: int, other: int, distance: int) -> float:
        columns = slice(2 * (distance - 1), 2 * distance)
        return float((left[one, columns] * right[other, columns] * weight[columns]).sum())

    expected = {
        ("token", (0,)): float(single[a] * weight[-1]),
        ("token", (1,)): float(single[b] * weight[-1]),
        ("token", (2,)): float(single[mark] * weight[-1]),
        ("pair, 1 apart", (-1, 0)): pair(mark, a, 1),
        ("pair, 1 apart", (0, 1)): pair(a, b, 1),
        ("pair, 1 apart", (1, 2)): pair(b, mark, 1),
        ("pair, 2 apart", (-1, 1)): pair(mark, b, 2),
        ("pair, 2 apart", (0, 2)): pair(a, mark, 2),
        ("constant", ()): float(judge.output.bias),
    }
    found = {(part.name, part.positions): part.value for part in judge.parts(padded(task, (a, b))[0])}
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_filter_stands_with_the_window_that_it_matches_best(task: CorpusTask) -> None:
    judge: Any = uncertain(ConvDiscriminator(task.vocab_size, 7, embed_size=3, widths=(2, 3), filters=(4, 5)))
    tokens = (5, 2, 8, 1)
    found = judge.parts(padded(task, tokens)[0])
    row = judge.embedding[padded(task, tokens)[0]]
    for width, kernel in zip((2, 3), judge.kernels, strict=True):
        for number in range(len(kernel)):
            match = [float(row[start : start + width].flatten() @ kernel[number]) for start in range(7 - width + 1)]
            best = match.index(max(match))
            (part,) = [part for part in found if part.name == f"filter {number + 1} of width {width}"]
            # What lies after the last token is one place, however much of it the window holds.
            assert part.positions == tuple(sorted({min(position, 4) for position in range(best, best + width)}))


def test_a_judge_of_another_kind_names_its_features_by_number(task: CorpusTask) -> None:
    class Counting(DiscriminatorModule):
        def features(self, tokens_BT: Tensor) -> Tensor:
            return (tokens_BT < self.vocab_size).float()

    judge = Counting(task.vocab_size, 7, 7, 0.0)
    torch.nn.init.constant_(judge.output.weight, 0.5)
    torch.nn.init.constant_(judge.output.bias, -1.0)
    parts = judge.parts(padded(task, (1, 2))[0])
    assert [(part.name, part.value) for part in parts[:3]] == [("feature 1", 0.5), ("feature 2", 0.5), ("feature 3", 0)]
    assert (parts[-1].name, parts[-1].value) == ("constant", -1.0)


# -- The plane --------------------------------------------------------------------------------------------------------
def test_the_plane_is_that_of_the_largest_variances() -> None:
    generator = torch.Generator().manual_seed(0)
    features_BF = torch.randn(400, 3, generator=generator) * torch.tensor([1.0, 9.0, 3.0]) + torch.tensor(
        [5.0, 6.0, 7.0]
    )
    plane = Plane.through(features_BF)
    assert plane.onto_F2.abs().argmax(0).tolist() == [1, 2]
    assert plane.onto_F2[1, 0] > 0
    assert plane.onto_F2[2, 1] > 0
    torch.testing.assert_close(plane.onto_F2.t() @ plane.onto_F2, torch.eye(2), atol=1e-5, rtol=0)
    np.testing.assert_allclose(plane.project(features_BF).mean(0), 0, atol=1e-4)
    variance_F = np.linalg.eigvalsh(np.cov(features_BF.numpy().T))[::-1]
    np.testing.assert_allclose(plane.shares, variance_F[:2] / variance_F.sum(), rtol=1e-4)
    np.testing.assert_allclose(plane.project(features_BF).numpy().var(0, ddof=1), variance_F[:2], rtol=1e-4)


def test_a_plane_needs_two_texts() -> None:
    assert_refused("plane", Plane.through, torch.ones(1, 5))


# -- The discriminator of a run ---------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def seqgan(text_file: Path) -> RunFolder:
    run: RunFolder = make_run(SeqGAN, seqgan_smoke, text_file)
    return run


def test_a_run_that_taught_a_discriminator_is_judged_by_it_as_it_was_saved(seqgan: RunFolder) -> None:
    run = load(seqgan.path)
    judge = RunDiscriminator.of_run(run)
    assert judge.own
    tensors = load_checkpoint(seqgan.last_checkpoint).all_tensors
    for name, tensor in judge.network.state_dict().items():
        assert torch.equal(tensor, tensors[f"discriminator/{name}"])
    real_BT = run.task.writable("test")
    keys = Keys.counted(derived_seed(0, "unseen"), len(real_BT))
    fresh_BT, _ = generate(run.policy, keys, run.task.max_length, end_token=run.task.end_token)
    assert judge.report == discriminator_report(judge.network, real_BT, fresh_BT)
    assert judge.texts == len(real_BT)


@pytest.mark.parametrize("made", ["mle", "control", "asked"])
def test_a_run_without_a_judge_of_its_own_is_judged_by_the_default_one(
    made: str, text_file: Path, seqgan: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults, "DEFAULT_DISCRIMINATOR_STEPS", 3)
    if made == "mle":
        folder = make_run(MLE, mle_smoke, text_file)
    else:
        folder = make_run(SeqGAN, seqgan_smoke, text_file, control="untrained") if made == "control" else seqgan
    run = load(folder.path)
    judge = RunDiscriminator.of_run(run, own=made != "asked")
    assert not judge.own
    tokens_BT = run.task.writable("test")
    expected_B = score_logits(defaults.default_discriminator(run.task, 0), tokens_BT)
    assert torch.equal(score_logits(judge.network, tokens_BT), expected_B)


def test_a_policy_that_is_older_than_what_its_discriminator_learnt_has_none(text_file: Path) -> None:
    # Far too large steps: no policy after pre-training is better.
    run = load(make_run(SeqGAN, seqgan_smoke, text_file, mle_epochs=3, select="best", learning_rate=9.0).path)
    assert load_checkpoint(run.folder.best_checkpoint).document["state"]["done"] <= 3
    assert run.discriminator is None


def test_where_every_held_out_text_has_an_unknown_word_real_texts_are_training_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(defaults, "DEFAULT_DISCRIMINATOR_STEPS", 3)
    file = tmp_path / "my.txt"
    file.write_text("\n".join(f"word{number} and word{number + 1000}" for number in range(40)))
    run = load(make_run(MLE, mle_smoke, file).path)
    split, real_BT = real_texts(run.task)
    assert split == "train"
    assert torch.equal(real_BT, run.task.writable("train"))
    judge = RunDiscriminator.of_run(run)
    assert (judge.report, judge.texts) == (None, 0)
