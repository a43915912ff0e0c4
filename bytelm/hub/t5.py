"""ByT5 and MrT5 in the layouts of transformers and of the MrT5 release (`bytelm.arch.t5.release`).

The vocabulary is that of bytes without sentinels of ours: a model for more span corruption is made
by a recipe with `model.from`, whose objective says how many sentinels it has.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bytelm.arch.base import STORED
from bytelm.arch.t5 import T5, MrT5
from bytelm.arch.t5.release import (
    GATE,
    from_release,
    mrt5_config,
    mrt5_settings,
    t5_config,
    to_release,
)
from bytelm.arch.t5.release import t5_settings as byt5_settings
from bytelm.damage import malformed, read_object
from bytelm.errors import CheckpointError
from bytelm.model_bounds import bounded_by
from bytelm.vocab import ByteVocab

Settings = Callable[[Mapping[str, Any]], dict[str, Any]]


class ByT5Format:
    """`T5ForConditionalGeneration` over bytes."""

    MODEL = T5

    @staticmethod
    def from_official(
        config: Mapping[str, Any] | str | Path, state_dict: Mapping[str, Tensor] | None
    ) -> T5:
        """The model of a configuration, with the given weights or initialised."""
        return _model(T5, byt5_settings, config, state_dict)

    @staticmethod
    def to_official(model: T5) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Configuration and weights."""
        return t5_config(model.config), to_release(model.config, model.state_dict())


class MrT5Format:
    """The MrT5 release (jkallini/mrt5), its random and fixed baselines included."""

    MODEL = MrT5

    @staticmethod
    def from_official(
        config: Mapping[str, Any] | str | Path, state_dict: Mapping[str, Tensor] | None
    ) -> MrT5:
        """The model of a configuration, with the given weights or initialised."""
        return _model(MrT5, mrt5_settings, config, state_dict)

    @staticmethod
    def to_official(model: MrT5) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Configuration and weights."""
        return mrt5_config(model.config), to_release(model.config, model.state_dict())


def _model(
    kind: Any,
    settings: Settings,
    config: Mapping[str, Any] | str | Path,
    state_dict: Mapping[str, Tensor] | None,
) -> Any:
    place = config if isinstance(config, str | Path) else "this configuration"
    what = f"a configuration of {kind.__name__}"
    shapes = None if state_dict is None else [tuple(t.shape) for t in state_dict.values()]
    bounds = nullcontext() if shapes is None else bounded_by(shapes, place)
    if isinstance(config, str | Path):
        config = read_object(Path(config), what)
    with malformed(place, what), bounds:
        ours = kind.Config.model_validate(settings(config), context=STORED)
        if state_dict is None:
            return kind(ours, ByteVocab())
        with torch.device("meta"):
            model = kind(ours, ByteVocab())
    weights = from_release(ours, state_dict)
    for name, tensor in model.state_dict().items():
        if name in GATE and name not in weights:
            raise CheckpointError(f"the state dict has no gate: it is that of a ByT5 ({name})")
        if name not in weights:  # the controller's memory, which no release has
            weights[name] = torch.zeros(tensor.shape, dtype=tensor.dtype)
        elif weights[name].shape != tensor.shape:
            raise CheckpointError(
                f"{name} has shape {tuple(weights[name].shape)}; the configuration needs "
                f"{tuple(tensor.shape)}"
            )
    model.load_state_dict(weights, assign=True)
    return model
