"""The command line of an agent: which default a preset gives, which words are refused, which old names are read."""

import inspect
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from agents import leakgan, mle, module_of, seqgan
from conftest import assert_refused, interrupted, mistake_of
from textgan_env.runs.logs import read_metrics
from textgan_env.tasks import TASKS, Task
from textgan_env.training.launch import launch
from textgan_env.utils import options
from textgan_env.utils.options import RENAMED, parse, saved_options

# The library that reads command lines draws from the global generators.
pytestmark = pytest.mark.moves_global_rng

TINY = ["--task", "toy", "--preset", "smoke", "--threads", "1", "--show-samples", "0"]


@pytest.mark.parametrize(("words", "preset", "task"), [
    ([], "fast", "oracle"),
    (["--preset", "smoke"], "smoke", "oracle"),
    (["--preset=smoke", "--task=coco"], "smoke", "coco"),
    (["--seed", "3", "--corpus", "my.txt"], "fast", "corpus"),
    (["--corpus", "folder", "--task", "coco"], "fast", "coco"),
])  # fmt: skip
def test_the_defaults_are_those_of_the_preset_for_the_task(words: list[str], preset: str, task: str) -> None:
    config, default = parse(seqgan.PRESETS, "", words), seqgan.PRESETS[preset](task)
    assert (config.preset, config.task) == (preset, task)
    assert (config.embed_size, config.rounds) == (default.embed_size, default.rounds)


#: Mistakes by agent; those of MLE are of options that all agents have.
MISTAKES: dict[str, list[tuple[str, str]]] = {
    "mle": [
        ("--preset fats", "unknown preset 'fats'"),
        ("--task nope", "unknown task 'nope'"),
        ("--max-length 0", "max_length must be at least 1, found 0"),
        ("--batch-size 0", "batch_size must be at least 1"),
        ("--learning-rate -1", "learning_rate must be above 0, found -1.0"),
        ("--epochs -2", "at least 0 rounds"),
        ("--temperature 0", "deterministic"),
        ("--temperature -1", "temperature must be above 0 and finite"),
        ("--temperature nan", "temperature must be above 0 and finite"),
        ("--min-count 2", "has no option min_count"),
        ("--device abacus", "device 'abacus' cannot be used"),
        ("--threads 0", "threads must be at least 1"),
        ("--resume no-such-run", "leave out --runs"),
        ("--task corpus", "no text: give --corpus FILE"),
        ("--corpus my.txt", "task 'toy' reads no file: --corpus is for task corpus"),
    ],
    "seqgan": [
        ("--learning-rate -1", "learning_rate must be above 0, found -1.0"),
        ("--rollouts -1", "rollouts must be at least 0, found -1"),
        ("--batch-size 1", "batch_size must be at least 2, found 1"),
        ("--kl-coef -1", "kl_coef must be at least 0"),
        ("--ent-coef -1", "ent_coef must be at least 0"),
        ("--gamma 1.5", "gamma must be 0 to 1, found 1.5"),
        ("--writing-temperature 0", "temperature must be above 0"),
        ("--rollout-lag 2", "rate of a lagged copy must be 0 to 1"),
        ("--pretrained nowhere", "no run folder at 'nowhere'"),
        ("--discriminator bleu --control untrained", "--discriminator bleu never learns"),
        ("--objective nothing", "unknown objective 'nothing', expected one of: python, json"),
        ("--objective no.py:score", "objective 'no.py:score': no file 'no.py'"),
        ("--budget 100", "budget need an objective: give --objective"),
        ("--objective has:1 --objective-weight 0", "objective_weight must be above 0"),
        ("--objective has:1 --objective-timeout 3", "it needs objective_workers"),
        ("--objective has:1 --repeat-decay 0.5", "repeat_decay counts finished texts"),
    ],
    "leakgan": [
        ("--goal-steps 5", "goal_steps (c) must be 1 to T=4, found 5"),
        ("--goal-size 0", "goal_size must be at least 1, found 0"),
        ("--learning-rate -1", "learning_rate must be above 0, found -1.0"),
        ("--rollouts 0", "rollouts must be at least 1, found 0"),
        ("--batch-size 1", "batch_size must be at least 2, found 1"),
        ("--g-temperature 0", "temperature must be above 0, found 0"),
        ("--pretrained nowhere", "no run folder at 'nowhere'"),
        ("--mle-interval -1", "mle_interval must be at least 0"),
    ],
    "vae": [
        ("--latent-size 0", "latent_size must be at least 1"),
        ("--word-dropout 2", "word_dropout must be at most 1"),
        ("--free-bits -1", "free_bits"),
        ("--kl-coef -1", "kl_coef"),
        ("--policy lstm", "policy"),
    ],
    "scratchgan": [
        ("--discriminator pair", "discriminator"),
        ("--transform rank", "rank"),
        ("--gamma 2", "gamma"),
        ("--all-actions --control shuffled", "asks D about every next token"),
    ],
    "maskgan": [
        ("--discriminator pair", "discriminator"),
        ("--mask-rate 2", "mask_rate must be 0 to 1, found 2.0"),
        ("--fillings 3", "divisor of batch_size"),
        ("--objective has:1", "MaskGAN has no reward for a whole text: it takes no objective, found has:1"),
        ("--transform rank", "rank"),
        ("--mask left", "mask"),
    ],
    "grpo": [("--group-size 3", "divisor of batch_size"), ("--discriminator bleu", "discriminator")],
    "rankgan": [("--gamma -1", "gamma"), ("--discriminator rank", "discriminator"), ("--transform rank", "rank")],
    "coldgan": [("--plain-share 0", "plain_share"), ("--cold-top-p 3", "top_p"), ("--rollouts 3", "rollouts")],
    "cot": [
        ("--m-steps 0", "m_steps must be at least 1"),
        ("--credit all", "credit"),
        ("--control shuffled", "control"),
        ("--pretrained nowhere", "no run folder at 'nowhere'"),
    ],
    "dgsan": [("--g-steps 0", "g_steps must be at least 1"), ("--control shuffled", "control")],
    "distill": [
        ("--learning-rate 1e-3", "no teacher: give --teachers RUN"),
        ("--teachers nowhere", "no run folder at 'nowhere'"),
        ("--teachers nowhere --teacher-temperature 0", "teacher_temperature must be above 0, found 0.0"),
        ("--divergence reverse --texts real", "leave out --texts real"),
        ("--divergence sideways", "divergence"),
        ("--mean median", "mean"),
    ],
    "textgan": [
        ("--batch-size 2", "batch_size must be at least 3"),
        ("--discriminator bleu", "discriminator"),
        ("--kernel cosine", "kernel"),
        ("--gradient soft", "gradient"),
        ("--gradient relaxed --control constant", "no reward that could be constant"),
        ("--inverse-temperature 0", "inverse_temperature must be above 0"),
    ],
    "relgan": [
        ("--inverse-temperature 0", "inverse_temperature must be above 0"),
        ("--control constant", "control"),
        ("--relaxation hard", "relaxation"),
        ("--discriminator bleu", "discriminator"),
        ("--policy relational --hidden-size 7", "hidden_size must be a multiple of num_heads=2, found 7"),
    ],
    "expert_iteration": [
        ("--real-share 1", "real_share must leave room"),
        ("--objective has:1 --repeat-decay 0.5", "repeat_decay must be 1"),
        ("--search beam", "search"),
        ("--search smc --rollouts 0", "must be recurrent, found pair"),
        ("--discriminator bleu", "discriminator"),
        ("--search tree --simulations 0", "simulations must be at least 1"),
    ],
    "reinvent": [("--sigma 0", "sigma must be above 0"), ("--transform rank", "transform")],
    "maligan": [
        ("--batch-size 1", "batch"),
        ("--discriminator bleu", "discriminator"),
        ("--rollouts 3", "rollouts"),
        ("--held-back 1", "held_back must be at least 0 and below 1, found 1.0"),
        ("--held-back 1e-4", "both parts of the training texts need some, found 0 of 1,000 training texts held back"),
    ],
    **{agent: [("--envs 0", "error: envs")] for agent in ("ppo", "a2c", "dqn")},
}


@pytest.mark.parametrize(
    ("agent", "words", "sentence"), [(agent, *mistake) for agent, mistakes in MISTAKES.items() for mistake in mistakes]
)
def test_a_mistake_on_the_command_line_is_one_sentence_and_leaves_no_folder(
    agent: str, words: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = module_of(agent).main
    said = mistake_of(main, ["--task", "toy", "--runs", str(tmp_path / "runs"), *words.split()], capsys)
    assert said.startswith("error: ")
    assert sentence in said
    assert not (tmp_path / "runs").exists()


def test_a_run_that_is_not_there_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert mistake_of(mle.main, ["--resume", "nothing"], capsys) == "error: no run folder at 'nothing'\n"


@pytest.mark.parametrize("agent", MISTAKES)
def test_every_preset_can_be_made_and_knows_its_name(agent: str) -> None:
    presets = module_of(agent).PRESETS
    for name, task in product(presets, ("oracle", "wordnet")):
        config = presets[name](task)
        assert (config.preset, config.task) == (name, task)


@pytest.mark.parametrize("words", [["--task"], ["--preset"], ["--corpus", "--task", "toy"], ["toy"], ["--seed", "x"]])
def test_words_that_cannot_be_read_are_one_line(words: list[str]) -> None:
    assert "\n" not in assert_refused(words[0], parse, seqgan.PRESETS, "", words)


@pytest.mark.parametrize(
    ("presets", "old"), [(presets, old) for presets in (seqgan.PRESETS, leakgan.PRESETS) for old in sorted(RENAMED)]
)
def test_an_old_name_is_refused_and_the_new_one_named(presets: dict[str, Any], old: str) -> None:
    typed = f"--{old.replace('_', '-')}"
    known = RENAMED[old] in vars(presets["fast"]("oracle"))
    expected = f"is called --{RENAMED[old].replace('_', '-')} now" if known else "unrecognized options: "
    for word in (typed, f"--{old}"):
        assert_refused(f"{expected}|{typed} {expected}", parse, presets, "", [word, "1"])


@pytest.mark.parametrize("word", ["--hidden-size", "--hidden_size"])
def test_a_resumed_run_keeps_its_options_however_they_are_typed(word: str, tmp_path: Path) -> None:
    assert_refused("leave out --hidden-size", parse, mle.PRESETS, "", ["--resume", str(tmp_path), word, "8"])
    assert parse(mle.PRESETS, "", ["--resume", str(tmp_path), "--learning_rate", "1"]).overrides == ("learning_rate",)


def test_a_run_saved_with_old_names_is_resumed(tmp_path: Path) -> None:
    run = launch(parse(seqgan.PRESETS, "", [*TINY, "--kl-coef", "0.5", "--runs", str(tmp_path)]), seqgan.SeqGAN)
    about = run.path / "config.json"
    saved = json.loads(about.read_text("utf-8"))
    old_names = {new: old for old, new in RENAMED.items()}
    config = {old_names.get(name, name): value for name, value in saved["config"].items()}
    assert {"kl", "entropy", "look_every", "clip_norm", "anew", "average"} <= config.keys()
    about.write_text(json.dumps({**saved, "config": config}))
    resumed: list[seqgan.SeqGANConfig] = []

    def make(config: seqgan.SeqGANConfig, task: Task) -> seqgan.SeqGAN:
        resumed.append(config)
        return seqgan.SeqGAN(config, task)

    launch(parse(seqgan.PRESETS, "", ["--resume", str(run.path), "--threads", "1"]), make)
    assert [(config.kl_coef, config.ema_decay) for config in resumed] == [(0.5, saved["config"]["ema_decay"])]


@pytest.mark.parametrize("policy", ["lstm", "relational"])
def test_a_run_saved_when_every_network_had_one_layer_is_resumed(policy: str, tmp_path: Path) -> None:
    small = ["--task", "toy", "--preset", "smoke", "--epochs", "3", "--threads", "1", "--show-samples", "0"]
    words = [*small, "--eval-samples", "50", "--policy", policy, "--runs", str(tmp_path)]
    with interrupted(mle.MLE, "mle_batch", at=lambda _, step: step.round == 2):
        launch(parse(mle.PRESETS, "", words), mle.MLE)
    run = tmp_path / "mle-toy-1"
    about = run / "config.json"
    saved = json.loads(about.read_text("utf-8"))
    about.write_text(json.dumps({**saved, "config": saved["config"] | {"layers": 1}}))
    launch(parse(mle.PRESETS, "", ["--resume", str(run), "--threads", "1"]), mle.MLE)
    assert [row["step"] for row in read_metrics(run)][-1] == 3


def test_the_help_of_task_names_every_task() -> None:
    """The table of tasks lies above the options, so the help cannot be made from it."""
    source = inspect.getsource(options)
    said = re.search(r'task: str = "oracle"\n\s+"""(.*?)"""', source, re.DOTALL)
    assert said is not None
    named = re.sub(r"\([^)]*\)|[.\n]", " ", said.group(1)).split(",")
    assert sorted(name.strip() for name in named) == sorted(TASKS)


def test_the_options_of_an_earlier_run_are_defaults_and_it_may_be_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--task", "toy", "--preset", "smoke", "--threads", "1", "--show-samples", "0", "--runs"]
    mle.main([*small, str(tmp_path), "--name", "first", "--seed", "3", "--hidden-size", "5", "--eval-samples", "50"])
    first = tmp_path / "first-1"
    found = parse(mle.PRESETS, "", ["--config", str(first), "--seed", "4"])
    assert (found.task, found.preset, found.hidden_size, found.seed) == ("toy", "smoke", 5, 4)
    assert (found.name, found.threads, found.runs, found.eval_samples) == (None, None, Path("runs"), 50)
    assert parse(mle.PRESETS, "", ["--config", str(first / "config.json")]).epochs == 1
    assert parse(mle.PRESETS, "", ["--config", str(first), "--corpus", "mine.txt"]).task == "corpus"
    for words, sentence in (
        (f"--config {first} --preset smoke", "in place of --preset"),
        (f"--config {tmp_path / 'nowhere'}", "cannot be read"),
        (f"--resume {first} --config {first}", "a resumed run keeps its options: leave out --config"),
        ("--name a/b", "a name that can be a folder name"),
    ):
        assert sentence in mistake_of(mle.main, [*small[:2], *small[4:], str(tmp_path / "x"), *words.split()], capsys)
    assert "was not made by this agent" in mistake_of(seqgan.main, ["--config", str(first)], capsys)


def test_a_run_of_before_some_options_of_maximum_likelihood_has_their_defaults() -> None:
    config = mle.PRESETS["smoke"]("toy")
    saved = json.loads(json.dumps(vars(config), default=str))
    for name in ("model", "lora_rank", "random_smiles"):
        del saved[name]
    assert saved_options(mle.MLEConfig, saved, config, "'run'") == vars(config)
    del saved["epochs"]
    assert_refused("its config differs in epochs", saved_options, mle.MLEConfig, saved, config, "'run'")
