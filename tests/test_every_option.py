"""Every option of every agent, and every choice, goes through a whole smoke run: training, evaluation, the end."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from agents import class_of, mle, module_of
from test_every_agent import AGENTS
from textgan_env.training.launch import launch
from textgan_env.training.rewarded import OF_OBJECTIVE
from textgan_env.utils.options import TaskOptions

#: Options that stand in no run below, and why.
EXCEPTIONS = {
    "preset": "other presets are other values of the options below, and take minutes",
    "resume": "test_every_agent resumes every agent",
    "overrides": "no option: the names of those given beside --resume",
    "tokenizer": "test_causal_lm makes one, and runs whole trainings with it",
    "model": "as tokenizer",
    "column": "test_own_text reads tables",
    "lora_rank": "test_smollm2 runs it",
    "d_model": "as lora_rank",
    "d_layers": "as lora_rank",
    "discriminator ['lm']": "as lora_rank: it reads words",
    "config": "test_options takes the options of an earlier run",
}
# Options of every agent; PRE stands for a finished run of the same agent's pre-training, TEXT and MOLECULES for files.
PRE, TEXT, MOLECULES = Path("PRE"), "TEXT", "MOLECULES"
COMMON: list[dict[str, Any]] = [
    {
        "seed": 1, "temperature": 0.7, "select": "best", "eval_every": 1, "show_samples": 1, "patience": 1,
        "checkpoint_every": 0.0, "device": "cpu", "text_seed": 3, "max_length": 3, "embed_size": 5, "hidden_size": 6,
        "dropout": 0.1, "weight_decay": 0.3, "ema_decay": 0.5, "max_grad_norm": 0.5,
        "policy": "transformer",
    },
    {"deterministic": True, "stop_on_collapse": True, "select": "last", "policy": "relational", "name": "mine",
     "eval_samples": 40},
]  # fmt: skip
REWARDED: list[dict[str, Any]] = [
    {
        "control": "shuffled",
        "discriminator": "conv",
        "d_steps": 2,
        "d_epochs": 2,
        "d_batch_size": 128,
        "d_texts": 100,
        "held_back": 0.3,
    },
    {
        "control": "constant",
        "mle_batch_size": 100,
        "mle_learning_rate": 1e-3,
        "d_learning_rate": 1e-3,
        "rounds": 1,
        "objective": "has:1",
        "objective_weight": 0.3,
        "objective_control": "constant",
    },
    {
        "control": "random",
        "pretrained": PRE,
        "objective": "regex:0",
        "objective_weight": 0.3,
        "objective_control": "shuffled",
        "budget": 10_000,
    },
    {
        "control": "untrained",
        "d_objective": "pairs",
        "discriminator": "recurrent",
        "objective": "length:4",
        "objective_weight": 0.3,
        "objective_control": "random",
        "objective_workers": 1,
        "objective_timeout": 60.0,
    },
]
OWN: dict[str, list[dict[str, Any]]] = {
    "mle": [
        {"epochs": 2, "batch_size": 100, "learning_rate": 1e-3, "layers": 2, "shards": 2},
        {"scheduled_sampling": 0.3, "lr_schedule": "cosine"},
        {"task": "corpus", "corpus": TEXT, "mode": "char", "longer": "cut", "max_length": 9, "max_vocab": 12,
         "blanks": "keep", "lower": True, "encoding": "utf-8", "valid_share": 0.2, "test_share": 0.2, "split_seed": 3},
        {"task": "corpus", "corpus": TEXT, "mode": "bpe", "vocab_size": 260, "valid_path": TEXT, "test_path": TEXT,
         "longer": "cut", "max_length": 5, "eos": True},
        {"task": "corpus", "corpus": TEXT, "mode": "char", "longer": "cut", "max_length": 9, "blanks": "apart"},
        {"task": "corpus", "corpus": TEXT, "mode": "char", "longer": "cut", "max_length": 9, "blanks": "line"},
        {"task": "corpus", "corpus": MOLECULES, "mode": "smiles", "random_smiles": 0.5},
    ],
    "vae": [
        {"epochs": 3, "batch_size": 100, "learning_rate": 1e-3, "latent_size": 3, "anneal_epochs": 0, "shards": 2},
        {"kl_coef": 0.5, "free_bits": 0.1, "word_dropout": 0.6},
        {"task": "corpus", "corpus": TEXT},
    ],
    "seqgan": [
        {"policy": "lstm", "initial_state": "random", "baseline": "position", "negatives": "replayed",
         "transform": "prob", "gamma": 0.9,
         "mle_epochs": 2, "shards": 2, "g_steps": 2, "batch_size": 10, "learning_rate": 1e-3,
         "score_precision": "bf16"},
        {"baseline": "none", "mle_steps": 1, "ent_coef": 0.1, "kl_coef": 0.5, "writing_temperature": 1.5,
         "rollout_lag": 0.5, "transform": "rank", "d_pretraining": 2},
        {"rollouts": 0, "transform": "log", "initial_state": "random", "kl_coef": 0.0, "writing_temperature": 0.8},
        {"transform": "minimax", "discriminator": "bleu", "ent_coef": 0.1, "initial_state": "random", "q_interval": 2,
         "baseline": "prefix"},
        {"transform": "2p-1", "task": "corpus", "corpus": TEXT, "mode": "word", "longer": "grow", "min_count": 2,
         "policy": "transformer"},
    ],
    "maligan": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 2, "batch_size": 10, "learning_rate": 1e-3},
        {"mixed": 4, "weight_cap": 2.0},
        {"mixed": 2, "task": "corpus", "corpus": TEXT},
    ],
    "scratchgan": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 1, "batch_size": 10, "learning_rate": 1e-3,
         "transform": "prob", "gamma": 0.5, "baseline": "none", "d_batches": 2},
        {"transform": "logit", "baseline": "position", "all_actions": True},
        {"transform": "log", "baseline": "leave-one-out"},
        {"transform": "minimax"},
        {"task": "corpus", "corpus": TEXT},
    ],
    "maskgan": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 2, "batch_size": 12, "learning_rate": 1e-3,
         "transform": "prob", "gamma": 0.5, "baseline": "none", "fillings": 3, "d_batches": 2, "layers": 2},
        {"transform": "logit", "baseline": "critic", "critic_learning_rate": 1e-3, "mask": "independent"},
        {"transform": "2p-1", "mask_rate": 0.3, "mask_to": 1.0, "whole": 0.0, "d_context": False},
        {"transform": "minimax"},
        {"task": "corpus", "corpus": TEXT, "baseline": "critic"},
    ],
    "coldgan": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 2, "batch_size": 10, "learning_rate": 1e-3,
         "transform": "prob", "plain_share": 0.5, "cold_temperature": 0.7, "cold_top_p": 0.9, "negatives": "current"},
        {"transform": "log", "weigh": False},
        {"transform": "minimax"},
        {"transform": "2p-1"},
        {"transform": "rank"},
        {"task": "corpus", "corpus": TEXT, "discriminator": "bleu"},
    ],
    "reinvent": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 2, "batch_size": 10, "learning_rate": 1e-3,
         "sigma": 3.0, "transform": "logit", "baseline": "none"},
        {"transform": "log"},
        {"transform": "minimax"},
        {"transform": "2p-1"},
        {"task": "corpus", "corpus": TEXT, "objective": "has:cat", "repeat_decay": 0.5},
        {"task": "corpus", "corpus": TEXT, "discriminator": "bleu"},
    ],
    "textgan": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 1, "batch_size": 10, "learning_rate": 1e-3,
         "kernel": "mean", "real_texts": 30},
        {"kernel": "gaussian", "d_objective": "pairs", "gradient": "relaxed", "inverse_temperature": 2.0},
        {"task": "corpus", "corpus": TEXT},
    ],
    "relgan": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 1, "batch_size": 10, "learning_rate": 1e-3,
         "relaxation": "straight-through", "inverse_temperature": 3.0},
        {"anneal": False, "d_batches": 2},
        {"task": "corpus", "corpus": TEXT},
    ],
    "expert_iteration": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 1, "batch_size": 10, "learning_rate": 1e-3,
         "alpha": 0.5, "proposals": 3, "real_share": 0.2},
        {"search": "smc", "resample_every": 2, "rollouts": 2},
        {"search": "smc", "resample_every": 1, "discriminator": "recurrent", "rollouts": 0, "real_share": 0.0},
        {"task": "corpus", "corpus": TEXT, "search": "smc", "resample_every": 2},
        {"search": "tree", "simulations": 3, "width": 2, "c_puct": 2.0, "visit_temperature": 0.5},
        {"task": "corpus", "corpus": TEXT, "search_for": "likelihood"},
        {"task": "corpus", "corpus": TEXT, "search": "best", "objective": "has:cat", "objective_weight": 1.0},
        {"task": "corpus", "corpus": TEXT, "search": "tree", "simulations": 4},
    ],
    "grpo": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 2, "batch_size": 10, "learning_rate": 1e-3,
         "group_size": 5, "epochs": 2, "clip_range": 0.1},
        {"std": False, "kl_coef": 0.0, "longest_beginning": 0},
        {"task": "corpus", "corpus": TEXT, "d_objective": "cross-entropy", "longest_beginning": 1},
    ],
    "cot": [
        {"mle_epochs": 2, "mle_batch_size": 100, "mle_learning_rate": 1e-3, "m_epochs": 2, "shards": 2, "g_steps": 1,
         "batch_size": 10, "learning_rate": 2e-3, "credit": "to-go", "control": "frozen", "rounds": 1},
        {"m_steps": 2, "m_embed_size": 6, "m_hidden_size": 6, "m_dropout": 0.0, "m_learning_rate": 1e-3,
         "control": "real", "pretrained": PRE},
        {"task": "corpus", "corpus": TEXT},
    ],
    "dgsan": [
        {"mle_epochs": 2, "mle_batch_size": 100, "mle_learning_rate": 1e-3, "shards": 2, "g_steps": 1, "batch_size": 10,
         "learning_rate": 2e-3, "control": "self", "rounds": 1},
        {"pretrained": PRE},
        {"task": "corpus", "corpus": TEXT},
    ],
    "distill": [
        {"teachers": (PRE, PRE), "epochs": 2, "batch_size": 100, "learning_rate": 1e-3, "texts": "real", "shards": 2,
         "mean": "arithmetic", "teacher_temperature": 0.8},
        {"teachers": (PRE,), "divergence": "reverse", "pretrained": PRE},
    ],
    "rankgan": [
        {"mle_epochs": 2, "d_pretraining": 2, "shards": 2, "g_steps": 2, "batch_size": 10, "learning_rate": 1e-3,
         "rule": "reference", "references": 3, "comparison": 2, "gamma": 2.0, "transform": "prob", "baseline": "none"},
        {"transform": "log", "baseline": "position", "rollouts": 0},
        {"transform": "minimax"},
        {"transform": "2p-1"},
        {"task": "corpus", "corpus": TEXT, "rule": "reference"},
    ],
    "leakgan": [
        {"variant": "reference", "baseline": "none", "pretrain_rounds": 2, "pretrain_d_steps": 2, "pretrain_epochs": 2,
         "pretrain_patience": 1, "goal_size": 3, "goal_steps": 2, "d_embed_size": 8, "discriminator": "conv",
         "batch_size": 10, "learning_rate": 1e-3, "transform": "prob", "g_steps": 2, "rollouts": 3, "shards": 2,
         "score_precision": "bf16"},
        {"d_lr_scale": 0.5, "d_temperature": 1.5, "g_temperature": 0.7, "mle_interval": 1, "q_interval": 1,
         "transform": "logit", "baseline": "leave-one-out"},
        {"task": "corpus", "corpus": TEXT, "mode": "whitespace", "longer": "drop", "max_length": 5, "end_reward": "q"},
        {"task": "corpus", "corpus": TEXT, "longer": "cut", "max_length": 5, "end_reward": "intrinsic"},
        {"task": "corpus", "corpus": TEXT, "longer": "cut", "max_length": 5, "end_reward": "none"},
    ],
    "ppo": [
        {"kind": "maskable", "num_minibatches": 2, "epochs": 2, "clip_range": 0.1, "transform": "prob",
         "reward": "rollout", "rollouts": 2, "mle_epochs": 2, "d_pretraining": 2, "score_precision": "bf16"},
        {"kind": "recurrent", "gae_lambda": 0.9, "ent_coef": 0.1, "vf_coef": 0.3, "transform": "log",
         "reward": "difference", "rollouts": 2, "q_interval": 2},
        {"learn_steps": 2, "envs": 8, "texts": 2, "learning_rate": 1e-3, "transform": "minimax"},
        {"transform": "2p-1", "discriminator": "bleu"},
        {"transform": "rank"},
        {"task": "corpus", "corpus": TEXT, "kind": "maskable"},
    ],
    "a2c": [
        {"gae_lambda": 0.9, "ent_coef": 0.1, "vf_coef": 0.3, "transform": "prob", "reward": "rollout", "rollouts": 2,
         "score_precision": "bf16"},
        {"learn_steps": 2, "envs": 8, "texts": 2, "learning_rate": 1e-3, "transform": "minimax", "mle_epochs": 2},
        {"transform": "log", "reward": "difference", "rollouts": 2, "q_interval": 2, "d_pretraining": 2},
        {"transform": "2p-1", "discriminator": "bleu"},
        {"transform": "rank"},
    ],
    "dqn": [
        {"buffer_size": 500, "gradient_steps": 3, "batch_size": 64, "transform": "prob", "reward": "rollout",
         "rollouts": 2, "score_precision": "bf16"},
        {"learn_steps": 2, "envs": 8, "texts": 2, "learning_rate": 1e-3, "transform": "minimax", "mle_epochs": 2},
        {"transform": "log", "reward": "difference", "rollouts": 2, "q_interval": 2, "d_pretraining": 2},
        {"transform": "2p-1", "discriminator": "bleu"},
        {"transform": "rank"},
    ],
}  # fmt: skip


def runs_of(agent: str) -> list[dict[str, Any]]:
    """The changed options of each run of an agent: those of all agents are given beside its own ones."""
    rewarded = agent not in ("mle", "distill", "cot", "dgsan", "vae")
    own, every = OWN[agent], [*COMMON, *(REWARDED if rewarded else [])]
    beside = [run for run in own if "task" not in run and run.get("discriminator") != "bleu"]
    alone = [run for run in own if run not in beside]
    # The first of both lists go together, so nothing is changed twice in a run; what is left over runs by itself.
    common = [COMMON[0] | every[2], *every[1:2], *every[3:]] if rewarded else every
    longest = max(len(beside), len(common))
    paired = [*zip(beside + [{}] * longest, common + [{}] * longest, strict=False)][:longest]
    known, goal = choices(agent), set() if takes_objective(agent) else {"objective", *OF_OBJECTIVE}
    offered = [
        {name: one for name, one in run.items() if name not in goal and (not known[name] or one in known[name])}
        for _, run in paired
    ]
    return [*({**shared, **more} for (more, _), shared in zip(paired, offered, strict=True)), *alone]


def takes_objective(agent: str) -> bool:
    """Whether an objective can pay beside its discriminator."""
    return getattr(class_of(agent), "takes_objective", True)


def smoke(agent: str) -> Any:
    return module_of(agent).PRESETS["smoke"]("toy")


@cache
def choices(agent: str) -> Mapping[str, tuple[object, ...]]:
    """Option -> all that it can be, for options with a list of choices; ``True`` and ``False`` are one."""
    found = {}
    for name, hint in get_type_hints(type(smoke(agent)), include_extras=False).items():
        parts = [hint, *get_args(hint)]
        named = [value for part in parts if get_origin(part) is Literal for value in get_args(part)]
        found[name] = tuple(named) or ((True, False) if hint is bool else ())
    return found


def in_no_run(agent: str, runs: list[dict[str, Any]]) -> Iterator[str]:
    """The options, or choices of them, that no run of an agent has."""
    usual = smoke(agent)
    for field in fields(usual):
        name, tried = field.name, [run[field.name] for run in runs if field.name in run]
        every = choices(agent)[name]
        missing = [value for value in every if value not in (*tried, getattr(usual, name))]
        if missing or not (len(every) == 1 or any(value != getattr(usual, name) for value in tried)):
            yield f"{name} {missing or ''}".strip()


def test_every_option_and_every_choice_stands_in_a_run() -> None:
    assert sorted(OWN) == AGENTS
    everywhere = [run for agent in AGENTS for run in runs_of(agent)]
    of_tasks = {field.name for field in fields(TaskOptions)} | {"repeat_decay"}
    for agent in AGENTS:
        # How text is read, and what texts that come again are paid, do not depend on the agent: one run is enough.
        shared = [{name: value for name, value in run.items() if name in of_tasks} for run in everywhere]
        missing = [*in_no_run(agent, [*runs_of(agent), *shared, {"threads": 1, "runs": Path("elsewhere")}])]
        if not takes_objective(agent):
            missing = [name for name in missing if name.split()[0] not in ("objective", *OF_OBJECTIVE)]
        assert " ".join(name for name in missing if not {name, name.split()[0]} & set(EXCEPTIONS)) == "", agent
    in_none = {name for agent in AGENTS for name in in_no_run(agent, everywhere)}
    assert {part for name in in_none for part in (name, name.split()[0])} >= set(EXCEPTIONS)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Sixty short texts, some words of which are seen once."""
    path = tmp_path_factory.mktemp("text") / "own.txt"
    lines = [f"{a} {b} {c}" for a in ("the", "one") for b in ("cat", "dog", "hen", "cow", "fox") for c in "abcdef"]
    path.write_text("\n".join([*lines, "an ox", "the owl is here now and then"]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def molecules(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Seventy-two molecules."""
    path = tmp_path_factory.mktemp("molecules") / "own.smi"
    path.write_text("\n".join("C" * n + end for n in range(1, 13) for end in ("", "O", "N", "F", "Cl", "Br")) + "\n")
    return str(path)


@pytest.mark.slow
@pytest.mark.moves_global_rng  # importing SB3 does, once
@pytest.mark.parametrize(("agent", "number"), [(agent, at) for agent in AGENTS for at in range(len(runs_of(agent)))])
def test_a_whole_run_with_these_options(
    agent: str, number: int, text: str, molecules: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every processor can compute in bf16, but not fast.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    learner, changes = class_of(agent), runs_of(agent)[number]
    if "random_smiles" in changes:
        pytest.importorskip("rdkit", reason="rdkit is not installed (extra chem)")
    fixed: dict[str, Any] = {"threads": 1, "show_samples": 0, "runs": tmp_path}
    config = module_of(agent).PRESETS["smoke"](changes.get("task", "toy"))
    changes = {name: {TEXT: text, MOLECULES: molecules}.get(str(value), value) for name, value in changes.items()}
    if agent == "distill":
        same_task = {name: changes[name] for name in ("max_length", "text_seed") if name in changes}
        before = launch(replace(mle.PRESETS["smoke"]("toy"), **fixed, **same_task), mle.MLE).path
        places = {"teachers": (before,) * len(changes.get("teachers", (PRE,))), "pretrained": before}
        changes = changes | {name: place for name, place in places.items() if name in {*changes, "teachers"}}
    elif "pretrained" in changes:
        before = launch(replace(config, **fixed, rounds=0), learner).path
        changes = changes | {"pretrained": before}
    run = launch(replace(config, **{**fixed, **changes}), learner)
    measured = json.loads((run.path / "evaluation.json").read_text())["values"]
    assert measured
    assert all(map(math.isfinite, measured.values()))
