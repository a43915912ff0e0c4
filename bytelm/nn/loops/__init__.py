"""Compiled loops over float32 activations on CPUs: what is not matrix products, in one pass each.

Each does what the torch code beside its caller does, which stays the reference; `nn/fused.py`
decides which of the two runs, and `lm/decoding.py` about `decoding.py`, whole blocks of a step.
"""
