"""Every measure of a policy that applies to a task, and samples."""

from textgan_env.evaluation.bleu import BleuDiscriminator
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
from textgan_env.evaluation.samples import generate_texts, sample_texts, stream_texts

__all__ = [
    "BLEU_SAMPLES",
    "PROTOCOLS",
    "TILE",
    "BleuDiscriminator",
    "BleuProtocol",
    "Evaluation",
    "diversity",
    "evaluate",
    "generate_texts",
    "likelihoods",
    "missing_lines",
    "nll",
    "overlaps",
    "sample_texts",
    "score_texts",
    "stream_texts",
    "token_lists",
]
