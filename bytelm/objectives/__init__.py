"""Objectives: what a model is trained to predict and how it is judged, one per file."""

from bytelm.objectives.base import Objective as Objective
from bytelm.objectives.base import ObjectiveConfig as ObjectiveConfig
from bytelm.objectives.base import Setup as Setup
