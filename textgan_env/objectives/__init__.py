"""What texts are to be like, beside real: objectives by name, and any function of yours. Loads no torch."""

from textgan_env.objectives.asking import Answer as Answer
from textgan_env.objectives.asking import Workers as Workers
from textgan_env.objectives.asking import ask as ask
from textgan_env.objectives.asking import ask_values as ask_values
from textgan_env.objectives.base import Floats as Floats
from textgan_env.objectives.base import Objective as Objective
from textgan_env.objectives.own import ObjectiveLike as ObjectiveLike
from textgan_env.objectives.own import as_objective as as_objective
from textgan_env.objectives.own import names_code as names_code
from textgan_env.objectives.own import typed_objective as typed_objective
from textgan_env.objectives.registry import OBJECTIVES as OBJECTIVES
from textgan_env.objectives.registry import named_objective as named_objective
