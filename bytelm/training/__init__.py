"""Training: recipes become models and run directories."""

from bytelm.training.build import build as build
from bytelm.training.loop import train as train
