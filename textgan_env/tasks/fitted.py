"""Policies that are made for a task's text."""

import os
from typing import Any

from textgan_env.policies.causal_lm import CausalLMPolicy, read_causal_lm
from textgan_env.policies.ngram import NGramPolicy
from textgan_env.tasks.base import Task
from textgan_env.tasks.corpus import CorpusTask
from textgan_env.utils.errors import require


def fit_ngram(task: Task, order: int) -> NGramPolicy:
    """An n-gram model of a task's training texts, see `NGramPolicy.fit`."""
    train = task.split("train")
    return NGramPolicy.fit(train.tokens_BT, train.mask_BT, order=order, **_tokens_of(task))


def load_causal_lm(folder: str | os.PathLike[str], task: Task) -> CausalLMPolicy:
    """A causal language model of Hugging Face's transformers as a policy for a task of its own subwords.

    Where tokens mean nothing (an oracle task), token i is the model's token i.

    Args:
        folder: Of the model, as ``save_pretrained`` writes it: safetensors only, nothing is fetched or executed.
        task: Its text must be in the subwords of the model's tokenizer: ``tokenizer=folder``.

    Returns:
        The policy, with float32 weights, in eval mode. Its texts begin and end with the model's own tokens for that.

    Raises:
        InputError: If there is no such model, it is no causal one, it has too few tokens or positions, or the task has
            words of its own.
        MissingDataError: If transformers is not installed.
    """
    model = read_causal_lm(folder)
    ends = model.config.eos_token_id
    end = ends[0] if isinstance(ends, list) else ends
    start = end if model.config.bos_token_id is None else model.config.bos_token_id
    if task.vocabulary is None:
        numbers = [*range(task.vocab_size)]
    else:
        subwords = isinstance(task, CorpusTask) and task.corpus.subwords is not None
        require(subwords, f"task '{task.name}' has words of its own: read its text with tokenizer='{folder}'")
        # EOS is the model's; UNK, which is never written, is read as it.
        numbers = [int(word) if word.isdecimal() else end for word in task.vocabulary.tokens]
    require(None not in (start, *numbers), f"the config of the model at '{folder}' has no eos_token_id")
    return CausalLMPolicy(max_length=task.max_length, token_ids=[*numbers, start], model=model, **_tokens_of(task))


def _tokens_of(task: Task) -> dict[str, Any]:
    """What every policy must know of a task."""
    return {"vocab_size": task.vocab_size, "start_token": task.start_token, "forbidden": task.forbidden}
