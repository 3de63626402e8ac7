"""When something is due: every so many steps or epochs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Every:
    """Every ``steps`` optimizer steps, or every ``epochs`` epochs, or (neither given) never.

    >>> every = Every(steps=50)
    >>> [step for step in range(151) if every.due(step)]
    [50, 100, 150]
    >>> Every().due(50)
    False

    Raises:
        ValueError: if both are given, or one is not a number of 1 or more.
    """

    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ValueError("Every takes steps= or epochs=, not both")
        for name, count in (("steps", self.steps), ("epochs", self.epochs)):
            if count is None:
                continue
            whole = None if isinstance(count, bool) else getattr(count, "__index__", lambda: None)()
            if whole is None or whole < 1:
                raise ValueError(f"Every: {name} must be an integer of 1 or more, not {count!r}")
            object.__setattr__(self, name, whole)  # of a frozen value, once

    @classmethod
    def of(cls, interval: Every | int | None) -> Every:
        """Read an option: a number means steps; 0, None and False mean never.

        >>> Every.of(50)
        Every(steps=50, epochs=None)
        >>> Every.of(0)
        Every(steps=None, epochs=None)
        """
        if isinstance(interval, Every):
            return interval
        return cls(steps=interval) if interval else cls()

    def due(self, step: int, *, since: int | None = None) -> bool:
        """Whether it is due after ``step`` optimizer steps; an interval in epochs never is here.

        Args:
            step: steps so far.
            since: when this was asked before, for trainings whose steps come several at a time (as
                with two optimizers); by default one step ago.

        >>> Every(steps=5).due(6, since=4)
        True
        """
        if self.steps is None or step < 1:
            return False
        return step // self.steps > (step - 1 if since is None else since) // self.steps

    def due_epoch(self, epoch: int) -> bool:
        """Whether it is due after ``epoch`` whole epochs; an interval in steps never is here."""
        return self.epochs is not None and epoch > 0 and epoch % self.epochs == 0
