"""The one door to numba: how functions of the byte loops are compiled, and where results are kept.

    @compiled    machine code on first call, kept in numba's cache folder, run without the
                 interpreter's lock
    @inlined     the same, copied into the compiled functions that call it
    @vectorised  the same for loops over floats

numba keeps the machine code beside the source, or in the user's cache folder where the source
cannot be written. Where neither can be (a read-only install without a home), functions are compiled
all the same, by every process again, with one warning that names NUMBA_CACHE_DIR. Importing this
module takes about half a second, so only modules with compiled functions do.
"""

import warnings

from numba import njit


def _nothing() -> None: ...


def can_cache() -> bool:
    """Whether numba finds a folder: beside the source, the user's cache, or NUMBA_CACHE_DIR.

    Warns if it finds none.
    """
    try:
        njit(cache=True)(_nothing)
    except RuntimeError:
        warnings.warn(
            "numba finds no folder to keep compiled code in, so every process compiles it from "
            "scratch, which takes half a minute: set NUMBA_CACHE_DIR to a folder that can be "
            "written",
            stacklevel=1,
        )
        return False
    return True


_CACHE = can_cache()
compiled = njit(cache=_CACHE, nogil=True)
inlined = njit(cache=_CACHE, nogil=True, inline="always")
# for loops over floats: sums in any order and products fused with additions, so that they run on
# whole vectors; not-a-number and infinity stay what they are
vectorised = njit(
    cache=_CACHE,
    nogil=True,
    error_model="numpy",
    fastmath={"reassoc", "contract", "nsz"},
)
