"""Forward hooks that leave a model copyable, picklable and compilable; how a function ended."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from functools import wraps
from typing import Any

from boxscore.exit_status import ended, sigterm_raises
from boxscore.logger import Status


class Hook:
    """A hook whose copies and pickles do nothing.

    Args:
        see: the function to call.
        is_compiled: whether the framework compiles the training, where a hook must break the graph
            to be called; else ``torch.compile`` leaves it out.

    Attributes:
        owner: the object whose method is called, None of a function.
    """

    def __init__(self, see: Callable[..., None], *, is_compiled: bool = False) -> None:
        self._see, self._is_compiled = see, is_compiled
        self.owner = getattr(see, "__self__", None)
        if is_compiled:
            import torch

            self._see = torch.compiler.disable(see)  # type: ignore[no-untyped-call]

    def __call__(self, *args: Any) -> None:
        """Call the function."""
        import torch

        if self._is_compiled or not torch.compiler.is_compiling():
            self._see(*args)

    def __reduce__(self) -> Any:
        return getattr, (contextlib.nullcontext(), "__exit__")


def telling_its_end(
    train: Callable[..., Any], stop: Callable[[Status], None]
) -> Callable[..., Any]:
    """``train``, with ``stop`` called at its end: it returned, raised, or was killed."""

    @wraps(train)
    def told(*args: Any, **kwargs: Any) -> Any:
        with sigterm_raises():
            try:
                result = train(*args, **kwargs)
            except BaseException as error:
                stop(ended(error))
                raise
        stop("FINISHED")
        return result

    return told
