"""A language model trained by TRL on a discriminator that learns along, where the truth is known: beside its controls.

``python -m benchmarks.trl_law`` gives GRPO a small Llama of random weights and the toy task's texts of four words as
real texts. All 256 texts are listed, so what the model has come to is exact: total variation to the true distribution,
cover, and the share of texts that have four words at all, before and after. Arms: the reward, the same rewards shuffled
over the batch, the discriminator as it was made, and maximum likelihood on the same real texts.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.results import command, show
from textgan_env.utils.errors import require_known

if TYPE_CHECKING:
    from textgan_env.tasks import ToyTask

WORDS = ("one", "two", "three", "four")
_SPECIAL = ("<eos>", "<unk>", "go")
ARMS = ("reward", "shuffled", "untrained", "maximum likelihood")


@dataclass(frozen=True)
class Options:
    """Train a small Llama by TRL on a discriminator that learns along, and on controls."""

    steps: int = 300
    """Optimizer steps of the model."""
    batch_size: int = 128
    """Texts a step; all have one prompt, so they are one group."""
    learning_rate: float = 1e-3
    """Of the model, by AdamW."""
    texts: int = 2000
    """Real texts, a fifth of which is held out."""
    first_seed: int = 1
    """Of weights, draws and what is held out; the true distribution is the same."""
    seeds: int = 3
    """How many."""
    arms: tuple[str, ...] = ARMS
    """Which, of reward, shuffled, untrained, "maximum likelihood"."""
    name: str = "trl_law"
    """Of the result files."""


@command
def main(options: Options) -> None:
    """The command."""
    import torch

    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for arm in options.arms:
        require_known("arm", arm, ARMS)
        of_seeds = [learn(options, arm, seed) for seed in range(options.first_seed, options.first_seed + options.seeds)]
        mean = {name: sum(row[name] for row in of_seeds) / len(of_seeds) for name in of_seeds[0]}
        each = " ".join(f"{row['total variation']:.3f}" for row in of_seeds)
        rows.append({"arm": arm, **mean, "total variation of each seed": each})
        print(rows[-1], flush=True)
    notes = (
        f"Toy task: 256 texts of four words, {options.texts} real texts. A Llama of random weights, 2 layers, 64 wide. "
        f"TRL's GRPO, {options.steps} steps of {options.batch_size} texts in one group, AdamW at "
        f"{options.learning_rate:g}, advantages not divided, no KL term; pair discriminator, logit as reward, refitted "
        f"for ten steps after each. Mean of {options.seeds} seeds. Total variation: 0 is the true distribution, 1 has "
        "no text in common. cover: KL(p||q) / 4, nats. four words: share of the model's texts that have four words. "
        "Maximum likelihood: as many steps of as many texts, drawn from all real texts. seconds: of the processor."
    )
    show(options.name, rows, notes=notes)


def learn(options: Options, arm: str, seed: int) -> dict[str, float]:
    """What a model has come to, and where it began."""
    import time

    from textgan_env.tasks import ToyTask

    task, model = ToyTask(size=options.texts, text_seed=seed), small_llama(seed)
    before, began = measured(task, model), time.process_time()
    (likelihood if arm == "maximum likelihood" else rewarded)(options, task, model, seed, arm)
    seconds = time.process_time() - began
    return {f"{name} before": value for name, value in before.items()} | measured(task, model) | {"seconds": seconds}


def rewarded(options: Options, task: "ToyTask", model: Any, seed: int, arm: str) -> None:
    """Train a model by GRPO."""
    import tempfile
    import warnings

    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from textgan_env.trl import DiscriminatorReward, controls
    from textgan_env.trl.callbacks import DiscriminatorCallback

    real = [" ".join(WORDS[word] for word in text) for text in task.split("train").tokens_BT.tolist()]
    reward = DiscriminatorReward(real, seed=seed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
        config = GRPOConfig(
            output_dir=folder, seed=seed, max_steps=options.steps, per_device_train_batch_size=options.batch_size,
            num_generations=options.batch_size, max_completion_length=task.max_length, scale_rewards="none",
            learning_rate=options.learning_rate, lr_scheduler_type="constant", loss_type="dr_grpo", use_cpu=True,
            bf16=False, gradient_checkpointing=False, save_strategy="no", logging_strategy="no", report_to=[],
            disable_tqdm=True,
        )  # fmt: skip
        GRPOTrainer(
            model=model,
            reward_funcs=getattr(controls(reward, seed=seed), arm),
            args=config,
            train_dataset=Dataset.from_dict({"prompt": ["go"] * options.batch_size}),
            processing_class=tokenizer(),
            callbacks=[DiscriminatorCallback(reward)],
        ).train()


def likelihood(options: Options, task: "ToyTask", model: Any, seed: int, arm: str) -> None:
    """Train a model by maximum likelihood."""
    import torch

    texts_BT = task.split("train").tokens_BT
    optimizer = torch.optim.AdamW(model.parameters(), lr=options.learning_rate, weight_decay=0.0)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(options.steps):
        rows_B = torch.randint(len(texts_BT), (options.batch_size,), generator=generator)
        optimizer.zero_grad()
        (-log_prob(model, texts_BT[rows_B]).mean()).backward()
        optimizer.step()


def measured(task: "ToyTask", model: Any) -> dict[str, float]:
    """How far a model is from the true distribution, by listing all texts."""
    import torch

    with torch.no_grad():
        logq_S, logp_S = log_prob(model, task.texts_ST).double(), task.logp_S
    p_S, q_S = logp_S.exp(), logq_S.exp()
    other = 1 - float(q_S.sum())  # texts that end early, or have other tokens
    return {
        "total variation": (float((p_S - q_S).abs().sum()) + other) / 2,
        "cover": float((p_S * (logp_S - logq_S)).sum()) / task.max_length,
        "four words": 1 - other,
    }


def log_prob(model: Any, texts_BT: Any) -> Any:
    """Log q of texts of words after the prompt, nats, float (B,)."""
    import torch

    prompt_B1 = torch.full((len(texts_BT), 1), _SPECIAL.index("go"))
    tokens_BT = texts_BT + len(_SPECIAL)
    logits_BSV = model(torch.cat([prompt_B1, tokens_BT], dim=1)).logits
    return logits_BSV[:, :-1].log_softmax(2).gather(2, tokens_BT[..., None])[..., 0].sum(1)


def small_llama(seed: int) -> Any:
    """Random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from textgan_env.ops.sampling import seeded

    config = LlamaConfig(
        vocab_size=len(_SPECIAL) + len(WORDS), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=16, eos_token_id=0, pad_token_id=0, bos_token_id=2,
    )  # fmt: skip
    with seeded(seed):
        return LlamaForCausalLM(config)


def tokenizer() -> Any:
    """A token for each word."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words: Any = Tokenizer(
        models.WordLevel({word: at for at, word in enumerate((*_SPECIAL, *WORDS))}, unk_token="<unk>")
    )
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


if __name__ == "__main__":
    main()
