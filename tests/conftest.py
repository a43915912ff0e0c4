"""One thread a test process: on shared cores the OpenMP default spins and loses up to tenfold."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("bytelm", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("bytelm")
