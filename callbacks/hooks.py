"""Forward hooks that leave a model copyable, picklable and compilable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any


class Hook:
    """A hook whose copies and pickles do nothing, and that ``torch.compile`` leaves out."""

    def __init__(self, see: Callable[..., None]) -> None:
        self._see = see

    def __call__(self, *args: Any) -> None:
        """Call the function, except while a graph is traced."""
        import torch

        if not torch.compiler.is_compiling():
            self._see(*args)

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")
