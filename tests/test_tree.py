"""Tree search: it finds the best text, follows G where values say nothing, and its states are those of its prefixes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from conftest import assert_refused, step_of
from exact import best_discriminator, table_policy
from test_expert_iteration import TASK, learner, number_of, probabilities
from textgan_env.ops import tiles
from textgan_env.policies import LSTMPolicy, PolicyModule, TablePolicy
from textgan_env.rewards import Keys, Texts, TreeSearch, generate, tree

Value = Callable[[Texts], Tensor]


def alike(texts: Texts) -> Tensor:
    """A value that knows nothing."""
    return torch.full((len(texts),), 0.5)


def of_discriminator(policy: PolicyModule) -> tuple[Value, Tensor]:
    """Values of texts by the best discriminator, and in the order of ``texts_ST``."""
    value_S = best_discriminator(TASK, policy).logits(TASK.texts_ST).sigmoid()
    return lambda texts: value_S[number_of(texts.tokens_BT)], value_S


def numbers_of(search: TreeSearch, rows: int = 64) -> Tensor:
    return number_of(search.generate(Keys.counted(0, rows), TASK.max_length).tokens_BT)


def test_with_many_simulations_it_finds_the_best_text_of_all() -> None:
    policy = table_policy(TASK)
    value, value_S = of_discriminator(policy)
    found_B = numbers_of(TreeSearch(policy, value, simulations=400, width=3, temperature=0.05), 16)
    assert (found_B == value_S.argmax()).all()
    assert probabilities(policy)[value_S.argmax()] < 0.05  # G alone would hardly write it


def test_a_few_simulations_write_texts_of_more_value_than_g() -> None:
    policy = table_policy(TASK)
    value, value_S = of_discriminator(policy)
    mean = float((probabilities(policy) * value_S).sum())
    assert float(value_S[numbers_of(TreeSearch(policy, value, simulations=8, width=3), 2000)].mean()) > mean + 0.05


def test_where_all_texts_have_one_value_many_simulations_write_as_g_does_and_few_leave_out_what_is_rare() -> None:
    """So the true distribution is a fixed point of the search only as simulations and width grow."""
    policy, q_S = table_policy(TASK), probabilities(table_policy(TASK))
    many, few = (
        torch.bincount(numbers_of(TreeSearch(policy, alike, simulations=number, width=3), 3000), minlength=27) / 3000
        for number in (100, 4)
    )
    assert float((many - q_S).abs().sum()) < 0.1
    assert float((few - q_S).abs().sum()) > 0.3
    assert int((few == 0).sum()) > 5


def test_a_forbidden_token_is_never_tried() -> None:
    """Two of five tokens may be written: the search is as wide as all five, and tries what has no value."""
    policy = TablePolicy(5, max_length=3, forbidden=(0, 2, 4)).double()
    seen = []

    def value(texts: Texts) -> Tensor:
        seen.append(texts.tokens_BT)
        return torch.zeros(len(texts))

    texts = TreeSearch(policy, value, simulations=30, width=5).generate(Keys.counted(0, 8), 3)
    tried_R = torch.cat([*seen, texts.tokens_BT]).flatten()
    assert set(tried_R.tolist()) == {1, 3}


def test_a_text_that_ends_is_a_leaf_with_its_own_value() -> None:
    """Token 0 ends a text. Only the text of the end token alone has a value; without more rewards it is found."""
    policy, seen = TablePolicy(3, max_length=4), []

    def value(texts: Texts) -> Tensor:
        seen.append((texts.tokens_BT, texts.lengths_B))
        return (texts.lengths_B == 1).float()

    search = TreeSearch(policy, value, simulations=60, width=3, temperature=0.05)
    texts = search.generate(Keys.counted(0, 8), 4, end_token=0)
    assert (texts.lengths_B == 1).all()
    assert texts.tokens_BT.tolist() == [[0, 3, 3, 3]] * 8
    for tokens_BT, length_B in seen:
        for text, length in zip(tokens_BT.tolist(), length_B.tolist(), strict=True):
            assert text[length:] == [3] * (4 - length)
            assert 0 not in text[: length - 1]
            assert length == 4 or text[length - 1] == 0


def lstm() -> LSTMPolicy:
    return LSTMPolicy(7, start_token=7, embed_size=4, hidden_size=5, seed=2).eval()


def test_the_state_of_each_node_is_that_of_its_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every expansion is compared with the logits of the prefix read again from its first token."""
    policy, compared = lstm(), []
    expand = tree._Tree._expand

    def checked(self: Any, row_r: Tensor, node: int, logits_rV: Tensor) -> None:
        for row, logits_V in zip(row_r.tolist(), logits_rV, strict=True):
            state, last = policy.begin(1), policy.start_token
            for token in [*self.tokens_bNT[row, node, : self.length_bN[row, node]].tolist(), None]:
                logits_1V, state = policy.step(torch.tensor([last]), state)
                last = token
            torch.testing.assert_close(logits_V.log_softmax(0), logits_1V[0].log_softmax(0), atol=1e-6, rtol=1e-5)
            compared.append(row)
        expand(self, row_r, node, logits_rV)

    monkeypatch.setattr(tree._Tree, "_expand", checked)
    values = lambda texts: (texts.tokens_BT.double().sum(1) * 0.37).sin().square()  # noqa: E731
    TreeSearch(policy, values, simulations=12, width=4).generate(Keys.counted(3, 3), 5, end_token=0)
    assert len(compared) > 100


def test_neither_other_rows_nor_tiles_change_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    values = lambda texts: (texts.tokens_BT.double().sum(1) * 0.37).sin().square()  # noqa: E731
    search, keys = TreeSearch(lstm(), values, simulations=6, width=4), Keys.counted(3, 50)
    whole_BT = search.generate(keys, 5, end_token=0).tokens_BT
    order_B = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    assert torch.equal(search.generate(keys[order_B], 5, end_token=0).tokens_BT, whole_BT[order_B])
    monkeypatch.setattr(tree, "TILE", tiles.Tile(cpu=33, gpu=33))
    assert torch.equal(search.generate(keys, 5, end_token=0).tokens_BT, whole_BT)
    assert not torch.equal(generate(lstm(), keys, 5, end_token=0)[0], whole_BT)


def test_the_agent_learns_what_the_tree_finds() -> None:
    agent = learner(table_policy(TASK), search="tree", batch_size=64, simulations=8)
    texts, _ = agent.searched(torch.Generator().manual_seed(step_of(0, "test").seed))
    before = TASK.text_log_prob(agent.policy)[number_of(texts.tokens_BT)].mean()
    agent.g_step(step_of(0, "test"))
    assert TASK.text_log_prob(agent.policy)[number_of(texts.tokens_BT)].mean() > before + 0.05


@pytest.mark.parametrize(("options", "sentence"), [
    ({"simulations": 0}, "simulations"), ({"width": 0}, "width"), ({"c_puct": 0.0}, "c_puct must be above 0"),
    ({"temperature": -1.0}, "temperature must be above 0"),
])  # fmt: skip
def test_numbers_out_of_range_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, TreeSearch, table_policy(TASK), alike, **options)
