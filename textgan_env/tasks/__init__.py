"""What to write: oracle, corpus and toy tasks, and the registry of their names."""

from textgan_env.tasks.base import Task
from textgan_env.tasks.corpus import CorpusTask
from textgan_env.tasks.fitted import fit_ngram, load_causal_lm
from textgan_env.tasks.oracle import OracleTask, draw_oracle_weights
from textgan_env.tasks.registry import PLACE_OPTIONS, TASKS, make_task, saved_task, shared_task
from textgan_env.tasks.toy import ToyTask

__all__ = [
    "PLACE_OPTIONS", "TASKS", "CorpusTask", "OracleTask", "Task", "ToyTask", "draw_oracle_weights", "fit_ngram",
    "load_causal_lm", "make_task", "saved_task", "shared_task",
]  # fmt: skip
