"""What to write: oracle, corpus and toy tasks, and the registry of their names."""

from textgan_env.tasks.base import BLANK_MARK as BLANK_MARK
from textgan_env.tasks.base import Task as Task
from textgan_env.tasks.corpus import CorpusTask as CorpusTask
from textgan_env.tasks.fitted import discriminator_for as discriminator_for
from textgan_env.tasks.fitted import fit_ngram as fit_ngram
from textgan_env.tasks.fitted import load_causal_lm as load_causal_lm
from textgan_env.tasks.fitted import open_causal_lm as open_causal_lm
from textgan_env.tasks.grammar import GrammarTask as GrammarTask
from textgan_env.tasks.kept import fill_once as fill_once
from textgan_env.tasks.oracle import OracleTask as OracleTask
from textgan_env.tasks.oracle import draw_oracle_weights as draw_oracle_weights
from textgan_env.tasks.registry import PLACE_OPTIONS as PLACE_OPTIONS
from textgan_env.tasks.registry import TASKS as TASKS
from textgan_env.tasks.registry import make_task as make_task
from textgan_env.tasks.registry import saved_task as saved_task
from textgan_env.tasks.registry import shared_task as shared_task
from textgan_env.tasks.toy import ToyTask as ToyTask
from textgan_env.tasks.words import SubwordsTask as SubwordsTask
from textgan_env.tasks.words import WordsTask as WordsTask
