"""A model that is built from a configuration is no larger than the weights it is built for.

A configuration is a few numbers, and one wrong digit asks for a thousand million layers or a table
of a terabyte. Libraries build what they are told and compare it with the weights afterwards, if
ever they get there. `bounded_by` counts what is registered while a model is built, and ends that
with an error as soon as it is more than the file of weights can fill.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as registration

from bytelm.errors import CheckpointError

# A model may hold more than its file: tied tables are stored once, and libraries split what a file
# has joined. These are far beyond what any does.
_MORE_ELEMENTS, _LEAST_ELEMENTS = 8, 1 << 22
_PARAMETERS_PER_TENSOR, _LEAST_PARAMETERS = 64, 1000
_MODULES_PER_PARAMETER = 64
_LARGEST_BUFFER = 1 << 28  # elements


@contextmanager
def bounded_by(shapes: Sequence[Sequence[int]], place: object) -> Iterator[None]:
    """Bound the modules that this thread builds inside by the `shapes` of the stored tensors.

    Raises `CheckpointError`, which names `place`, for a model that those can never fill.
    """
    elements = max(_LEAST_ELEMENTS, _MORE_ELEMENTS * sum(map(_product, shapes)))
    parameters = max(_LEAST_PARAMETERS, _PARAMETERS_PER_TENSOR * len(shapes))
    left = {
        "elements": elements,
        "parameters": parameters,
        "modules": parameters * _MODULES_PER_PARAMETER,
    }
    thread = threading.get_ident()

    def spend(name: str, count: int) -> None:
        if threading.get_ident() != thread:
            return
        left[name] -= count
        if left[name] < 0:
            raise CheckpointError(
                f"the configuration in {place} asks for a larger model than its weights can fill: "
                f"they are {len(shapes):,} tensors of {sum(map(_product, shapes)):,} numbers"
            )

    def on_parameter(module: nn.Module, name: str, parameter: Any) -> None:
        if isinstance(parameter, Tensor):
            spend("parameters", 1)
            spend("elements", parameter.numel())

    def on_buffer(module: nn.Module, name: str, buffer: Any) -> None:
        if isinstance(buffer, Tensor) and buffer.numel() > _LARGEST_BUFFER:
            spend("elements", elements + 1)

    def on_module(module: nn.Module, name: str, inner: Any) -> None:
        spend("modules", 1)

    hooks = [
        registration.register_module_parameter_registration_hook(on_parameter),
        registration.register_module_buffer_registration_hook(on_buffer),
        registration.register_module_module_registration_hook(on_module),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _product(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= int(size)
    return product
