"""A language model of nine tokens, made here and trained by TRL on the CPU; also run in two processes by torchrun."""

import gc
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from textgan_env.ops.sampling import seeded
from textgan_env.trl import DiscriminatorReward, Reading, RewardFunction, controls
from textgan_env.trl.callbacks import DiscriminatorCallback

WORDS = ("the", "a", "cat", "dog", "sat", "ran")
CHAT = "{% for message in messages %}{{ message['content'] }} {% endfor %}"


def real_texts() -> list[str]:
    return [f"{one} {two} {three}" for one in WORDS[:2] for two in WORDS[2:4] for three in WORDS[4:]] * 5


def tiny_tokenizer() -> Any:
    numbers = {word: number for number, word in enumerate(("<eos>", "<unk>", "go", *WORDS))}
    words = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, chat_template=CHAT, **special)


def tiny_llama(seed: int = 0) -> LlamaForCausalLM:
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    config = LlamaConfig(
        vocab_size=9, max_position_embeddings=16, eos_token_id=0, pad_token_id=0, bos_token_id=2, **sizes
    )
    with seeded(seed):
        return LlamaForCausalLM(config)


def tiny_reward(**options: Any) -> DiscriminatorReward:
    return DiscriminatorReward(real_texts(), reading=Reading(max_length=5), steps=20, replay=64, **options)


def trainer_of(
    folder: Path,
    reward: DiscriminatorReward,
    functions: Sequence[RewardFunction] = (),
    *,
    kind: Any = (GRPOTrainer, GRPOConfig),
    chat: bool = False,
    callbacks: Sequence[Any] = (),
    **options: Any,
) -> Any:
    """A trainer of the tiny model with a reward, and other functions beside it at weight 0."""
    trainer, config = kind
    settings = {
        "output_dir": str(folder), "max_steps": 6, "per_device_train_batch_size": 16, "num_generations": 8,
        "max_completion_length": 4, "learning_rate": 1e-3, "logging_steps": 1, "save_strategy": "no", "use_cpu": True,
        "report_to": [], "disable_tqdm": True, "bf16": False,
        "reward_weights": [1.0, *[0.0] * len(functions)],
    }  # fmt: skip
    prompt: Any = [{"role": "user", "content": "go"}] if chat else "go"
    return trainer(
        model=tiny_llama(),
        reward_funcs=[reward, *functions],
        args=config(**{**settings, **options}),
        train_dataset=Dataset.from_dict({"prompt": [prompt] * 32}),
        eval_dataset=Dataset.from_dict({"prompt": [prompt] * 8}),
        processing_class=tiny_tokenizer(),
        callbacks=[DiscriminatorCallback(reward), *callbacks],
    )


def digest(state: Any) -> str:
    """A hash of nested dicts of tensors and plain values."""
    if isinstance(state, dict):
        state = [(str(key), digest(state[key])) for key in sorted(state, key=str)]
    elif isinstance(state, torch.Tensor):
        state = (state.dtype, state.shape, state.tolist())
    elif isinstance(state, list):
        state = [digest(part) for part in state]
    return hashlib.sha256(repr(state).encode()).hexdigest()


def batches_of_texts() -> list[list[str]]:
    """Four batches of sixteen texts that a model could write."""
    generator = torch.Generator().manual_seed(1)
    draws = torch.randint(len(WORDS), (4, 16, 3), generator=generator).tolist()
    return [[" ".join(WORDS[number] for number in text) for text in batch] for batch in draws]


def in_two_processes(folder: Path) -> None:
    """What torchrun starts: the same texts shared out, then training; each process writes what it has found."""
    import torch.distributed.nn  # before the group stands, which it would keep from ending
    from accelerate import PartialState

    rank = PartialState(cpu=True).process_index
    found = (*paid_in_two_processes(rank), *trained_in_two_processes(folder))
    # The trainer goes before the group. The other way round, DistributedDataParallel ends the group: it waits for
    # threads of gloo and holds the lock of the interpreter, for which one of them may wait to free its last tensor.
    gc.collect()
    torch.distributed.destroy_process_group()
    threads = [Path(task, "comm").read_text() for task in Path("/proc/self/task").glob("*")]
    torch.save((*found, sum("gloo" in name for name in threads)), folder / f"found-{rank}.pt")


def paid_in_two_processes(rank: int) -> tuple[list[Any], Any]:
    """What a reward and its control pay for the texts of this process, and the state of the reward."""
    reward, found = tiny_reward(), []
    shuffled = controls(reward).shuffled_in_groups
    for batch in batches_of_texts():
        mine = batch[10 * rank : 10 + 6 * rank]  # ten texts, and six
        for function in (reward, shuffled):
            found.append(function(prompts=["go"] * len(mine), completions=mine))
    return found, reward.state_dict()


def trained_in_two_processes(folder: Path) -> tuple[Any, list[float]]:
    """The state of a reward that learnt in training, and its AUC at each step."""
    reward = tiny_reward()
    trainer = trainer_of(folder, reward, per_device_train_batch_size=8, save_strategy="steps", save_steps=6)
    trainer.train()
    aucs = [row["discriminator/auc"] for row in trainer.state.log_history if "discriminator/auc" in row]
    return reward.state_dict(), aucs


if __name__ == "__main__":
    in_two_processes(Path(sys.argv[1]))
