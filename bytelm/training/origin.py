"""`model.from`: a model that begins with the weights of another instead of random ones.

The origin is a run directory, or a folder with a released checkpoint in a layout that the
architecture can read. Every tensor of it must have its place, of the same shape; what the model has
besides must be what its class says it adds (`ByteModel.added`, such as the gate of an MrT5 that
begins as a ByT5), and stays as it was initialised.
"""

from pathlib import Path

import torch

from bytelm.arch.base import ByteModel
from bytelm.errors import CheckpointError
from bytelm.run import Run
from bytelm.weights import load_weights


def begin_with(model: ByteModel, origin: str | None) -> list[str]:
    """`load_origin` where there is one; -> what to tell about it, lines of text."""
    if origin is None:
        return []
    new = load_origin(model, origin)
    fresh = f"; initialised: {', '.join(new)}" if new else ""
    return [f"beginning with the weights of {origin}{fresh}"]


@torch.no_grad()
def load_origin(model: ByteModel, origin: str | Path) -> list[str]:
    """Fill `model` with the weights at `origin`; -> names of tensors that it did not have.

    Raises `CheckpointError` where the two do not fit, and `BytelmError` for a release of an
    architecture that has none.
    """
    run = Run(Path(origin))
    if run.has_model:
        weights = run.read_weights()
    elif run.path.is_dir():
        weights = model.release_weights(load_weights(run.path))
    else:
        raise CheckpointError(f"model.from: there is no model at {origin}")
    ours = model.state_dict()
    new = sorted(ours.keys() - weights.keys())
    surplus = sorted(weights.keys() - ours.keys())
    lost = [name for name in new if not name.startswith(model.added)] if model.added else new
    if lost or surplus:
        raise CheckpointError(
            f"model.from: {origin} is no {type(model).__name__} as the recipe describes it: "
            f"{len(lost)} tensors missing {lost[:3]}, {len(surplus)} without a place {surplus[:3]}"
        )
    for name, tensor in weights.items():
        if tensor.shape != ours[name].shape:
            raise CheckpointError(
                f"model.from: {name} is {tuple(tensor.shape)} in {origin}, and the recipe makes it "
                f"{tuple(ours[name].shape)}: leave out the settings of [model] that say so, and "
                "those of the origin are taken"
            )
    for name, tensor in weights.items():
        ours[name].copy_(tensor)
    return new
