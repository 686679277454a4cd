"""Every measure of a policy that applies to a task, and samples."""

from textgan_env.evaluation.bleu import BleuJudge
from textgan_env.evaluation.evaluate import (
    BLEU_SAMPLES,
    PROTOCOLS,
    TILE,
    BleuProtocol,
    Evaluation,
    diversity,
    evaluate,
    likelihoods,
    missing_lines,
    nll,
    overlaps,
    score_texts,
    token_lists,
)
from textgan_env.evaluation.samples import sample_texts, stream_texts, write_texts

__all__ = [
    "BLEU_SAMPLES",
    "PROTOCOLS",
    "TILE",
    "BleuJudge",
    "BleuProtocol",
    "Evaluation",
    "diversity",
    "evaluate",
    "likelihoods",
    "missing_lines",
    "nll",
    "overlaps",
    "sample_texts",
    "score_texts",
    "stream_texts",
    "token_lists",
    "write_texts",
]
