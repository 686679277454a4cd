"""A causal language model of transformers as a policy: its cache, its vocabulary, its files."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.mle import main as mle_main
from agents.seqgan import main as seqgan_main
from conftest import assert_refused
from textgan_env import load
from textgan_env.envs import TextGANVectorEnv
from textgan_env.ops.sampling import seeded
from textgan_env.policies import CausalLMPolicy, Decoding, make_policy, map_state
from textgan_env.rewards import Keys, complete, generate
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.snapshot import take_snapshot
from textgan_env.tasks import CorpusTask, ToyTask, load_causal_lm, make_task
from textgan_env.text.language_models import read_causal_lm

V, T = 5, 6
IDS = [7, 2, 9, 4, 0, 11]  # of tokens 0 to 4, and of PAD
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 16},
    # Grouped keys and values (2 heads for 4 queries), positions by rotation.
    "llama": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 16, "pad_token_id": None,
    },
}  # fmt: skip
EACH = pytest.mark.parametrize("kind", SIZES)


def config_of(kind: str, **changes: Any) -> dict[str, Any]:
    common = {"vocab_size": 12, "bos_token_id": 11, "eos_token_id": 10, "initializer_range": 0.7}
    return {"model_type": kind, **common, **SIZES[kind], **changes}


def policy_of(kind: str = "gpt2", **changes: Any) -> CausalLMPolicy:
    settings = {"start_token": V, "max_length": T, "token_ids": IDS, "model": config_of(kind)}
    return CausalLMPolicy(V, **{**settings, **changes}).eval()


def texts(rows: int = 4) -> Tensor:
    return torch.randint(V, (rows, T), generator=torch.Generator().manual_seed(1))


def plain_log_prob(policy: CausalLMPolicy, text: list[int]) -> list[float]:
    """The model asked about each prefix by itself, without a cache; then the softmax over the task's tokens."""
    found = []
    for length in range(len(text)):
        prefix = torch.tensor([[IDS[V], *(IDS[token] for token in text[:length])]])
        with torch.no_grad():
            logits_M = policy.model(prefix, use_cache=False).logits[0, -1]
        found.append(float(logits_M[IDS[:V]].log_softmax(0)[text[length]]))
    return found


# -- The model --------------------------------------------------------------------------------------------------------
@EACH
def test_one_pass_over_a_text_is_what_the_model_says_of_each_prefix(kind: str) -> None:
    policy = policy_of(kind)
    with torch.no_grad():
        logp_BT = policy.log_prob(texts(), torch.ones(4, T, dtype=torch.bool))
    expected = torch.tensor([plain_log_prob(policy, text) for text in texts().tolist()])
    torch.testing.assert_close(logp_BT, expected, atol=1e-5, rtol=1e-5)
    assert logp_BT.std() > 0.1


@EACH
def test_rows_that_have_read_different_numbers_of_tokens_are_stepped_together(kind: str) -> None:
    """Row 1 begins anew while rows 0 and 2 go on: each gets what it would get alone."""
    policy, tokens_BT = policy_of(kind), texts(3)
    expected_BT = torch.tensor([plain_log_prob(policy, text) for text in tokens_BT.tolist()])
    state, last_B = policy.begin(3), torch.full((3,), V)
    places = [[0, 0, 0], [1, 1, 1], [2, 0, 2], [3, 1, 3], [4, 2, 4]]
    for place_B in map(torch.tensor, places):
        if place_B.tolist() == [2, 0, 2]:
            state = policy.reset_rows(state, torch.tensor([False, True, False]))
            last_B[1] = V
        with torch.no_grad():
            logits_BV, state = policy.step(last_B, state)
        last_B = tokens_BT.gather(1, place_B[:, None])[:, 0]
        logp_B = logits_BV.log_softmax(1).gather(1, last_B[:, None])[:, 0]
        torch.testing.assert_close(logp_B, expected_BT.gather(1, place_B[:, None])[:, 0], atol=1e-5, rtol=1e-5)


@EACH
def test_a_state_is_copied_for_completions_and_holds_the_whole_prefix(kind: str) -> None:
    """The most probable completion of each prefix, by the engine, and by asking the model token by token."""
    policy, tokens_BT = policy_of(kind).with_decoding(Decoding(deterministic=True)), texts(2)
    wanted_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
    wanted_BT[:, [0, 2, 5]] = True
    found = complete(policy, tokens_BT, wanted_BT, keys=Keys.counted(3, 2), rollouts=2)
    for number in range(len(found.tokens_RT)):
        text = tokens_BT[found.row_R[number], : found.prefix_R[number]].tolist()
        while len(text) < T:
            prefix = torch.tensor([[IDS[V], *(IDS[token] for token in text)]])
            text.append(int(policy.model(prefix, use_cache=False).logits[0, -1, IDS[:V]].argmax()))
        assert found.tokens_RT[number].tolist() == text


def test_the_size_of_a_state_is_said() -> None:
    """Two layers of keys and values, 6 places of 2 heads of 4 floats, and the number of tokens read."""
    assert policy_of().state_bytes == 2 * 2 * 6 * 2 * 4 * 4 + 8
    rows = []
    map_state(lambda part: rows.append(len(part)) or part, policy_of().begin(3))  # type: ignore[func-returns-value]
    assert set(rows) == {3}


def test_no_more_tokens_are_read_than_there_is_room_for() -> None:
    policy = policy_of()
    state = policy.begin(2)
    for _ in range(T):
        _, state = policy.step(torch.tensor([V, V]), state)
    assert_refused("max_length=6", policy.step, torch.tensor([0, 0]), state)


def test_its_gradient_reaches_the_model() -> None:
    policy = policy_of()
    policy.log_prob(texts(), torch.ones(4, T, dtype=torch.bool)).sum().backward()
    assert all(part.grad is not None for part in policy.model.parameters())


# -- Files ------------------------------------------------------------------------------------------------------------
def saved_model(folder: Path, kind: str = "gpt2", **changes: Any) -> Path:
    policy_of(model=config_of(kind, **changes)).model.save_pretrained(folder)
    return folder


def test_a_saved_policy_is_named_from_the_registry_and_nothing_is_unpickled(tmp_path: Path) -> None:
    policy = policy_of("llama", forbidden=[1])
    take_snapshot(modules={"policy": policy}, document={"policy": policy.config()}).write(tmp_path / "all.safetensors")
    checkpoint = load_checkpoint(tmp_path / "all.safetensors")
    again = make_policy("causal_lm", checkpoint.document["policy"]).eval()
    checkpoint.restore_module("policy", again)
    mask_BT = texts() != 1
    assert torch.equal(again.log_prob(texts(), mask_BT), policy.log_prob(texts(), mask_BT))


def test_what_a_config_says_about_code_is_neither_kept_nor_followed(tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "evil.Model"}}))
    (folder / "evil.py").write_text("raise SystemExit('this ran')")
    policy = load_causal_lm(folder, ToyTask(vocab_size=4, max_length=3, size=20))
    assert "auto_map" not in policy.config()["model"]
    make_policy("causal_lm", {**policy.config(), "model": policy.config()["model"] | {"auto_map": {"x": "evil.Model"}}})


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    folder = saved_model(tmp_path / "model")
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert_refused("cannot be read", read_causal_lm, folder)


# -- Its vocabulary and the task's ------------------------------------------------------------------------------------

LINES = [f"{who} {what} {where}." for who in ("The cat", "A dog", "My friend") for what in ("sat", "ran", "slept")
         for where in ("here", "on the mat", "outside", "in Paris")]  # fmt: skip


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer trained on the lines, and an untrained GPT-2 of its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("hf")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    ids = [*range(V + 1)]
    size = config_of("gpt2", vocab_size=tokenizer.get_vocab_size(), n_positions=32, **ends)
    policy_of(token_ids=ids, model=size).model.save_pretrained(folder)
    return folder


def subword_task(folder: Path) -> CorpusTask:
    task = make_task("corpus", texts=LINES, tokenizer=str(folder))
    assert isinstance(task, CorpusTask)
    return task


def test_a_text_is_split_into_subwords_and_put_together_again(model_folder: Path) -> None:
    task = subword_task(model_folder)
    for tokens in task.split("train").tokens_BT.tolist():
        assert task.text(tokens) in LINES
        assert task.encode(task.text(tokens)) == [
            token for token in tokens if token not in (task.end_token, task.vocab_size)
        ]
    assert "".join(task.words(task.encode("The cat"))) == "TheĠcat"
    assert task.rules == "subwords of a tokenizer"
    assert_refused("'Z' .*: the training texts split these letters into other subwords", task.encode_writable, "Z")


def test_the_tasks_tokens_are_the_models(model_folder: Path) -> None:
    """The log-probability of a real text, by the model's own numbers of its subwords."""
    from tokenizers import Tokenizer

    task = subword_task(model_folder)
    policy = load_causal_lm(model_folder, task)
    real_BT = task.split("train").tokens_BT[:1]
    numbers = [*Tokenizer.from_file(str(model_folder / "tokenizer.json")).encode(task.text(real_BT[0].tolist())).ids, 0]
    with torch.no_grad():
        logits_TM = read_causal_lm(model_folder)(torch.tensor([[0, *numbers[:-1]]])).logits[0]
        logp_T = logits_TM[:, policy.token_ids[:-1]].log_softmax(1)
        found_T = policy.log_prob(real_BT, task.scored(real_BT))[0, : len(numbers)]
    places = [policy.token_ids[:-1].tolist().index(number) for number in numbers]
    torch.testing.assert_close(found_T, logp_T[torch.arange(len(numbers)), places], atol=1e-5, rtol=1e-5)


def test_an_environment_rolls_it_out(model_folder: Path) -> None:
    task = subword_task(model_folder)
    policy = load_causal_lm(model_folder, task)
    envs = TextGANVectorEnv(3, task, rollouts=2)
    envs.reset(seed=0)
    batch = envs.collect(policy)
    assert batch.mask_BT.sum(1).tolist() == batch.lengths_B.tolist()
    assert ((batch.credit_BT > 0) == batch.mask_BT).all()
    assert all(task.text(tokens) is not None for tokens in batch.tokens_BT.tolist())


@pytest.mark.slow
@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_maximum_likelihood_seqgan_and_the_command_line_take_it(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From random weights to real sentences; then SeqGAN continues from that run, which needs the model no more."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    text = ["--corpus", "my.txt", "--tokenizer", str(model_folder), "--threads", "1"]
    mle_main([*text, "--model", str(model_folder), "--epochs", "60", "--batch-size", "8", "--select", "last"])
    before = load("runs/mle-my-1")
    assert before.policy.kind == "causal_lm"
    assert sum(line in LINES for line in before.sample(20, temperature=0.5)) >= 10
    seqgan_main([*text, "--preset", "smoke", "--pretrained", "runs/mle-my-1", "--batch-size", "4"])
    assert isinstance(load("runs/seqgan-my-1").policy, CausalLMPolicy)
    assert "NLL" in capsys.readouterr().out


# -- What is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("changes", "field"), [
    ({"token_ids": [1, 2]}, "token_ids"),
    ({"token_ids": [0, 1, 2, 3, 4, 12]}, "token_ids"),
    ({"max_length": 17}, "max_length"),
    ({"max_length": 0}, "max_length"),
    ({"model": {"model_type": "gpt3"}}, "model"),
    ({"model": {}}, "model"),
    ({"model": {"model_type": "mamba", "vocab_size": 12, "hidden_size": 4, "num_hidden_layers": 1}}, "mamba"),
], ids=["few ids", "ids", "long", "empty", "kind", "no kind", "no cache"])  # fmt: skip
def test_what_does_not_fit_is_refused(changes: dict[str, Any], field: str) -> None:
    assert_refused(field, policy_of, **changes)


def test_folders_and_tasks_that_do_not_fit_are_refused(model_folder: Path, tmp_path: Path) -> None:
    assert_refused(r"config\.json", load_causal_lm, tmp_path, ToyTask(size=20))
    assert_refused(r"no tokenizer\.json", make_task, "corpus", texts=LINES, tokenizer=str(tmp_path))
    (tmp_path / "tokenizer.json").write_text("{}")
    assert_refused(r"tokenizer\.json' is", make_task, "corpus", texts=LINES, tokenizer=str(tmp_path))
    assert_refused("mode", make_task, "corpus", texts=LINES, tokenizer=str(model_folder), mode="char")
    assert_refused("tokenizer=", load_causal_lm, model_folder, make_task("corpus", texts=LINES))
    assert_refused("tokenizer", make_task, "toy", tokenizer=str(model_folder))


def test_texts_written_by_it_do_not_depend_on_how_rows_are_grouped() -> None:
    policy = policy_of()
    keys = Keys.counted(2, 70)
    with seeded(0):
        assert torch.equal(generate(policy, keys, T, tile=70)[0], generate(policy, keys, T, tile=32)[0])
