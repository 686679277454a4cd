"""MaskGAN: its exact gradient for a template, its fixed point, critic and controls, and what is fitted where."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Self
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from agents.maskgan import MaskGAN, MaskGANConfig
from conftest import assert_refused, step_of
from exact import autograd_of, gradient_of_step, relative_error, table_policy
from textgan_env.discriminators import InfillingDiscriminator, PairDiscriminator
from textgan_env.discriminators.fit import fit_step
from textgan_env.ops.losses import baseline, group_baseline
from textgan_env.ops.reward_kinds import TRANSFORMS
from textgan_env.ops.sampling import derived_generator, seeded
from textgan_env.ops.templates import BLANK
from textgan_env.policies import InfillingPolicy, PolicyModule, TablePolicy
from textgan_env.rewards import BlankCredit, Keys, Texts
from textgan_env.tasks import ToyTask
from textgan_env.training import filling
from textgan_env.training.filling import Blanks

TASK = ToyTask(vocab_size=3, max_length=3, size=200)
PAD = 3
TEMPLATE = torch.tensor([[BLANK, 1, BLANK]])  # nine fillings, so all batches of two are 81
TINY = MaskGANConfig(
    preset="smoke", task="toy", mle_epochs=1, d_pretraining=1, rounds=2, g_steps=1, d_steps=0, d_batches=0,
    batch_size=2, fillings=2, d_batch_size=32, embed_size=3, hidden_size=3, threads=1, show_samples=0,
    max_grad_norm=1e8,
)  # fmt: skip


def fillings(template_1T: Tensor = TEMPLATE) -> Tensor:
    """All texts that keep to a template, int64."""
    fits_S = ((TASK.texts_ST == template_1T) | (template_1T == BLANK)).all(1)
    return TASK.texts_ST[fits_S]


def filling_law(policy: PolicyModule, template_1T: Tensor = TEMPLATE) -> Tensor:
    """How probable a policy makes each of them, float64, differentiable."""
    texts_FT = fillings(template_1T)
    logp_FT = policy.given(template_1T).log_prob(texts_FT, torch.ones_like(texts_FT, dtype=torch.bool))
    return logp_FT.sum(1).double().exp()


def true_law(template_1T: Tensor = TEMPLATE) -> Tensor:
    """How probable real text with this template makes them, float64."""
    fits_S = ((TASK.texts_ST == template_1T) | (template_1T == BLANK)).all(1)
    return TASK.logp_S[fits_S].softmax(0)


class BestD:
    """The best discriminator of fillings of `TEMPLATE` by a policy as it is now: log p / q of each beginning."""

    vocab_size = 3

    def __init__(self, policy: PolicyModule) -> None:
        self.q_F, self.p_F = filling_law(policy).detach(), true_law()

    def given(self, _: Tensor) -> Self:
        return self

    def token_logits(self, tokens_BT: Tensor) -> Tensor:
        logits_BT = torch.zeros(tokens_BT.shape, dtype=torch.float64)
        for t in range(tokens_BT.shape[1]):
            begins_BF = (tokens_BT[:, None, : t + 1] == fillings()[None, :, : t + 1]).all(2).double()
            logits_BT[:, t] = (begins_BF @ self.p_F).log() - (begins_BF @ self.q_F).log()
        return logits_BT


def network(seed: int = 5) -> InfillingPolicy:
    sizes = {"embed_size": 2, "hidden_size": 2, "init_scale": 1.0}
    return InfillingPolicy(3, start_token=0, max_length=3, **sizes, seed=seed).double().eval()  # type: ignore[arg-type]


def learner(policy: PolicyModule, **changes: Any) -> MaskGAN:
    """The agent with a policy, and the best discriminator against it as it is now."""
    agent = MaskGAN(replace(TINY, **changes), TASK)
    agent.policy = policy  # type: ignore[assignment]
    agent.g_optimizer = torch.optim.Adam(agent.policy.parameters(), lr=0.1)
    agent.discriminator = BestD(policy)  # type: ignore[assignment]
    return agent


@contextmanager
def one_template() -> Iterator[None]:
    """Inside, every real text has the template `TEMPLATE`."""
    with patch.object(Blanks, "draw", lambda _, tokens_BT, *__: TEMPLATE.repeat(len(tokens_BT), 1)):
        yield


def gradient(agent: MaskGAN, tokens_BT: Tensor) -> Tensor:
    """The gradient of a g-step that fills in these texts, float (P,)."""
    lengths_B = torch.full_like(tokens_BT[:, 0], 3)
    with one_template(), patch.object(filling, "generate", lambda *_, **__: (tokens_BT, lengths_B)):
        return gradient_of_step(agent, "g_optimizer", tokens_BT)


def expected_gradient(agent: MaskGAN) -> Tensor:
    """The mean of the gradient over all pairs of fillings, float (P,); of rows that do not know each other, of one."""
    law_F, texts_FT = filling_law(agent.policy).detach(), fillings()
    numbers = range(len(law_F))
    if agent.config.baseline == "leave-one-out":
        pairs = [(law_F[one] * law_F[two], [one, two]) for one in numbers for two in numbers]
    else:
        pairs = [(law_F[one], [one, one]) for one in numbers]
    return torch.stack([share * gradient(agent, texts_FT[pair]) for share, pair in pairs]).sum(0)


# -- The gradient -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("make", "options"), [
    (table_policy, {"baseline": "leave-one-out", "transform": "2p-1"}),
    (lambda _: network(), {"baseline": "none", "transform": "log"}),
], ids=["table, leave-one-out", "network"])  # fmt: skip
def test_the_expected_gradient_is_that_of_the_expected_rewards_of_the_blanks(make: Any, options: Any) -> None:
    """gamma 1: the derivative of E[sum over blanks of f(D)], D held fixed, over all fillings of the template."""
    agent = learner(make(TASK), gamma=1.0, **options)
    reward_FT = TRANSFORMS[options["transform"]](BestD(agent.policy).token_logits(fillings()))
    paid_F = reward_FT[:, [0, 2]].sum(1)
    expected_P = autograd_of(agent.policy, lambda: -(filling_law(agent.policy) * paid_F).sum())
    assert relative_error(expected_gradient(agent), expected_P) < 1e-6


def test_a_discount_weighs_what_is_paid_two_places_later() -> None:
    agent = learner(table_policy(TASK), gamma=0.5, baseline="none")
    reward_FT = TRANSFORMS["log"](BestD(agent.policy).token_logits(fillings()))
    law_F, texts_FT = filling_law(agent.policy).detach(), fillings()
    first_F, last_F = reward_FT[:, 0] + 0.25 * reward_FT[:, 2], reward_FT[:, 2]

    def objective() -> Tensor:
        logp_FT = agent.policy.given(TEMPLATE).log_prob(texts_FT, torch.ones_like(texts_FT, dtype=torch.bool))
        return -(law_F * (first_F * logp_FT[:, 0] + last_F * logp_FT[:, 2])).sum()

    assert relative_error(expected_gradient(agent), autograd_of(agent.policy, objective)) < 1e-6


def test_a_critic_that_stands_still_changes_no_expected_gradient_and_one_that_learns_comes_to_the_credit() -> None:
    plain, agent = (learner(network(), gamma=1.0, baseline=kind) for kind in ("none", "critic"))
    with seeded(0):
        agent.critic = nn.Linear(2, 1).double()
    with torch.no_grad():
        agent.critic.weight.copy_(torch.tensor([[3.0, -2.0]]))
    agent.critic_optimizer = torch.optim.SGD(agent.critic.parameters(), lr=0.0)
    assert relative_error(expected_gradient(agent), expected_gradient(plain)) < 1e-6
    agent.critic_optimizer = torch.optim.Adam(agent.critic.parameters(), lr=0.1)
    agent.config = replace(agent.config, batch_size=64)
    still: Any = torch.optim.SGD(agent.policy.parameters(), lr=0.0)
    agent.g_optimizer = still
    with one_template():
        losses = [float(agent.g_step(step_of(0, "critic", number))["critic_loss"]) for number in range(40)]
    assert losses[-1] < 0.5 * losses[0]


# -- Where it comes to rest -------------------------------------------------------------------------------------------
def test_where_the_fillings_are_as_in_real_text_the_expected_gradient_is_zero() -> None:
    fits_S = ((TASK.texts_ST == TEMPLATE) | (TEMPLATE == BLANK)).all(1)
    law_S = TASK.logp_S.exp() * fits_S
    policy = TablePolicy.from_text_probabilities(law_S, vocab_size=3, max_length=3).double()
    policy.logits_PV.data.clamp_(min=-30)  # what the template forbids anyway
    torch.testing.assert_close(filling_law(policy).detach(), true_law(), atol=1e-6, rtol=0)
    for transform in ("log", "2p-1", "logit"):
        agent = learner(policy, baseline="none", transform=transform)
        assert float(expected_gradient(agent).abs().max()) < 1e-6
    alike = learner(policy, transform="log")
    assert float(gradient(alike, fillings()[[2, 7]]).abs().max()) < 1e-6  # less the other filling's: for each batch


def test_against_the_best_discriminator_the_fillings_come_to_those_of_real_text() -> None:
    policy = TablePolicy(3, max_length=3)
    agent = learner(policy, batch_size=128, fillings=4, transform="logit", gamma=1.0)

    def distance() -> float:
        law_F = filling_law(policy).detach()
        return float((law_F * (law_F.log() - true_law().log())).sum())

    before = distance()
    with one_template():
        for number in range(50):
            agent.discriminator = BestD(policy)  # type: ignore[assignment]
            agent.g_step(step_of(0, "test", number))
    assert distance() < 0.1 * before


# -- Controls ---------------------------------------------------------------------------------------------------------
def test_a_constant_reward_moves_nothing_under_the_baseline() -> None:
    agent = MaskGAN(replace(TINY, control="constant", batch_size=16, fillings=4), TASK)
    before = copy.deepcopy(agent.policy.state_dict())
    numbers = agent.g_step(step_of(0, "test"))
    assert float(numbers["gradient_norm"]) == 0
    assert all(torch.equal(value, before[name]) for name, value in agent.policy.state_dict().items())


@pytest.mark.parametrize("control", ["random", "shuffled", "untrained"])
@pytest.mark.parametrize("baseline", ["none", "critic", "leave-one-out"])
def test_under_every_control_g_learns_and_d_only_where_it_has_a_part(control: Any, baseline: Any) -> None:
    agent = MaskGAN(replace(TINY, control=control, baseline=baseline, batch_size=16, d_batches=2), TASK)
    assert agent.discriminator is not None
    before = {name: value.clone() for name, value in agent.discriminator.state_dict().items()}
    numbers = agent.g_step(step_of(0, "test"))
    assert float(numbers["gradient_norm"]) > 0
    moved = any(not torch.equal(value, before[name]) for name, value in agent.discriminator.state_dict().items())
    assert moved == ("d_loss" in numbers) == (control == "shuffled")
    assert ("critic_loss" in numbers) == (baseline == "critic")


# -- Credit and D -----------------------------------------------------------------------------------------------------
def test_only_filled_tokens_are_paid_and_rows_may_stand_in_any_order() -> None:
    template_BT = torch.tensor([[BLANK, 1, BLANK], [2, BLANK, BLANK], [BLANK, 0, PAD]])
    texts = Texts.finished(
        torch.tensor([[0, 1, 2], [2, 0, PAD], [1, 0, PAD]]), torch.tensor([3, 2, 2]), Keys.counted(0, 3), 0
    )
    logits_BT = torch.tensor([[1.0, 9.0, 2.0], [9.0, 3.0, 9.0], [4.0, 9.0, 9.0]])

    class Told:
        vocab_size = 3

        def given(self, template_BT: Tensor) -> Self:
            return self

        def token_logits(self, tokens_BT: Tensor) -> Tensor:
            row_B = (tokens_BT[:, 0] == 2) * 1 + (tokens_BT[:, 0] == 1) * 2
            return logits_BT[row_B]

    credit = partial(BlankCredit, Told(), transform="logit", gamma=0.5)  # type: ignore[arg-type]
    found_BT = credit(template_BT).credit(texts, texts.mask_BT)
    assert found_BT.tolist() == [[1.5, 1.0, 2.0], [1.5, 3.0, 0.0], [4.0, 0.0, 0.0]]
    order_B = torch.tensor([2, 0, 1])
    again_BT = credit(template_BT[order_B]).credit(texts[order_B], texts.mask_BT[order_B])
    assert torch.equal(again_BT, found_BT[order_B])
    assert_refused("compares whole returns", BlankCredit, Told(), template_BT, "rank")
    assert_refused("gamma", BlankCredit, Told(), template_BT, "log", 1.5)


def test_d_says_of_a_token_what_the_template_and_the_words_before_say() -> None:
    judge = InfillingDiscriminator(3, 3, embed_size=4, hidden_size=4).eval()
    tokens_BT, template_BT = torch.tensor([[0, 1, 2], [2, 1, PAD]]), torch.tensor([[BLANK, 1, 2], [BLANK, 1, PAD]])
    given = judge.given(template_BT)
    with torch.no_grad():
        logits_BT, counts_BT = given.fitted_logits(tokens_BT)
        assert counts_BT.tolist() == [[True, False, False], [True, False, False]]
        assert judge.fitted_logits(tokens_BT)[1].tolist() == [[True] * 3, [True, True, False]]
        later_BT = given.token_logits(torch.tensor([[0, 2, 0], [2, 0, PAD]]))
        assert torch.equal(later_BT[:, 0], logits_BT[:, 0])
        other = judge.given(torch.tensor([[BLANK, 1, 0], [BLANK, 2, PAD]])).token_logits(tokens_BT)
        assert bool((other[:, 0] != logits_BT[:, 0]).all())
        blind = InfillingDiscriminator(3, 3, embed_size=4, hidden_size=4, sees_template=False).eval()
        assert torch.equal(blind.given(template_BT).token_logits(tokens_BT), blind.token_logits(tokens_BT))
        state = judge.begin_features(2)
        for position, read_B in enumerate([torch.full((2,), PAD), *tokens_BT.unbind(1)]):
            features_BF, state = judge.step_features(read_B, state)
            prefix_BT = tokens_BT.masked_fill(torch.arange(3) >= position, PAD)
            torch.testing.assert_close(features_BF, judge.features(prefix_BT))


def test_d_learns_which_fillings_are_real_and_refuses_templates_that_are_not_its_own() -> None:
    judge = InfillingDiscriminator(3, 3, embed_size=8, hidden_size=8)
    optimizer = judge.make_optimizer(1e-2)
    template_BT = TEMPLATE.repeat(64, 1)
    real_BT = fillings()[torch.randint(3, (32,), generator=derived_generator(1))]  # begin with token 0
    fake_BT = fillings()[3 + torch.randint(6, (32,), generator=derived_generator(2))]
    tokens_BT = torch.cat([real_BT, fake_BT])
    with seeded(0):
        losses = [float(fit_step(judge, optimizer, tokens_BT, template_BT=template_BT)["loss"]) for _ in range(60)]
    assert losses[-1] < 0.2 * losses[0]
    told = Blanks(TASK).told_apart(judge, tokens_BT, template_BT)
    assert told["d_auc"] > 0.95
    pair = PairDiscriminator(3, 3)
    assert_refused("templates are for", fit_step, pair, pair.make_optimizer(), tokens_BT, template_BT=template_BT)
    assert_refused("T=3 places, found 2", judge.given, TEMPLATE[:, :2])
    assert_refused("templates of 64 texts, found 2", judge.given(TEMPLATE.repeat(2, 1)).logits, tokens_BT)


# -- Templates in training --------------------------------------------------------------------------------------------
def test_the_share_of_blanks_moves_in_a_straight_line_and_pretraining_draws_it_between() -> None:
    agent = MaskGAN(replace(TINY, mask_rate=0.25, mask_to=1.0, whole=0.0, rounds=4), TASK)
    assert [agent.rate(replace(step_of(0), round=number)) for number in range(4)] == [0.25, 0.5, 0.75, 1.0]
    long_BT = torch.zeros(4000, 100, dtype=torch.int64)
    share_B = (agent.blanks.draw(long_BT, derived_generator(1)) == BLANK).float().mean(1)
    assert [float(share_B.min()), float(share_B.max())] == pytest.approx([0.25, 1], abs=0.01)
    whole = replace(agent.blanks, last=0.25, whole=0.2)
    share_B = (whole.draw(long_BT, derived_generator(1)) == BLANK).float().mean(1)
    assert float((share_B == 1).float().mean()) == pytest.approx(0.2, abs=0.03)
    assert float((share_B == 0.25).float().mean()) == pytest.approx(0.8, abs=0.03)


def test_with_a_mask_rate_of_1_nothing_is_given() -> None:
    agent = MaskGAN(replace(TINY, mask_rate=1.0, batch_size=16), TASK)
    template_BT = agent.blanks.draw(TASK.split("train").tokens_BT, derived_generator(1))
    assert bool((template_BT == BLANK).all())


def test_pretraining_makes_blanks_more_probable_when_the_other_side_is_seen() -> None:
    """Texts of two tokens of which the second says the first: from the left it cannot be known."""
    agent = MaskGAN(replace(TINY, embed_size=8, hidden_size=8, mask_rate=0.3, whole=0.0, mle_learning_rate=5e-2), TASK)
    tokens_BT = torch.tensor([[0, 2, 0], [1, 2, 1], [2, 2, 2]]).repeat(10, 1)
    with patch.object(filling, "epochs", lambda *_: iter([(1, tokens_BT)])):
        for number in range(80):
            agent.mle_batch(step_of(0, "mle", number))
    template_BT = torch.tensor([[BLANK, 2, 0], [BLANK, 2, 1], [BLANK, 2, 2]])
    at_first = torch.tensor([[True, False, False]] * 3)
    agent.policy.eval()
    with torch.no_grad():
        logp_BT = agent.policy.given(template_BT).log_prob(tokens_BT[:3], at_first)
    assert float(logp_BT[:, 0].exp().min()) > 0.9


def test_groups_are_compared_within_themselves() -> None:
    credit_BT = torch.randn(6, 4, generator=derived_generator(1))
    mask_BT = torch.rand(6, 4, generator=derived_generator(2)) < 0.7
    for kind in ("none", "leave-one-out", "position"):
        found_BT = group_baseline(kind, credit_BT, mask_BT, 3)
        for rows in (slice(3), slice(3, None)):
            assert torch.equal(found_BT[rows], baseline(kind, credit_BT[rows], mask_BT[rows]))


@pytest.mark.parametrize(("options", "sentence"), [
    ({"mask_rate": 1.5}, "mask_rate must be 0 to 1, found 1.5"), ({"mask_to": -0.1}, "mask_to must be 0 to 1"),
    ({"whole": 2.0}, "whole must be"), ({"gamma": 1.5}, "gamma must be"), ({"d_batches": -1}, "d_batches"),
    ({"fillings": 3}, "fillings must be a divisor of batch_size, found 3 and 2"), ({"fillings": 0}, "fillings"),
    ({"fillings": 1}, "compares fillings of a template"), ({"layers": 0}, "layers"),
    ({"critic_learning_rate": 0.0}, "critic_learning_rate"),
])  # fmt: skip
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], sentence: str) -> None:
    assert_refused(sentence, MaskGAN, replace(TINY, **options), TASK)
