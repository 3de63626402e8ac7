"""What a run trains, on which data: what must agree for two trainings to be one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from . import keys
from .catalogue import Task
from .identity import Identity
from .records import RunStart


@dataclass(frozen=True, slots=True)
class Subject:
    """The facts of a run that never change.

    Attributes:
        identity: what is trained.
        task: of the model.
        dataset: the user's name for the data.
        names: the classes by label.
    """

    identity: Identity
    task: Task
    dataset: str
    names: Mapping[int, str]

    def state(self) -> dict[str, Any]:
        """In plain JSON types."""
        return {
            "identity": asdict(self.identity),
            "task": self.task,
            "dataset": self.dataset,
            "classes": {str(label): name for label, name in self.names.items()},
        }

    def check(self, state: Mapping[str, Any]) -> None:
        """Compare with a run's ``state``.

        Raises:
            ValueError: if something else was trained, or on other data: curves would not compare.
        """
        for name, value in self.state().items():
            if state[name] != value:
                raise ValueError(
                    f"cannot resume run {state['id'][:8]}: its {name} is {state[name]!r}, here it "
                    f"is {value!r}; to begin a new run from this checkpoint leave out "
                    "load_state_dict, or pass run='new' to the callback"
                )

    def run_start(
        self,
        run_id: str,
        experiment: str,
        regularization: str,
        params: Mapping[str, str],
        resumed: bool,
    ) -> RunStart:
        """What loggers are told first."""
        identity = self.identity
        facts = {
            "group": identity.group,
            "algorithm": identity.algorithm,
            "input_size": identity.input_size,
            "backbone": identity.backbone,
            "task": self.task,
        }
        more = {"dataset": self.dataset, "run": run_id, "regularization": regularization}
        parts = self.dataset, identity.algorithm, identity.input_size, identity.backbone, run_id
        return RunStart(
            id=run_id,
            name=str(identity),
            experiment=keys.legal(experiment),
            folder=keys.folder(*parts),
            tags={keys.FACT + name: value for name, value in (facts | more).items()}
            | keys.originals([self.dataset, *self.names.values()]),
            params={keys.legal(name): value for name, value in params.items()} | facts,
            resumed=resumed,
        )
