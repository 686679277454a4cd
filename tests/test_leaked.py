"""LeakGAN's generator: D's features token by token, the same policy by stepping and by scoring, and what may differ."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conftest import StubPolicy, assert_refused
from textgan_env.discriminators import ConvDiscriminator, DiscriminatorModule, PairDiscriminator
from textgan_env.discriminators.growing import SlidingMatches
from textgan_env.envs import TextGANVectorEnv
from textgan_env.ops.sampling import derived_generator
from textgan_env.policies import Decoding, LeakedPolicy, make_policy
from textgan_env.policies.base import where_rows
from textgan_env.rewards import Keys, complete, generate
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.snapshot import take_snapshot
from textgan_env.tasks import ToyTask

V, T, B = 6, 7, 40
PAD = V


def conv(seed: int = 1) -> ConvDiscriminator:
    return ConvDiscriminator(V, T, embed_size=5, widths=(3, 1, 2, 7, 5), filters=(4, 3, 6, 2, 5), seed=seed)


def pair(seed: int = 1) -> PairDiscriminator:
    judge = PairDiscriminator(V, T, rank=3, seed=seed)
    nn.init.normal_(judge.single, generator=torch.Generator().manual_seed(seed))
    return judge


def leaked(judge: DiscriminatorModule | None = None, **options: Any) -> LeakedPolicy:
    options = {"goal_size": 3, "goal_steps": 3, "init_scale": 1.0, "seed": 5, "forbidden": [2], **options}
    policy = LeakedPolicy(
        V, start_token=0, discriminator=judge or conv(), embed_size=4, hidden_size=5, manager_size=6, **options
    )
    return policy.eval()


def texts(rows: int = B, seed: int = 0) -> Tensor:
    tokens_BT = torch.randint(V - 1, (rows, T), generator=derived_generator(seed))
    return tokens_BT + (tokens_BT >= 2)  # token 2 is never written


EVERYWHERE = torch.ones(B, T, dtype=torch.bool)
each_judge = pytest.mark.parametrize("make", [conv, pair])
each_variant = pytest.mark.parametrize("variant", ["paper", "reference"])


def padded(tokens_BT: Tensor, length: int) -> Tensor:
    return tokens_BT.masked_fill(torch.arange(T) >= length, PAD)


# -- D's features of a growing prefix. --------------------------------------------------------------------------------
@each_judge
def test_features_of_a_growing_prefix_equal_those_from_scratch(make: Any) -> None:
    judge, tokens_BT = make().eval(), texts()
    tokens_BT[: B // 2] = padded(tokens_BT, 4)[: B // 2]  # ended texts are fed PAD
    state = judge.begin_features(B)
    with torch.no_grad():
        for length in range(T + 1):
            fed_B = torch.zeros(B, dtype=torch.int64) if length == 0 else tokens_BT[:, length - 1]
            before = {name: part.clone() for name, part in state.items()}
            features_BF, after = judge.step_features(fed_B, state)
            assert all(torch.equal(before[name], state[name]) for name in state)
            state = after
            scratch_BF = judge.features(padded(tokens_BT, length))
            torch.testing.assert_close(features_BF, scratch_BF, atol=1e-5, rtol=0)


@each_judge
def test_rows_of_different_lengths_can_grow_side_by_side(make: Any) -> None:
    judge, tokens_BT = make().eval(), texts(4)
    lengths = [0, 2, 2, 5]
    policy = leaked(judge)
    state = policy.begin(4)
    for step in range(6):
        fed_B = torch.tensor([0 if step == 0 else int(tokens_BT[row, step - 1]) for row in range(4)])
        _, state = policy.step(fed_B, state)
        state = policy.reset_rows(state, torch.tensor([step < 5 - length for length in lengths]))
        if step >= 1:  # rows that began later have read other tokens
            tokens = state["prefix"]["tokens"]
    lengths_B = state["prefix"]["length"]
    assert lengths_B.tolist() == lengths
    with torch.no_grad():
        fed_B = torch.tensor([1, 3, 4, 0])
        features_BF, prefix = judge.step_features(fed_B, state["prefix"])
        torch.testing.assert_close(features_BF, judge.features(prefix["tokens"]), atol=1e-5, rtol=0)
        for row in range(4):
            expected = [*tokens[row, : lengths[row]].tolist(), int(fed_B[row])]
            assert prefix["tokens"][row].tolist() == expected + [PAD] * (T - len(expected))


def test_the_way_of_a_gpu_finds_the_same_matches_in_rows_of_any_length() -> None:
    judge, tokens_BT = conv().eval(), texts(4)
    matches = SlidingMatches(judge.embedding, list(judge.kernels), judge.widths, T)
    began_B = torch.tensor([0, 1, 1, 4])  # a row that has not begun is at the empty prefix again and again
    state = {**DiscriminatorModule.begin_features(judge, 4), **matches.begin(4)}
    with torch.no_grad():
        for step in range(T + 5):
            length_B = step - began_B
            place_B = (length_B - 1).clamp(0, T - 1)
            fed_B = torch.where(length_B > T, PAD, tokens_BT[torch.arange(4), place_B])
            best_BF, after = matches.read(fed_B, state)
            state = {**judge.append_tokens(fed_B, state), **after}
            scratch_BF = judge.features(
                torch.stack([padded(tokens_BT, int(length))[row] for row, length in enumerate(length_B)])
            )
            torch.testing.assert_close(judge._through_highway(best_BF), scratch_BF, atol=1e-5, rtol=0)
            waiting_B = began_B > step
            state = where_rows(waiting_B, {**DiscriminatorModule.begin_features(judge, 4), **matches.begin(4)}, state)


def test_only_padding_may_follow_a_whole_text() -> None:
    judge = conv()
    state = judge.begin_features(2)
    for _ in range(T + 1):
        features_BF, state = judge.step_features(torch.tensor([1, 3]), state)
    again_BF, state = judge.step_features(torch.tensor([PAD, PAD]), state)
    assert torch.equal(again_BF, features_BF)
    assert_refused("7 tokens", judge.step_features, torch.tensor([1, 3]), state)


@each_judge
def test_features_in_rollouts_equal_features_from_scratch(make: Any) -> None:
    policy, found = leaked(make()), []
    step_features = policy.discriminator.step_features

    def watched(tokens_B: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        features_BF, state = step_features(tokens_B, state)
        found.append((features_BF, state["tokens"], state["length"]))
        return features_BF, state

    policy.discriminator.step_features = watched  # type: ignore[method-assign]
    complete(policy, texts(), EVERYWHERE, keys=Keys.counted(0, B), rollouts=2)
    assert {int(length) for _, _, lengths_B in found for length in lengths_B} == set(range(T - 1))
    for features_BF, tokens_BT, _ in found:
        with torch.inference_mode():
            torch.testing.assert_close(features_BF, policy.discriminator.features(tokens_BT), atol=1e-5, rtol=0)


def counted_rows(judge: ConvDiscriminator) -> list[int]:
    """How many texts each call of the highway layer is asked for, from now on."""
    rows: list[int] = []
    judge.highway.register_forward_hook(lambda _module, given, _out: rows.append(len(given[0])))
    return rows


@each_judge
@pytest.mark.parametrize("rows", [B, 0])
def test_features_of_all_prefixes_of_whole_texts_equal_those_from_scratch(make: Any, rows: int) -> None:
    judge, tokens_BT = make().eval(), texts(rows)
    for row in range(rows):
        tokens_BT[row, row % (T + 1) :] = PAD  # of every length
    features_BSF = judge.prefix_features(tokens_BT)
    assert features_BSF.shape == (rows, T + 1, judge.feature_size)
    with torch.no_grad():
        for length in range(T + 1):
            scratch_BF = judge.features(padded(tokens_BT, length))
            torch.testing.assert_close(features_BSF[:, length], scratch_BF, atol=1e-5, rtol=0)
        torch.testing.assert_close(judge.prefix_features(tokens_BT[:, :4]), features_BSF[:, :5], atol=1e-5, rtol=0)


def test_the_cnn_reads_no_text_after_its_end() -> None:
    judge, tokens_BT = conv().eval(), texts()
    tokens_BT[:10] = padded(tokens_BT, 2)[:10]
    rows = counted_rows(judge)
    judge.prefix_features(tokens_BT)
    assert sum(rows) == 10 * 3 + (B - 10) * (T + 1)


def test_prefixes_that_are_begun_after_a_change_of_the_weights_have_the_new_features() -> None:
    judge, tokens_BT = conv().eval(), texts()
    optimizer = judge.make_optimizer(0.1)
    for change in range(3):
        _, state = judge.step_features(tokens_BT[:, 0], judge.begin_features(B))
        features_BF, state = judge.step_features(tokens_BT[:, 0], state)
        with torch.no_grad():
            torch.testing.assert_close(features_BF, judge.features(state["tokens"]), atol=1e-5, rtol=0)
        if change == 0:
            judge.logits(tokens_BT).sum().backward()
            optimizer.step()
        else:
            judge.load_state_dict(conv(seed=change + 5).state_dict())


def test_inside_remembering_the_features_of_a_prefix_are_computed_once() -> None:
    policy, keys = leaked(), Keys.counted(0, B)
    judge = policy.discriminator
    assert isinstance(judge, ConvDiscriminator)
    rows = counted_rows(judge)
    plain_BT, _ = generate(policy, keys, T)
    plain_BSF, once = policy.prefix_features(plain_BT), len(rows)
    with judge.remembering(B * T):
        tokens_BT, _ = generate(policy, keys, T)
        assert torch.equal(tokens_BT, plain_BT)
        written = len(rows)
        complete(policy, tokens_BT, EVERYWHERE & (torch.arange(T) == T - 1), keys=keys)
        assert len(rows) == written  # what is read again is known
        torch.testing.assert_close(policy.prefix_features(tokens_BT), plain_BSF, atol=1e-5, rtol=0)
    assert judge.known is None
    policy.prefix_features(plain_BT)
    assert len(rows) > written >= once


def test_no_more_features_are_remembered_than_asked_for() -> None:
    judge, tokens_BT = conv(), texts()
    with judge.remembering(B + 3):
        _, state = judge.step_features(torch.zeros(4, dtype=torch.int64), judge.begin_features(4))
        assert judge.known is not None
        assert len(judge.known.kept) == 1  # four empty prefixes are one
        judge.step_features(torch.tensor([0, 1, 3, 4]), state)
        assert len(judge.known.kept) == 5
        judge.step_features(tokens_BT[:, 0], judge.begin_features(B))
        assert len(judge.known.kept) == 5
    with judge.remembering(3):
        judge.step_features(tokens_BT[:4, 1], state)
        assert judge.known is not None
        assert not judge.known.kept


def test_a_policy_that_has_written_can_be_copied() -> None:
    policy = leaked()
    tokens_BT, _ = generate(policy, Keys.counted(0, B), T)
    again_BT, _ = generate(copy.deepcopy(policy), Keys.counted(0, B), T)
    assert torch.equal(again_BT, tokens_BT)


@pytest.mark.parametrize(("steps", "expected"), [(3, 6), (4, 4), (7, 0)])
def test_the_published_code_reads_no_features_in_the_last_block(steps: int, expected: int) -> None:
    policy = leaked(variant="reference", goal_steps=steps)
    assert isinstance(policy.discriminator, ConvDiscriminator)
    rows = counted_rows(policy.discriminator)
    generate(policy, Keys.counted(0, B), T)
    assert rows == [B] * expected


# -- The policy. ------------------------------------------------------------------------------------------------------
def plain_logits(policy: LeakedPolicy, tokens_T: list[int]) -> Tensor:
    """Logits at each position of one text: the definition, in loops, from whole texts."""
    features: list[Tensor] = []
    goals: list[Tensor] = []
    rows: list[Tensor] = []
    manager, worker = policy.manager.begin(1), policy.worker.begin(1)
    first_F = policy.worker.first_goal / policy.worker.first_goal.norm()
    steps = policy.goal_steps
    for t in range(T):
        prefix = tokens_T[:t] + [PAD] * (T - t)
        features.append(policy.discriminator.features(torch.tensor([prefix]))[0])
        read = torch.tensor([[policy.start_token if t == 0 else tokens_T[t - 1]]])
        hidden_11H, state = policy.worker.lstm(policy.worker.embedding(read), (worker[0][None], worker[1][None]))
        worker = state[0][0], state[1][0]
        if policy.variant == "paper":
            summed_F = sum((goals[t - i] if t - i >= 0 else first_F) for i in range(1, steps + 1))
            w_k = policy.worker.psi.weight @ summed_F
        else:
            block = t // steps
            summed_F = first_F if block == 0 else sum(goals[(block - 1) * steps : block * steps])
            w_k = policy.worker.psi.weight @ summed_F
            w_k = w_k / w_k.norm()
        o_VkH = policy.worker.output.view(V, len(w_k), -1)
        o_Vk = o_VkH[:, :, :-1] @ hidden_11H[0, 0] + o_VkH[:, :, -1]
        rows.append(o_Vk @ w_k)
        out_11H, state = policy.manager.lstm(features[t][None, None], (manager[0][None], manager[1][None]))
        manager = state[0][0], state[1][0]
        goal_F = policy.manager.output(out_11H[0, 0])
        goals.append(goal_F / goal_F.norm())
    logits_TV = torch.stack(rows)
    logits_TV[:, policy.forbidden] = -torch.inf
    return logits_TV


@each_variant
@pytest.mark.parametrize("steps", [1, 3, 4, 7])
def test_stepping_and_scoring_give_the_definition_for_every_c(variant: str, steps: int) -> None:
    policy, tokens_BT = leaked(variant=variant, goal_steps=steps), texts(3)
    with torch.no_grad():
        expected_BTV = torch.stack([plain_logits(policy, tokens) for tokens in tokens_BT.tolist()])
        state, fed_B = policy.begin(3), torch.zeros(3, dtype=torch.int64)
        for t in range(T):
            logits_BV, state = policy.step(fed_B, state)
            torch.testing.assert_close(logits_BV, expected_BTV[:, t], atol=1e-4, rtol=1e-4)
            fed_B = tokens_BT[:, t]
        expected_BT = expected_BTV.log_softmax(2).gather(2, tokens_BT[..., None])[..., 0]
        torch.testing.assert_close(policy.log_prob(tokens_BT, EVERYWHERE[:3]), expected_BT, atol=1e-4, rtol=1e-4)


@each_judge
@each_variant
@pytest.mark.parametrize("first_two", [None, 1.5])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_log_prob_equals_stepping(make: Any, variant: str, first_two: float | None, temperature: float) -> None:
    policy = leaked(make(), variant=variant).with_decoding(Decoding(temperature))
    policy = policy if first_two is None else policy.with_first_inverse_temperature(first_two)
    tokens_BT = texts()
    tokens_BT[: B // 2] = padded(tokens_BT, 5)[: B // 2]
    mask_BT = tokens_BT != PAD
    with torch.no_grad():
        stepped_BT = super(LeakedPolicy, policy).log_prob(tokens_BT, mask_BT)
        torch.testing.assert_close(policy.log_prob(tokens_BT, mask_BT), stepped_BT, atol=1e-4, rtol=1e-4)


def test_the_first_two_tokens_have_their_own_temperature_whatever_the_others_have() -> None:
    plain, tokens_BT = leaked(), texts()
    with torch.no_grad():
        sharp = plain.with_decoding(Decoding(1 / 1.5)).log_prob(tokens_BT, EVERYWHERE)
        soft = plain.with_decoding(Decoding(2.0)).log_prob(tokens_BT, EVERYWHERE)
        mixed = plain.with_decoding(Decoding(2.0)).with_first_inverse_temperature(1.5).log_prob(tokens_BT, EVERYWHERE)
    torch.testing.assert_close(mixed, torch.cat([sharp[:, :2], soft[:, 2:]], dim=1), atol=1e-5, rtol=1e-5)
    assert plain.first_inverse_temperature is None


@each_variant
def test_rows_are_exchangeable(variant: str) -> None:
    policy, tokens_BT = leaked(variant=variant), texts()
    order_B = torch.randperm(B, generator=derived_generator(3))
    with torch.no_grad():
        straight = policy.log_prob(tokens_BT, EVERYWHERE)
        torch.testing.assert_close(policy.log_prob(tokens_BT[order_B], EVERYWHERE), straight[order_B])
        logits_BV, _ = policy.step(torch.zeros(B, dtype=torch.int64), policy.begin(B))
    torch.testing.assert_close(logits_BV, logits_BV[:1].expand(B, -1))  # equal prefixes, equal rows


@each_variant
def test_the_first_token_is_not_uniform(variant: str) -> None:
    policy = leaked(variant=variant, forbidden=[])
    with torch.no_grad():
        logits_1V, _ = policy.step(torch.zeros(1, dtype=torch.int64), policy.begin(1))
    assert float(logits_1V.softmax(1).max()) > 1.2 / V


@each_variant
def test_with_constant_goals_the_features_change_no_logit(variant: str) -> None:
    tokens_BT = texts()
    for constant in (False, True):
        policies = [leaked(conv(seed), variant=variant) for seed in (1, 2)]
        if constant:
            for policy in policies:
                nn.init.zeros_(policy.manager.output.weight)
        with torch.no_grad():
            one, other = (policy.log_prob(tokens_BT, EVERYWHERE) for policy in policies)
        assert torch.equal(one, other) == constant


def test_the_policys_likelihood_teaches_the_worker_alone() -> None:
    policy, tokens_BT = leaked().train(), texts()
    for log_prob in (policy.log_prob, super(LeakedPolicy, policy).log_prob):
        policy.zero_grad()
        logp_BT = log_prob(tokens_BT, EVERYWHERE)
        logp_BT.sum().backward()
        assert all(parameter.grad is None for parameter in policy.manager.parameters())
        assert all(parameter.grad is None for parameter in policy.discriminator.parameters())
        trained = {name for name, parameter in policy.worker.named_parameters() if parameter.requires_grad}
        assert {name for name, parameter in policy.worker.named_parameters() if parameter.grad is not None} == trained


def test_dropout_is_the_workers_and_off_while_it_writes() -> None:
    policy, tokens_BT = leaked(dropout=0.5).train(), texts()
    before = policy.prefix_features(tokens_BT)
    assert torch.equal(before, policy.prefix_features(tokens_BT))
    one = complete(policy, tokens_BT, EVERYWHERE, keys=Keys.counted(0, B))
    assert torch.equal(one.tokens_RT, complete(policy, tokens_BT, EVERYWHERE, keys=Keys.counted(0, B)).tokens_RT)
    assert policy.training


# -- In the environment. ----------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def task() -> ToyTask:
    return ToyTask(vocab_size=V, max_length=T, size=60)


def test_collecting_stepping_and_the_environments_features_agree(task: ToyTask) -> None:
    """The policy stepped over the environment's observations, with the environment's draws, is what collect does."""
    judge = conv()
    policy = leaked(judge, forbidden=[])
    envs = TextGANVectorEnv(
        8, task, reward="rollout", rollouts=2, discriminator=judge, rollout_policy=policy, leak_features=True,
        autoreset_mode="disabled",
    )  # fmt: skip
    envs.reset(seed=0)
    batch = envs.collect(policy)
    envs.reset(seed=0)
    observation, _ = envs.reset()  # collect begins the next text of each row, too
    state, fed_B = policy.begin(8), torch.zeros(8, dtype=torch.int64)
    scratch_BSF = policy.prefix_features(batch.tokens_BT)
    for t in range(T):
        assert observation["features"].dtype == "float32"
        torch.testing.assert_close(torch.from_numpy(observation["features"]), scratch_BSF[:, t], atol=1e-5, rtol=0)
        with torch.no_grad():
            logits_BV, state = policy.step(fed_B, state)
        torch.testing.assert_close(
            logits_BV.log_softmax(1).gather(1, batch.tokens_BT[:, t : t + 1])[:, 0],
            policy.log_prob(batch.tokens_BT, batch.mask_BT)[:, t],
            atol=1e-4, rtol=1e-4,
        )  # fmt: skip
        fed_B = batch.tokens_BT[:, t]
        observation, reward_B, *_ = envs.step(fed_B.numpy())
        assert torch.equal(torch.from_numpy(reward_B).float(), batch.credit_BT[:, t])
    assert observation in envs.observation_space


def test_collect_can_be_asked_for_the_credit_of_some_positions(task: ToyTask) -> None:
    policy = leaked(forbidden=[])
    envs = TextGANVectorEnv(8, task, reward="rollout", rollouts=2, discriminator=conv(), leak_features=True)
    envs.reset(seed=0)
    whole = envs.collect(policy)
    envs.reset(seed=0)
    some = envs.collect(policy, positions=[2, 5, 6])
    assert torch.equal(some.tokens_BT, whole.tokens_BT)
    assert torch.equal(some.credit_BT[:, [2, 5, 6]], whole.credit_BT[:, [2, 5, 6]])
    assert some.credit_BT[:, [0, 1, 3, 4]].count_nonzero() == 0


def test_an_environment_that_leaks_no_features_is_refused_and_said_so(task: ToyTask) -> None:
    envs = TextGANVectorEnv(4, task, discriminator=conv())
    envs.reset(seed=0)
    assert_refused("leak_features", envs.collect, leaked())
    assert envs.collect(StubPolicy([0.0] * V)).tokens_BT.shape == (4, T)


def test_features_leak_under_a_control_too_and_keep_their_size(task: ToyTask) -> None:
    envs = TextGANVectorEnv(4, task, control="constant", discriminator=conv(), leak_features=True)
    observation, _ = envs.reset(seed=0)
    assert observation["features"].shape == (4, conv().feature_size)
    assert_refused("feature_size", envs.game.queue_discriminator, pair())


# -- Saving, taking another D, and what is refused. -------------------------------------------------------------------
@each_judge
@each_variant
def test_a_saved_policy_brings_the_features_it_reads(make: Any, variant: str, tmp_path: Any) -> None:
    policy, tokens_BT = leaked(make(), variant=variant), texts()
    take_snapshot(modules={"policy": policy}, document=policy.config()).write(tmp_path / "x")
    checkpoint = load_checkpoint(tmp_path / "x")
    again = make_policy("leaked", checkpoint.document)
    checkpoint.restore_module("policy", again)
    with torch.no_grad():
        assert torch.equal(again.eval().log_prob(tokens_BT, EVERYWHERE), policy.log_prob(tokens_BT, EVERYWHERE))
    other = make_policy("leaked", {**checkpoint.document, "goal_size": 4})
    assert_refused("expects", checkpoint.restore_module, "policy", other)


def test_leaking_from_a_newer_discriminator_copies_its_weights() -> None:
    policy, newer, tokens_BT = leaked(conv(1)), conv(2), texts()
    policy.leak(newer)
    with torch.no_grad():
        expected = leaked(newer).log_prob(tokens_BT, EVERYWHERE)
        assert torch.equal(policy.log_prob(tokens_BT, EVERYWHERE), expected)
        newer.embedding.add_(1.0)
        assert torch.equal(policy.log_prob(tokens_BT, EVERYWHERE), expected)


def test_a_discriminator_of_another_size_cannot_leak() -> None:
    assert_refused("found F=7", leaked().leak, pair())


@pytest.mark.parametrize(("field", "value"), [
    ("goal_steps", 8), ("goal_steps", 0), ("goal_size", 0), ("variant", "papers"), ("dropout", 1.0),
    ("init_scale", -1.0),
])  # fmt: skip
def test_what_does_not_fit_is_refused_in_one_sentence(field: str, value: Any) -> None:
    assert_refused(field, leaked, **{field: value})


def test_a_discriminator_of_another_vocabulary_is_refused() -> None:
    assert_refused("V=7", leaked, PairDiscriminator(V + 1, T))
