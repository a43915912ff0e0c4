"""Where to compute: one rule for training, evaluation and every command with `--device`.

`auto` is the fastest kind that torch finds on this machine: a CUDA GPU, else Apple's MPS, else the
CPU. MPS computes in float32 at most and takes no part in training on several processes.
"""

import torch

from bytelm.errors import BytelmError, unknown_name

KINDS = ("cpu", "cuda", "mps")


def available() -> list[str]:
    """The kinds of device that torch can use here, the fastest last."""
    found = ["cpu"]
    if torch.backends.mps.is_available():
        found.append("mps")
    if torch.cuda.is_available():
        found.append("cuda")
    return found


def choose_device(wanted: str | torch.device = "auto", *, several: bool = False) -> torch.device:
    """The device that `wanted` names: auto, cpu, cuda, mps, or one of several, such as cuda:1.

    several: whether several processes compute together. Raises `BytelmError` for a name that means
    nothing and for a device that is not here.

    >>> choose_device("cpu")
    device(type='cpu')
    """
    kinds = [kind for kind in available() if not (several and kind == "mps")]
    if wanted == "auto":
        return torch.device(kinds[-1])
    kind, _, index = str(wanted).partition(":")
    if kind not in KINDS or (index and not index.isdecimal()):
        raise BytelmError(unknown_name("device", str(wanted), ["auto", *KINDS]))
    if kind not in kinds:
        why = "trains in one process only" if kind in available() else "is not available here"
        raise BytelmError(f"the device {str(wanted)!r} {why}: choose auto or {' or '.join(kinds)}")
    if kind == "cuda" and index and int(index) >= torch.cuda.device_count():
        raise BytelmError(
            f"the device {str(wanted)!r} is not available here: there are "
            f"{torch.cuda.device_count()}, cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        )
    return torch.device(str(wanted))


def has_float64(device: torch.device) -> bool:
    """Whether the device computes in float64; Apple's does not."""
    return device.type != "mps"
