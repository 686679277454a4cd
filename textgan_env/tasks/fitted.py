"""Policies and discriminators that are made for a task's text."""

import json
import os
from typing import Any

import torch

from textgan_env.discriminators import DiscriminatorModule, LMDiscriminator, make_discriminator
from textgan_env.ops.checksums import checksum
from textgan_env.policies.adapted import AdaptedPolicy
from textgan_env.policies.causal_lm import CausalLMPolicy
from textgan_env.policies.ngram import NGramPolicy
from textgan_env.tasks.base import Task
from textgan_env.tasks.corpus import CorpusTask
from textgan_env.tasks.kept import fill_once
from textgan_env.tasks.words import SubwordsTask
from textgan_env.text.language_models import TOKENIZER, ends_of, is_named, model_folder, read_causal_lm, read_config
from textgan_env.text.subwords import Subwords
from textgan_env.utils.errors import require
from textgan_env.utils.kinds import LANGUAGE_MODELS

#: Rank of the adapter of a model that is asked for by name.
LORA_RANK = 8


def fit_ngram(task: Task, order: int) -> NGramPolicy:
    """An n-gram model of a task's training texts, see `NGramPolicy.fit`."""
    train = task.split("train")
    return NGramPolicy.fit(train.tokens_BT, train.mask_BT, order=order, **_tokens_of(task))


def load_causal_lm(
    model: str | os.PathLike[str], task: Task, *, lora_rank: int | None = None, seed: int = 0
) -> CausalLMPolicy:
    """A causal language model of Hugging Face's transformers as a policy for a task of its own subwords.

    Where tokens mean nothing (an oracle task), token i is the model's token i.

    Args:
        model: By name (smollm2), or a folder as ``save_pretrained`` writes it: safetensors only, nothing is fetched or
            executed.
        task: Its text must be in the subwords of the model's tokenizer: ``tokenizer=model``.
        lora_rank: Of an adapter that learns in place of the model's weights; 0: these learn; None: 8 for a model by
            name, 0 for one of a folder.
        seed: Of the adapter.

    Returns:
        The policy, with float32 weights, in eval mode. Its texts begin and end with the model's own tokens for that.

    Raises:
        InputError: If there is no such model, it is no causal one, it has too few tokens or positions, or the task has
            words of its own or the subwords of another tokenizer.
        MissingDataError: If transformers is not installed, the model of that name is not here, or peft is missing.
    """
    rank = (LORA_RANK if is_named(model) else 0) if lora_rank is None else lora_rank
    require(rank >= 0, f"lora_rank must be at least 0, found {rank}")
    name = os.fspath(model)
    start, end = ends_of(read_config(model), name)
    if task.vocabulary is None:
        numbers = [*range(task.vocab_size)]
    else:
        require_own_subwords(model, task)
        # EOS is the model's; UNK, which is never written, is read as it.
        numbers = [int(word) if word.isdecimal() else end for word in task.vocabulary.tokens]
    sizes: dict[str, Any] = {"max_length": task.max_length, "token_ids": [*numbers, start], **_tokens_of(task)}
    if rank == 0:
        return CausalLMPolicy(model=read_causal_lm(model), **sizes)
    return AdaptedPolicy(base=name, rank=rank, seed=seed, **sizes).eval()


def open_causal_lm(model: str | os.PathLike[str], max_length: int) -> tuple[CausalLMPolicy, SubwordsTask]:
    """A causal language model with all its subwords, as it is, and what it writes.

    Args:
        model: As in `load_causal_lm`.
        max_length: T, a prompt counted.

    Returns:
        The policy, in eval mode, and its task, which has no real texts.

    Raises:
        InputError: As `load_causal_lm`, or if the model has no tokenizer.
        MissingDataError: As `load_causal_lm`.
    """
    name, read = os.fspath(model), read_causal_lm(model)
    start, end = ends_of(read.config, name)
    size = len(read.get_input_embeddings().weight)
    task = SubwordsTask(name, size, max_length, end)
    policy = CausalLMPolicy(max_length=max_length, token_ids=[*range(size), start], model=read, **_tokens_of(task))
    return policy.eval(), task


def require_own_subwords(model: str | os.PathLike[str], task: Task) -> None:
    """Refuse a task whose tokens are not subwords of a language model's own tokenizer.

    Raises:
        InputError: If so.
    """
    name = os.fspath(model)
    subwords = task.corpus.subwords if isinstance(task, CorpusTask) else None
    own = subwords is not None and task.vocabulary is not None and task.vocabulary.mode != "bpe"
    require(own, f"task '{task.name}' has words of its own: read its text with tokenizer='{name}'")
    if (model_folder(model) / TOKENIZER).is_file():
        assert subwords is not None
        other = f"task '{task.name}' was read with another model's tokenizer: read its text with tokenizer='{name}'"
        require(subwords.same_numbers(Subwords.of_folder(model)), other)


def discriminator_for(kind: str, task: Task, *, seed: int = 0, **options: Any) -> DiscriminatorModule:
    """A discriminator by name for the texts of a task, as it is drawn.

    That of kind ``lm`` knows the features of the task's real texts: they are made once on a machine (`fill_once`).

    Args:
        kind: A key of `DISCRIMINATORS`.
        task: What is judged.
        seed: Of the initial weights.
        options: More arguments of that kind.

    Raises:
        InputError: If an option is refused, or a discriminator that reads words is to judge numbers or the subwords of
            another model.
        MissingDataError: If a package is missing.
    """
    sizes: dict[str, Any] = {"vocab_size": task.vocab_size, "max_length": task.max_length, "seed": seed}
    if kind != "lm":
        return make_discriminator(kind, **sizes, **options)
    require(task.vocabulary is not None, f"discriminator lm reads words, the tokens of task '{task.name}' are numbers")
    assert task.vocabulary is not None
    own = isinstance(task, CorpusTask) and task.corpus.subwords is not None and task.vocabulary.mode != "bpe"
    if own:
        require_own_subwords(options.get("model", LANGUAGE_MODELS[0]), task)
    made = make_discriminator(kind, vocabulary=task.vocabulary.to_json(), own_subwords=own, **sizes, **options)
    assert isinstance(made, LMDiscriminator)
    real_RT = torch.cat([task.writable(split) for split in ("train", "valid")])
    features_RX = torch.zeros(len(real_RT), made.frozen.size)

    def fill() -> None:
        features_RX.copy_(made.frozen.of(real_RT))

    about = [made.model_hash, made.layers, own, task.vocabulary.fingerprint(), checksum("", {"tokens": real_RT})]
    what = f"what the language model makes of {len(real_RT):,} real texts"
    fill_once({"features": features_RX}, what, json.dumps(about), fill)
    made.know(real_RT, features_RX)
    return made


def _tokens_of(task: Task) -> dict[str, Any]:
    """What every policy must know of a task."""
    return {"vocab_size": task.vocab_size, "start_token": task.start_token, "forbidden": task.forbidden}
