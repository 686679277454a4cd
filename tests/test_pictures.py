"""The pictures of docs/pictures.md: what stands in them is right, and each command draws its own on a tiny task."""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from agents.mle import MLE, MLEConfig
from agents.seqgan import SeqGAN
from benchmarks import curves, diagrams, dynamics, moving, pictures, planes, results
from benchmarks.dynamics import Estimates
from benchmarks.measure import written
from benchmarks.pictures import Chase, Credit, Rollouts, Vanishing
from conftest import assert_refused
from test_compare import MLE as RESULTS
from textgan_env.discriminators import PairDiscriminator
from textgan_env.policies import LSTMPolicy
from textgan_env.runs.folder import RunFolder
from textgan_env.runs.loading import load_policy
from textgan_env.runs.logs import MetricLog
from textgan_env.tasks import ToyTask
from textgan_env.training.launch import launch
from textgan_env.training.schedule import Step


class SameForAll(nn.Module):
    """Every text has one logit."""

    vocab_size, max_length, feature_size = 4, 4, 1

    def __init__(self, logit: float) -> None:
        super().__init__()
        self.logit = logit

    def features(self, tokens_BT: Tensor) -> Tensor:
        return torch.full((len(tokens_BT), 1), self.logit)

    def logits(self, tokens_BT: Tensor) -> Tensor:
        return self.features(tokens_BT)[:, 0]


def policy() -> LSTMPolicy:
    return LSTMPolicy(4, start_token=0, embed_size=4, hidden_size=4, seed=1).eval()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    config = MLEConfig(task="toy", epochs=1, embed_size=4, hidden_size=4, threads=1, runs=folder, show_samples=0)
    return launch(config, MLE).path


# -- The gradient, and how far its estimates agree --------------------------------------------------------------------
def test_signal_and_noise_of_two_estimates_by_hand() -> None:
    estimates = Estimates()
    estimates.add(torch.tensor([3.0, 0.0]))
    estimates.add(torch.tensor([1.0, 0.0]))
    # The product of the two is 3, their mean square norm 5, so 2 is left for noise.
    assert estimates.norm == pytest.approx(math.sqrt(5))
    assert estimates.signal_to_noise == pytest.approx(math.sqrt(3 / 2))


@pytest.mark.parametrize(("gradients", "expected"), [
    ([[1.0, 0.0], [0.0, 1.0]], 0.0), ([[1.0], [-1.0]], 0.0), ([[0.0], [0.0]], 0.0), ([[2.0], [2.0]], math.inf),
], ids=["at right angles", "against each other", "no gradient", "without noise"])  # fmt: skip
def test_signal_to_noise_at_its_ends(gradients: list[list[float]], expected: float) -> None:
    estimates = Estimates()
    for gradient in gradients:
        estimates.add(torch.tensor(gradient))
    assert estimates.signal_to_noise == expected


def test_the_signal_of_many_noisy_estimates_is_that_of_their_law() -> None:
    estimates = Estimates()
    for gradient_P in torch.randn(4000, 9, generator=torch.Generator().manual_seed(0)):
        estimates.add(gradient_P + 0.5)
    # Mean vector of norm 1.5, noise of norm 3.
    assert estimates.signal_to_noise == pytest.approx(0.5, abs=0.03)


def plain_gradient(writer: LSTMPolicy, tokens_BT: Tensor, credit: float) -> Tensor:
    """Text by text: the mean of credit times the gradient of the log-probability of the whole text."""
    weights = [weight for weight in writer.parameters() if weight.requires_grad]
    total = torch.zeros(())
    for tokens_T in tokens_BT:
        logp = writer.log_prob(tokens_T[None], torch.ones(1, 4, dtype=torch.bool)).sum()
        total = total - credit * torch.cat([part.flatten() for part in torch.autograd.grad(logp, weights)])
    return total / len(tokens_BT)


@pytest.mark.parametrize("logit", [0.0, -12.0])
def test_gradients_under_a_judge_that_says_the_same_of_all_texts(logit: float) -> None:
    writer, task = policy(), ToyTask()
    batches = [written(writer, task, 6, seed) for seed in (1, 2)]
    found = dynamics.gradient_estimates(writer, SameForAll(logit), batches)  # type: ignore[arg-type]
    # Six texts share the values at the ranks 1 to 6, whose mean is 1/2.
    credit = {
        "prob": 1 / (1 + math.exp(-logit)), "log": -math.log(1 + math.exp(-logit)), "logit": logit,
        "rank": 0.5, "prob, baseline": 0.0,
    }  # fmt: skip
    assert list(found) == list(credit)
    for name, value in credit.items():
        squares = [float(plain_gradient(writer, texts.tokens_BT, value).square().sum()) for texts in batches]
        assert found[name].norm == pytest.approx(math.sqrt(sum(squares) / 2), rel=1e-4, abs=1e-9), name


def test_vanishing_follows_d_from_knowing_nothing(run: Path) -> None:
    first, last = dynamics.measure_vanishing(Vanishing(run, texts=40, epochs=(0, 12), batches=2, batch_size=8))
    assert (first["epoch"], last["epoch"]) == (0, 12)
    for name in ("real_train", "real_valid", "written"):
        assert first[name] == pytest.approx(0.5, abs=0.01)
    # All scores are near 1/2 at first, so the baseline takes nearly everything away, and rank makes differences full.
    assert first["norm prob, baseline"] < 0.05 * first["norm prob"] < 0.1 * first["norm rank"]
    assert last["real_train"] > first["real_train"]
    assert_refused("batches", dynamics.measure_vanishing, Vanishing(run, batches=1))


# -- The chase --------------------------------------------------------------------------------------------------------
def test_row_i_is_d_of_round_i_and_column_j_texts_of_g_of_round_j(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rounds = {"d": 0, "g": 0}

    def d_batch(agent: SeqGAN, step: Step, lr_scale: float = 1.0) -> dict[str, float]:
        if not step.is_last:
            return {}
        # Its logit is its own number, more by a half for each token 2 of the text.
        judge = agent.discriminator
        assert isinstance(judge, PairDiscriminator)
        with torch.no_grad():
            judge.left.zero_()
            judge.single.zero_()[2] = 0.5
            judge.output.bias.fill_(rounds["d"])
        rounds["d"] += 1
        return {}

    def g_step(agent: SeqGAN, step: Step) -> dict[str, float]:
        rounds["g"] += 1
        with torch.no_grad():
            agent.policy.projection.bias.zero_()[rounds["g"]] = 100.0  # from now on it writes nothing else
        return {}

    monkeypatch.setattr(SeqGAN, "d_batch", d_batch)
    monkeypatch.setattr(SeqGAN, "g_step", g_step)
    score_DG = dynamics.measure_chase(Chase(run, rounds=2, g_steps=1, texts=10))
    assert score_DG.shape == (3, 4)
    # D is changed 3 times before the first round, then once a round: its numbers are 2, 3, 4.
    sigmoid = [[1 / (1 + math.exp(-number - more)) for more in (0.0, 2.0)] for number in (2, 3, 4)]
    assert score_DG[:, 1:3] == pytest.approx(np.array(sigmoid), rel=1e-5)
    assert (np.diff(score_DG, axis=0) > 0).all()


def test_what_the_matrix_says_in_means() -> None:
    score_DG = np.array([[0.1, 0.5, 0.0, 0.9], [0.2, 0.2, 0.7, 0.8], [0.3, 0.4, 0.3, 0.7]])
    said = "mean D: its own G 0.200, the next G 0.600, older G 0.300, real text 0.800"
    assert dynamics.chase_summary(score_DG) == said


# -- Learning curves --------------------------------------------------------------------------------------------------
def logged(root: Path, name: str, values: list[tuple[str, float]], **config: object) -> Path:
    folder = RunFolder.create(root, name, config=config)
    with MetricLog(folder.path, tensorboard=False) as log:
        for step, (phase, value) in enumerate(values, start=1):
            log.write(step, {"nll_valid": value, "loss": 1.0}, phase)
    return folder.path


def test_a_run_begins_where_the_run_it_was_pretrained_by_ends(tmp_path: Path) -> None:
    before = logged(tmp_path, "mle", [("mle", 9.0), ("mle", 8.0)])
    after = logged(tmp_path, "seqgan", [("pretrain_d", 8.0), ("adversarial", 7.0)], pretrained=str(before))
    assert curves.curve_rows((before, after)) == [
        {"step": 1, "nll_valid 0": 9.0},
        {"step": 2, "nll_valid 0": 8.0},
        {"step": 3, "phase": "pretrain_d", "nll_valid 1": 8.0},
        {"step": 4, "phase": "adversarial", "nll_valid 1": 7.0},
    ]
    assert [row["step"] for row in curves.curve_rows((after,))] == [1, 2]
    alone = {"step": 1, "nll_valid 1": 7.0}
    assert curves.curve_rows((before, after), ("nll_valid",), "adversarial") == [alone]


def test_runs_of_one_name_are_one_line_with_the_range_of_its_seeds() -> None:
    rows: list[dict[str, Any]] = [
        {"step": 1, "fit 0": 4.0}, {"step": 2, "fit 0": 2.0}, {"step": 1, "fit 1": 1.0}, {"step": 1, "fit 2": 3.0},
        {"step": 2, "phase": "rl", "fit 1": 1.5}, {"step": 2, "cover 0": 9.0},
    ]  # fmt: skip
    assert curves.of_settings(rows, ("cover", "fit"), ("PPO", "MLE", "PPO")) == [
        {"step": 1, "fit of PPO": 3.5, "fit of PPO low": 3.0, "fit of PPO high": 4.0, "fit of MLE": 1.0},
        {"step": 2, "phase": "rl", "fit of MLE": 1.5},  # one of PPO's two runs has no fit there, no run of it a cover
    ]


@pytest.mark.parametrize("result", ["bound", "budget", "gad", "goals_grammar", "regimes"])
def test_the_picture_of_a_kept_result_is_drawn_from_its_numbers_alone(
    result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "IMAGES", tmp_path)
    monkeypatch.setattr("benchmarks.budget.image_path", lambda name: tmp_path / f"{name}.png")
    monkeypatch.setattr("benchmarks.goal_report.image_path", lambda name: tmp_path / f"{name}.png")
    path = pictures.Again(result=result).draw()
    assert path == tmp_path / f"{result}.png"
    with Image.open(path) as picture:
        assert picture.width > 800


def test_a_kept_result_without_a_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    assert_refused("no kept result", pictures.Again(result="none").draw)
    (tmp_path / "rows.json").write_text('{"command": "python -m benchmarks.policies --task toy"}')
    assert_refused("has no picture", pictures.Again(result="rows").draw)


def test_a_curve_without_runs_or_numbers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "IMAGES", tmp_path)
    assert_refused("run folder", pictures.Curve(()).draw)
    run = logged(tmp_path, "mle", [("mle", 9.0)])
    assert_refused("name", pictures.Curve((run, run), names=("one",)).draw)
    assert_refused("nll_valid", pictures.Curve((logged(tmp_path, "mle", []),)).draw)


# -- Rollouts ---------------------------------------------------------------------------------------------------------
def test_the_traced_text_is_the_one_of_the_seed(run: Path) -> None:
    """What its numbers are, tests/test_traces.py says."""
    traced, task = dynamics.measure_rollouts(Rollouts(run, rollouts=2, d_epochs=1, seed=3))
    expected = written(load_policy(run)[0], task, 1, 3)
    assert list(traced.tokens) == expected.tokens_BT[expected.mask_BT].tolist()
    assert [len(completions) for completions in traced.completions] == [2, 2, 2, 0]


def test_largest_changes_are_found_in_order() -> None:
    assert dynamics.largest_changes([0.5, 0.6, 0.2, 0.2, 0.5], 2) == [2, 4]
    assert dynamics.largest_changes([0.5], 3) == []


# -- The commands -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("kind", "options"), [
    (Credit, {"rollouts": 2}), (Vanishing, {"texts": 16, "epochs": (0, 1), "batches": 2, "batch_size": 4}),
    (Chase, {"rounds": 1, "g_steps": 1, "texts": 8}), (Rollouts, {"d_epochs": 1, "seed": 3}),
], ids=["credit", "vanishing", "chase", "rollouts"])  # fmt: skip
def test_each_picture_is_a_small_png_of_readable_width(
    run: Path, kind: type, options: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "IMAGES", tmp_path / "images")
    path = kind(run=run, **options).draw()
    assert path == tmp_path / "images" / f"{kind.__name__.lower()}.png"
    with Image.open(path) as picture:
        assert 400 <= picture.width <= 1000
        assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20
    assert path.stat().st_size < 80_000


def test_the_moving_picture_grows_token_by_token_and_stands_at_the_end_of_a_text(tmp_path: Path) -> None:
    told = [("one", ["a", "cat"], [0.2, 0.9]), ("two", ["dog"], [0.5])]
    shown = [frame for each in told for frame in moving.frames(*each)]
    assert [milliseconds for _, milliseconds in shown] == [450, 2200, 2200]
    moving.save_gif(shown, tmp_path / "a.gif")
    with Image.open(tmp_path / "a.gif") as picture:
        assert (picture.format, getattr(picture, "n_frames", 0), picture.info["loop"]) == ("GIF", 3, 0)


@pytest.mark.parametrize("name", diagrams.DIAGRAMS)
def test_a_diagram_is_the_one_of_the_docs_and_its_lines_stay_on_the_card(name: str) -> None:
    drawn = diagrams.DIAGRAMS[name]()
    assert diagrams.path_of(name).read_text("utf-8") == drawn.svg()
    root = ElementTree.fromstring(drawn.svg())
    shapes = root.findall("{http://www.w3.org/2000/svg}rect")
    assert len(shapes) > 4
    for shape in shapes:
        for start, size, most in (("x", "width", drawn.width), ("y", "height", drawn.height)):
            assert float(shape.attrib[start]) >= 0
            assert float(shape.attrib[start]) + float(shape.attrib[size]) <= most


def test_an_index_is_set_lower_and_text_is_escaped() -> None:
    drawn = diagrams.Diagram(100, 50, "a < b")
    drawn.text((1, 2), "y_{t} < z")
    assert ">t</tspan>" in drawn.svg()
    assert "".join(ElementTree.fromstring(drawn.svg()).itertext()).count("a < b") == 1
    assert "&lt; z" in drawn.svg()


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_a_command_says_where_its_picture_is(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "IMAGES", tmp_path)
    pictures.main(["curve", "--runs", str(run), "--name", "mine"])
    assert capsys.readouterr().out == f"{tmp_path / 'mine.png'}\n"
    assert (tmp_path / "mine.png").stat().st_size < 80_000


def test_the_plane_has_a_line_a_seed_and_marks_temperature_one(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(planes, "kept_suite", lambda name: {"results": RESULTS})
    monkeypatch.setattr(planes, "save_figure", lambda figure, path, title: drawn.append(figure))
    planes.draw_plane(pictures.Plane(result="mine", policies=("mle",), names=("MLE",)))
    *curves, marks = drawn[0].axes[0].get_lines()
    assert [len(curve.get_xdata()) for curve in curves] == [len(result["curve"]) for result in RESULTS]
    assert [*zip(marks.get_xdata(), marks.get_ydata(), strict=True)] == [
        (at["cover"], at["fit"]) for result in RESULTS for at in result["curve"] if at["temperature"] == 1
    ]
    assert marks.get_label() == f"MLE, {len(RESULTS)} seeds"
    missing = pictures.Plane(result="mine", policies=("mle", "leakgan"))
    assert_refused("'mine' holds no curve of cover and fit of 'leakgan'", planes.draw_plane, missing)
    unnamed = pictures.Plane(result="mine", policies=("mle",), names=("a", "b"))
    assert_refused("a name a policy is needed, found 2 for 1 policies", planes.draw_plane, unnamed)
