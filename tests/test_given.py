"""Templates: exact by enumeration on a table, the same in every engine, and from text to tokens in every mode."""

import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import textgan_env
from agents.cli import main
from agents.mle import MLE, PRESETS
from conftest import assert_refused, make_run, mistake_of
from textgan_env.envs import TextGANVectorEnv
from textgan_env.evaluation import blank_nll, nll, template_of
from textgan_env.ops.sampling import derived_generator
from textgan_env.ops.templates import draw_templates, followed_cells
from textgan_env.policies import BLANK, Decoding, GivenPolicy, InfillingPolicy, LSTMPolicy, PolicyModule, TablePolicy
from textgan_env.rewards import Keys, complete, generate
from textgan_env.show.saved import SavedRun
from textgan_env.tasks import ToyTask, make_task

V, T = 3, 4
PAD = V
HALF = [[BLANK, 1, BLANK, 2]]


def table(seed: int = 0, vocab_size: int = V, length: int = T) -> TablePolicy:
    """A random table, float64."""
    policy = TablePolicy(vocab_size, max_length=length, start_token=0).double()
    with torch.no_grad():
        policy.logits_PV.normal_(0, 1, generator=derived_generator(seed))
    return policy


def infilling(**options: Any) -> InfillingPolicy:
    made = InfillingPolicy(
        V, start_token=PAD, max_length=T, embed_size=3, hidden_size=4, init_scale=1.0, seed=1, **options
    )
    return made.double().eval()


def texts_of(template: Sequence[int]) -> Tensor:
    """All texts without an early end that keep to a template, int64."""
    return torch.tensor([*itertools.product(*([*range(V)] if token == BLANK else [token] for token in template))])


def everywhere(tokens_BT: Tensor) -> Tensor:
    return torch.ones_like(tokens_BT, dtype=torch.bool)


def scored(policy: PolicyModule, tokens_BT: Tensor) -> Tensor:
    """Log-probability of every token."""
    with torch.no_grad():
        return policy.log_prob(tokens_BT, everywhere(tokens_BT))


# -- Exact on a table -------------------------------------------------------------------------------------------------
def test_the_fillings_of_a_template_are_as_probable_as_the_policy_makes_them_at_blanks() -> None:
    policy, texts_ST = table(), texts_of(HALF[0])
    given = policy.given(torch.tensor(HALF))
    found_ST, plain_ST = scored(given, texts_ST), scored(policy, texts_ST)
    assert found_ST[:, [1, 3]].abs().max() == 0
    assert torch.equal(found_ST[:, [0, 2]], plain_ST[:, [0, 2]])
    assert float(found_ST.sum(1).exp().sum()) == pytest.approx(1, abs=1e-12)
    other_1T = torch.tensor([[0, 0, 0, 2]])
    assert scored(given, other_1T)[0].tolist()[1] == -math.inf


@pytest.mark.parametrize("make", [table, infilling])
@pytest.mark.parametrize("decoding", [Decoding(), Decoding(0.5), Decoding(top_k=2), Decoding(deterministic=True)])
@pytest.mark.parametrize("end_token", [None, 0])
def test_steps_say_what_log_prob_says(make: Any, decoding: Decoding, end_token: int | None) -> None:
    given = make().given(torch.tensor(HALF), end_token).with_decoding(decoding)
    texts_ST = texts_of(HALF[0])
    logp_ST = scored(given, texts_ST)
    with torch.no_grad():
        stepped_ST = PolicyModule.log_prob(given, texts_ST, everywhere(texts_ST))
    assert torch.allclose(logp_ST, stepped_ST, atol=1e-9)
    assert float(logp_ST.sum(1).exp().sum()) == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("make", [table, infilling])
def test_a_text_does_not_end_before_what_is_given_and_may_end_where_the_rest_is_blank(make: Any) -> None:
    policy, end = make(), 0
    template_1T = torch.tensor([[BLANK, 1, BLANK, BLANK]])
    given = policy.given(template_1T, end)
    texts_3T = torch.tensor([[0, 1, 2, 2], [2, 1, 0, PAD], [2, 1, 2, 0]])
    at_first = torch.tensor([[True, False, False, False]])
    reading = policy.reading(template_1T)
    with torch.no_grad():
        logp_3T = given.log_prob(texts_3T, texts_3T != PAD)
        plain_3T = reading.log_prob(texts_3T, texts_3T != PAD)
        log_end = float(reading.log_prob(texts_3T[:1], at_first)[0, 0])
    assert logp_3T[0, 0] == -math.inf
    assert float(logp_3T[1, 0]) == pytest.approx(float(plain_3T[1, 0]) - math.log1p(-math.exp(log_end)), abs=1e-9)
    assert logp_3T[1:, 1].tolist() == [0, 0]
    torch.testing.assert_close(logp_3T[1:, 2:], plain_3T[1:, 2:])


@pytest.mark.parametrize("make", [table, infilling])
def test_all_blank_is_the_policy_itself_and_none_blank_learns_nothing(make: Any) -> None:
    policy, texts_ST = make(), texts_of([BLANK] * T)
    blank = policy.given(torch.full((1, T), BLANK))
    assert torch.equal(scored(blank, texts_ST), scored(policy, texts_ST))
    keys = Keys.counted(3, 20)
    assert torch.equal(generate(blank, keys, T)[0], generate(policy, keys, T)[0])
    whole = policy.given(torch.tensor([[2, 1, 1, 2]]), 0)
    logp_1T = whole.log_prob(torch.tensor([[2, 1, 1, 2]]), everywhere(torch.tensor(HALF)))
    weights = [weight for weight in policy.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad(logp_1T.sum(), weights, allow_unused=True)
    assert logp_1T.tolist() == [[0] * T]
    assert all(part is None or float(part.abs().sum()) == 0 for part in gradients)


def test_the_policy_that_reads_templates_knows_what_follows_a_blank_and_no_more() -> None:
    policy = infilling()
    first_BT, second_BT = torch.tensor([[BLANK, 1, BLANK, 2]]), torch.tensor([[BLANK, 1, BLANK, 0]])
    text_1T = torch.tensor([[0, 1, 0, 2]])
    told = [scored(policy.given(one), text_1T)[0, 0] for one in (first_BT, second_BT)]
    assert float((told[0] - told[1]).abs()) > 1e-4
    other_1T = torch.tensor([[0, 1, 2, 2]])  # what else is filled in later
    assert torch.equal(scored(policy.given(first_BT), other_1T)[0, 0], told[0])
    plain = [scored(table().given(one), text_1T)[0, 0] for one in (first_BT, second_BT)]
    assert torch.equal(*plain)


# -- The engines ------------------------------------------------------------------------------------------------------
ROWS = torch.tensor([[BLANK, 1, BLANK, 2], [0, 0, BLANK, 1], [BLANK, BLANK, BLANK, BLANK], [2, PAD, PAD, PAD]])


@pytest.mark.parametrize("make", [table, infilling])
def test_generated_and_completed_texts_keep_to_the_template_of_their_row(make: Any) -> None:
    given = make().given(ROWS[:3])
    tokens_BT, _ = generate(given, Keys.counted(1, 3), T)
    here_BT = ROWS[:3] != BLANK
    assert torch.equal(tokens_BT[here_BT], ROWS[:3][here_BT])
    wanted_BT = torch.zeros_like(here_BT)
    wanted_BT[:, 1] = wanted_BT[:, 3] = True
    done = complete(given, tokens_BT, wanted_BT, keys=Keys.counted(2, 3), rollouts=8)
    assert len(done.tokens_RT) == 3 * 2 * 8
    template_RT = ROWS[done.row_R]
    assert torch.equal(done.tokens_RT[template_RT != BLANK], template_RT[template_RT != BLANK])
    assert len(done.tokens_RT[(done.row_R == 2) & (done.prefix_R == 1)].unique(dim=0)) > 3
    scored_BT = scored(given, tokens_BT)
    assert bool((scored_BT[here_BT] == 0).all())
    assert bool(torch.isfinite(scored_BT).all())


def test_draws_are_as_frequent_as_they_are_probable() -> None:
    given, rows = table().given(torch.tensor(HALF)), 4000
    tokens_BT, _ = generate(given, Keys.counted(5, rows), T)
    texts_ST = texts_of(HALF[0])
    expected_S = rows * scored(given, texts_ST).sum(1).exp()
    found_S = (tokens_BT[:, None] == texts_ST).all(2).sum(0)
    assert int(found_S.sum()) == rows
    assert float(((found_S - expected_S) ** 2 / expected_S).sum()) < 26  # chi-square, 8 degrees: p = .001


def test_an_environment_stepped_and_collected_needs_to_know_nothing_of_templates() -> None:
    task = ToyTask(vocab_size=V, max_length=T, size=50)
    envs = TextGANVectorEnv(3, task, control="constant")
    given = table().float().given(ROWS[:3])
    envs.reset(seed=4)
    batch = envs.collect(given)
    here_BT = ROWS[:3] != BLANK
    assert torch.equal(batch.tokens_BT[here_BT], ROWS[:3][here_BT])
    envs.reset(seed=4)
    state, last_B = given.begin(3), torch.full((3,), given.start_token)
    for _ in range(2):  # a second text in the same rows
        for position in range(T):
            with torch.no_grad():
                logits_BV, state = given.step(last_B, state)
            last_B = logits_BV.argmax(1)
            _, _, ended_B, _, _ = envs.step(last_B.numpy())
            expected_B = ROWS[:3, position]
            assert torch.equal(last_B[expected_B != BLANK], expected_B[expected_B != BLANK])
        assert np.all(ended_B)
        state, last_B = given.reset_rows(state, torch.from_numpy(ended_B)), torch.full((3,), given.start_token)


def test_likelihoods_of_texts_of_several_lengths_use_the_template_of_each() -> None:
    policy, end = LSTMPolicy(V, start_token=PAD, embed_size=3, hidden_size=4, init_scale=1.0, seed=2).eval(), 2
    tokens_BT = torch.tensor([[0, 1, 0, 2], [0, 0, 2, PAD], [0, 1, 1, 0], [1, 2, PAD, PAD]])
    template_BT = torch.tensor([[BLANK, 1, BLANK, 2], [0, BLANK, 2, PAD], [BLANK] * 4, [BLANK, 2, PAD, PAD]])
    mask_BT = tokens_BT != PAD
    given = policy.given(template_BT, end)
    _, found_B = nll(given, tokens_BT, mask_BT)
    for row in range(4):
        one = policy.given(template_BT[row : row + 1], end)
        with torch.no_grad():
            logp_T = PolicyModule.log_prob(one, tokens_BT[row : row + 1], mask_BT[row : row + 1])[0]
        assert float(found_B[row]) == pytest.approx(-float(logp_T.sum()) / int(mask_BT[row].sum()), abs=1e-6)


@pytest.mark.parametrize(("template", "sentence"), [
    ([[V + 1, 0, 0, 0]], "0 to 2, -1 for a blank"), ([[-2, 0, 0, 0]], "found -2"), ([0, 1], r"shape \(B, T\)"),
    ([[PAD, 0, 0, 0]], "nothing may follow"), ([[1, 0, BLANK, 0]], "nothing may follow"),
])  # fmt: skip
def test_what_is_no_template_is_refused(template: Any, sentence: str) -> None:
    assert_refused(sentence, table().given, torch.tensor(template), 1)


def test_templates_of_other_texts_or_lengths_are_refused() -> None:
    assert_refused("templates of 4 texts, asked for 3", table().given(ROWS).begin, 3)
    assert_refused("T=4 places, found 2", infilling().given, torch.tensor([[BLANK, 1]]))
    assert_refused("int64", table().given, torch.zeros(1, 4))


# -- Where blanks stand -----------------------------------------------------------------------------------------------
def test_contiguous_blanks_stand_everywhere_alike_and_are_as_many_as_the_rate_says() -> None:
    tokens_BT = torch.tensor([[0, 1, 2, 0, 1, 2]]).repeat(4000, 1)
    template_BT = draw_templates(tokens_BT, V, torch.full((4000,), 0.5), derived_generator(1), contiguous=True)
    blank_BT = template_BT == BLANK
    assert bool((blank_BT.sum(1) == 3).all())
    first_B = blank_BT.long().argmax(1)
    assert bool((blank_BT.gather(1, first_B[:, None] + torch.arange(3))).all())
    count_4 = first_B.bincount(minlength=4)
    assert len(count_4) == 4
    assert float((count_4 - 1000).abs().max()) < 130  # more than 4 standard deviations
    assert torch.equal(template_BT[~blank_BT], tokens_BT[~blank_BT])


@pytest.mark.parametrize("contiguous", [True, False])
def test_rates_are_of_the_text_without_padding_and_a_blank_end_hides_the_length(contiguous: bool) -> None:
    tokens_BT = torch.tensor([[0, 1, 2, 0, 0, 0, 2, 1], [1, 0, PAD, PAD, PAD, PAD, PAD, PAD]] * 300)
    for rate, wanted in ((0.0, (1, 1)), (0.25, (2, 1)), (1.0, (8, 2))):
        rates_B = torch.full((600,), rate)
        template_BT = draw_templates(tokens_BT, V, rates_B, derived_generator(2), contiguous=contiguous)
        blank_BT = template_BT == BLANK
        inside_B = (blank_BT & (tokens_BT != PAD)).sum(1)
        assert (set(inside_B[::2].tolist()), set(inside_B[1::2].tolist())) == ({wanted[0]}, {wanted[1]})
        end_is_blank_B = blank_BT[1::2, 1]
        assert torch.equal(blank_BT[1::2, 2:].all(1), end_is_blank_B)
        assert torch.equal(blank_BT[1::2, 2:].any(1), end_is_blank_B)
        assert bool(end_is_blank_B.any())


def test_cells_that_given_tokens_follow() -> None:
    assert followed_cells(ROWS, V).tolist() == [
        [True, True, True, False], [True, True, True, False], [False] * 4, [False] * 4,
    ]  # fmt: skip


# -- From text --------------------------------------------------------------------------------------------------------
LINES = [f"{a} {b} {c}." for a in ("the", "a") for b in ("cat", "dog", "hen") for c in ("sat", "ran", "ate", "hid")]
LINES.append("the cat sat and ran.")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> SavedRun:
    file = tmp_path_factory.mktemp("given") / "my.txt"
    file.write_text("\n".join(LINES))
    return textgan_env.load(make_run(MLE, PRESETS["smoke"], file, epochs=1).path)


def test_a_run_fills_the_blanks_of_a_template_and_writes_the_rest(run: SavedRun) -> None:
    texts = run.sample(30, template="the ___ ran.", seed=1)
    assert len(set(texts)) > 2
    for text in texts:
        first, _, last = text.replace(".", " .").split()[0], None, text.replace(".", " .").split()[-2:]
        assert (first, last) == ("the", ["ran", "."])
    assert run.sample(3, template="the ___ ran.", seed=1) == texts[:3]
    assert len(set(run.sample(9, template="the ___ ran.", top_k=1))) == 1
    assert all(len(text.replace(".", " .").split()) == 4 for text in run.sample(20, template="______ ran."))


@pytest.mark.moves_global_rng  # the library that reads command lines
@pytest.mark.parametrize(("template", "sentence"), [
    ("the cat ran.", "at least one blank, written as ___"), ("the ___ yak", "'yak' is not among the"),
    ("___ " * 40, "at most"), ("the ___ <eos>", "'<eos>' is not among"), ("", "at least one blank"),
])  # fmt: skip
def test_a_template_that_is_none_is_one_sentence(
    run: SavedRun, template: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(sentence, run.sample, 2, template=template)
    assert sentence in mistake_of(main, ["sample", str(run.folder.path), "--template", template], capsys)


@pytest.mark.moves_global_rng  # likewise
def test_the_command_fills_blanks(run: SavedRun, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    main(["sample", str(run.folder.path), "-n", "4", "--template", "a ___ hid."])
    assert capsys.readouterr().out.splitlines() == run.sample(4, template="a ___ hid.")
    both = ["sample", str(run.folder.path), "--template", "a ___", "--prefix", "a"]
    assert "give no prefix beside it" in mistake_of(main, both, capsys)


def test_where_tokens_mean_nothing_a_template_is_numbers_and_the_rest_is_blank() -> None:
    task = ToyTask(vocab_size=5, max_length=6, size=10)
    assert template_of(task, "3 ___ 2").tolist() == [[3, BLANK, 2, BLANK, BLANK, BLANK]]
    assert_refused("found '20'", template_of, task, "3 ___ 20")
    assert_refused("at most 6 tokens, found 7", template_of, task, "___ " * 7)


@pytest.mark.parametrize(("mode", "template", "expected"), [
    ("word", "the ___ ran.", ["the", None, "ran", "."]), ("word", "___ cat___", [None, "cat", None]),
    ("whitespace", "the ___ ran.", ["the", None, "ran."]), ("char", "the ___at", ["t", "h", "e", " ", None, "a", "t"]),
    ("bpe", "the ___ ran.", ["the", None, "\u0120ran", "."]), ("bpe", "the c___", ["the", "\u0120c", None]),
])  # fmt: skip
def test_what_a_blank_is_in_each_mode(mode: Any, template: str, expected: list[str | None], tmp_path: Path) -> None:
    (tmp_path / "my.txt").write_text("\n".join(LINES))
    options = {"vocab_size": 275} if mode == "bpe" else {}
    if mode == "bpe":
        pytest.importorskip("tokenizers", reason="mode bpe needs the extra bpe")
    task = make_task("corpus", path=str(tmp_path / "my.txt"), mode=mode, **options)
    assert task.vocabulary is not None
    tokens = task.encode_template(template)
    words = [None if token == BLANK else task.vocabulary.tokens[token] for token in tokens]
    if mode == "bpe":  # whatever was merged: the same text, and the blank where it belongs
        blank = words.index(None)
        assert words.count(None) == 1
        spelled = [word for word in words if word is not None]
        assert "".join(spelled) == "".join(word for word in expected if word is not None)
        assert "".join(spelled[:blank]) == "".join(word for word in expected[: expected.index(None)] if word)
    else:
        assert words == expected
    row = template_of(task, template)[0].tolist()
    assert row[: len(tokens)] == tokens
    if task.end_token is not None:
        assert row[len(tokens)] == task.end_token
        assert set(row[len(tokens) + 1 :]) <= {task.vocab_size}


def test_the_nll_of_blanks_is_that_of_the_true_words_in_the_same_places(run: SavedRun) -> None:
    found = [run.blank_nll(split="valid", mask_rate=rate, contiguous=False, seed=1) for rate in (0.3, 0.3, 1.0)]
    assert found[0] == found[1]
    whole_BT = run.task.split("valid").tokens_BT
    assert found[2] == pytest.approx(nll(run.policy, whole_BT, run.task.scored(whole_BT))[0], abs=1e-6)
    assert_refused("mask_rate must be 0 to 1", blank_nll, run.policy, run.task, mask_rate=1.5)
    assert isinstance(run.policy.given(torch.full((1, run.task.max_length), BLANK)), GivenPolicy)
