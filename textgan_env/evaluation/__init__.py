"""Every measure of a policy that applies to a task, and samples."""

from textgan_env.evaluation.blanks import blank_nll as blank_nll
from textgan_env.evaluation.blanks import template_of as template_of
from textgan_env.evaluation.bleu import BleuDiscriminator as BleuDiscriminator
from textgan_env.evaluation.evaluate import BLEU_SAMPLES as BLEU_SAMPLES
from textgan_env.evaluation.evaluate import Evaluation as Evaluation
from textgan_env.evaluation.evaluate import diversity as diversity
from textgan_env.evaluation.evaluate import evaluate as evaluate
from textgan_env.evaluation.evaluate import likelihoods as likelihoods
from textgan_env.evaluation.evaluate import missing_lines as missing_lines
from textgan_env.evaluation.evaluate import overlaps as overlaps
from textgan_env.evaluation.evaluate import score_texts as score_texts
from textgan_env.evaluation.evaluate import token_lists as token_lists
from textgan_env.evaluation.latent import interpolate as interpolate
from textgan_env.evaluation.latent import near as near
from textgan_env.evaluation.likelihood import FEW_LATENT_DRAWS as FEW_LATENT_DRAWS
from textgan_env.evaluation.likelihood import LATENT_DRAWS as LATENT_DRAWS
from textgan_env.evaluation.likelihood import TILE as TILE
from textgan_env.evaluation.likelihood import nll as nll
from textgan_env.evaluation.protocols import PROTOCOLS as PROTOCOLS
from textgan_env.evaluation.rules import valid_share as valid_share
from textgan_env.evaluation.samples import generate_texts as generate_texts
from textgan_env.evaluation.samples import stream_best as stream_best
from textgan_env.evaluation.samples import stream_texts as stream_texts
from textgan_env.evaluation.worth import DiscriminatorWorth as DiscriminatorWorth
from textgan_env.evaluation.worth import discriminator_worth as discriminator_worth
from textgan_env.evaluation.worth import worth_of_logits as worth_of_logits
