"""What every framework's callback shares: its options, its run, what is due, checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, Unpack

from boxscore import Every, Run, Tag, distributed
from boxscore.callbacks.reading.batches import AdaptedReader, BatchReader, length
from boxscore.callbacks.reading.data_info import dataset_name
from boxscore.callbacks.reading.facts import Facts, opening_lines, training_params
from boxscore.callbacks.reading.found import Predict
from boxscore.exit_status import ended
from boxscore.identity.wrappers import network
from boxscore.keys import originals, splits
from boxscore.logger import Status
from boxscore.losses.parts import criterion_parts
from boxscore.warn import Warnings

from .artifacts import Artifacts, history_of
from .evaluator import Evaluator
from .hooks import Hook
from .options import NEW, Keywords, Options
from .progress import AT_ONCE, Progress


class CallbackBase:
    """A callback less its framework: subclasses translate hooks and call these verbs.

    Attributes:
        options: the user's.
        run: the open run; None before the training begins.
        reader: how batches are read.
    """

    status_if_not_closed: Status = "FINISHED"
    always_evaluates = False  # whether the framework also does what ``evaluate_every=`` requests
    reader: BatchReader = BatchReader()

    def __init__(self, **options: Unpack[Keywords]) -> None:
        self.options = Options(**options)
        if self.options.batch is not None:
            self.reader = AdaptedReader(self.options.batch)
        self._given = frozenset(options)
        self._earlier: Mapping[str, Any] = {}
        self.restart()

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        self.run: Run | None = None
        self.warnings = Warnings(self.options.on_error)
        self.progress = Progress()
        self.evaluator: Evaluator | None = None
        self._facts = Facts()
        self._model: Any = None
        self._steps = 0
        self._intervals = Every(), Every()  # of the test sets, where the framework does not decide
        self._stack = ExitStack()

    @property
    def latest(self) -> dict[str, float]:
        """The test set's last values by catalogue name; NaN where they could not be measured."""
        return {} if self.run is None else self.run.latest

    @property
    def best(self) -> dict[str, float]:
        """The test set's best values by catalogue name."""
        return {} if self.run is None else self.run.best

    # the beginning and the end

    def start(self, model: Any, optimizer: Any, facts: Facts, *, is_logged: bool = True) -> Run:
        """Open the run, or continue that of a checkpoint.

        Args:
            model: wrapped or not.
            optimizer: gives regularization and learning rate.
            facts: what the framework knows.
            is_logged: False measures without a logger, for evaluations before the training.

        Raises:
            ValueError: for what cannot be inferred, with what to pass; or for a checkpoint of
                something else.
        """
        from boxscore.callbacks.reading.model_info import classes_of, inferred, task_of

        if not distributed.all_ranks_present():
            self.warnings.warn_once(
                "alone",
                "some processes of this training have no callback: only this one is measured; "
                "make the callback in every process",
            )
        background = False
        if self.options.predict is None and "torchvision" in sys.modules:
            from boxscore.losses import is_torchvision_detector

            background = is_torchvision_detector(model)
        options, loaders = self.options, splits(facts.loaders)
        first = next(iter(loaders.values()), None)
        self._model, self._facts = model, facts
        loggers = options.destinations() if is_logged else ()
        history = history_of(loggers)
        run = Run(
            options.identity or facts.identity or inferred(model, facts.size),
            task=options.task or facts.task or task_of(model, None),
            dataset=options.dataset
            or facts.dataset
            or dataset_name(facts.train_loader if first is None else first),
            classes=classes_of(
                first,
                options.classes or facts.classes,
                model=network(model),
                background=background,
            ),
            loggers=[*loggers, *([] if history is None else [history])],
            log_every=options.log_every,
            optimizer=optimizer,
            experiment=options.experiment,
            fingerprint=options.fingerprint,
            ignore_index=self.ignore_index,
            per_class=options.per_class,
            params=training_params(
                model,
                optimizer,
                facts.train_loader,
                first,
                {**facts.settings, **(options.params or {})},
            ),
            warnings=self.warnings,
            status_if_not_closed=self.status_if_not_closed,
        )
        lines = opening_lines(model, optimizer)
        if facts.ignore_index is not None and self.ignore_index != options.ignore_index:
            lines.append(f"ignore_index={facts.ignore_index}, as in the criterion")
        for line in lines if distributed.rank() == 0 else ():
            print(f"boxscore: {line}", file=sys.stderr)
        self._artifacts = Artifacts(run, self.reader, options.pictures, history)
        evaluator = Evaluator(run, self.reader, self.progress, self._artifacts)
        if is_logged:
            self._resume(run, evaluator)
        evaluator.train_loader = facts.train_loader
        evaluator.predict = options.predict or self.predictor(model, run)
        for split in loaders:
            run.metric(split)  # classes that cannot be measured are an error before training
        run.open()
        self.run, self.evaluator = run, evaluator
        self._intervals = (
            Every() if self._follows else Every.of(options.evaluate_every),
            Every.of(options.evaluate_train_every),
        )
        self.take_loaders(facts.loaders)
        for name in ("evaluate_images", "evaluate_model"):
            if getattr(options, name) is not None and (self._follows or self.always_evaluates):
                advice = "limit its data" if self.always_evaluates else "pass evaluate_every= too"
                text = f"{name}= has no effect on the framework's own evaluations; {advice}"
                self.warnings.warn_once(name, text)
        return run

    def take_loaders(self, loaders: Any) -> None:
        """Take the test set, or several by name, in place of those before."""
        run, evaluator = self._open
        before, evaluator.loaders = evaluator.loaders, splits(loaders)
        if isinstance(loaders, Mapping) and evaluator.loaders.keys() - before.keys():
            run.log([Tag(name, text) for name, text in originals(loaders).items()])

    def predictor(self, model: Any, run: Run) -> Predict | None:  # noqa: ARG002
        """How boxscore measures a batch, where the user does not say; None where it cannot."""
        return None

    @property
    def ignore_index(self) -> int | None:
        """The label that counts nowhere: the user's, the criterion's, or 255."""
        if "ignore_index" in self._given or self._facts.ignore_index is None:
            return self.options.ignore_index
        return self._facts.ignore_index

    def watch(
        self,
        module: Any,
        see: Callable[..., None],
        *,
        before: bool = False,
        is_compiled: bool = False,
    ) -> None:
        """Call ``see`` with each forward of ``module`` until the training ends.

        Args:
            module: its copies and pickles do not call ``see``.
            see: takes the module, the arguments, the keywords and, unless ``before``, the output.
            before: whether it is called before the forward.
            is_compiled: whether the framework compiles ``module``.
        """
        register = module.register_forward_pre_hook if before else module.register_forward_hook
        hook = Hook(see, is_compiled=is_compiled)
        self._stack.callback(register(hook, with_kwargs=True).remove)

    def reopen(self) -> bool:
        """Open the run of the last training again, for an evaluation after it; `stop` closes it.

        Returns:
            whether a training began before.
        """
        if self.run is not None:
            self.run.reopen()
        return self.run is not None

    def stop(self, status: Status | None) -> None:
        """End the run, and remove the hooks.

        Args:
            status: how the training ended; if well, the test sets are evaluated once more. None
                after `reopen`: the run ends as it did before.
        """
        stack, self._stack = self._stack, ExitStack()
        with stack:
            if self.run is None or not self.run.is_open:
                return
            try:
                if status == "FINISHED":
                    status = self._final_evaluation()
            except BaseException as error:  # such as SIGTERM, by torchrun where another rank failed
                status = status if status == "FAILED" else ended(error)
                raise
            finally:
                try:
                    self._artifacts.close(status)
                finally:  # a signal while they are waited for changes nothing of the status
                    self.run.close(status)

    def _final_evaluation(self) -> Status:
        run, evaluator = self._open
        try:
            reached = distributed.gather_at_end("the end", (run.step, evaluator.evaluated_at))
        except RuntimeError as error:  # torch's, where another process is gone
            self.warnings.count_error("another process did not finish", error)
            return "FAILED"
        step = max(at for at, _ in reached)
        if self._facts.evaluates_at_end and min(at for _, at in reached) < step:
            run.reach(step)
            self.evaluate_now()
        self.progress.epoch_ended(step, run.names)
        evaluator.tag_train_set()
        return "FINISHED"

    # checkpoints

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold for `load_state_dict`, in plain JSON types.

        With several processes, call it where checkpoints are saved; one process's state will do.
        """
        if self.run is None or self.evaluator is None:
            return dict(self._earlier)
        return {
            "run": self.run.state_dict(),
            "steps": self._steps,
            "evaluated_at": self.evaluator.evaluated_at,
            "progress": self.progress.state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue the run of a checkpoint; points recorded after it are not recorded again.

        ``run="new"`` begins a new run from the checkpoint instead.

        Raises:
            RuntimeError: if this training has begun. (A checkpoint of something else raises when
                the training begins.)
        """
        if self.run is not None and self.run.is_open:
            raise RuntimeError("load_state_dict comes before the training begins; its run is open")
        self._earlier = dict(state)

    def _resume(self, run: Run, evaluator: Evaluator) -> None:
        earlier, self._earlier = self._earlier, {}
        if not earlier:
            return
        self._steps, evaluator.evaluated_at = earlier["steps"], earlier["evaluated_at"]
        self.progress.restore(earlier["progress"])
        if self.options.run == NEW:
            run.start_at(self._steps)
        else:
            run.load_state_dict(earlier["run"])

    # the train split

    def saw(self, *pieces: Any) -> None:
        """Count one batch of the train set, whole or in the pieces of several replicas."""
        with self.warnings.catch("reading a batch"):
            targets = [self.reader.targets(piece) for piece in pieces]
            listed = [t for one in targets if isinstance(one, list | tuple) for t in one]
            self.progress.saw(sum(map(self.reader.count, pieces)), listed)

    def record(
        self,
        losses: Any,
        step: int,
        *,
        epoch: float | None = None,
        semantic: Callable[[], tuple[Any, Any]] | None = None,
    ) -> None:
        """Take the losses of one batch of ``step``, and log them when a point is due.

        Args:
            losses: by framework name, or one scalar.
            step: optimizer steps so far.
            epoch: how many epochs have passed, by default as the train loader tells.
            semantic: gives the logits and targets of the batch, for the losses measured on them.
        """
        run, evaluator = self._open
        self.progress.read(run.names, at_least=AT_ONCE)
        values: Mapping[str, Any] = {}
        try:
            if run.task == "semantic-segmentation":
                losses = criterion_parts(losses)
            values = evaluator.scalars(losses)
        except Exception as error:
            self.warnings.handle("reading the losses of a step", error)
        run.record(
            values,
            step=step,
            images=self.progress.images,
            epoch=self.epochs() if epoch is None else epoch,
            batch=None if semantic is None else partial(self._measured, semantic),
        )

    def _measured(self, semantic: Callable[[], tuple[Any, Any]]) -> dict[str, Any]:
        """Focal, cross-entropy and Dice loss of a batch."""
        from boxscore.callbacks.reading.predict import measured_on

        return measured_on(*semantic(), self.ignore_index)

    def epochs(self) -> float | None:
        """How many epochs have passed, None where that is not known."""
        batches = length(self._facts.train_loader)
        return self.progress.batches / batches if batches else None

    @property
    def _open(self) -> tuple[Run, Evaluator]:
        if self.run is None or self.evaluator is None:
            raise RuntimeError("the training has not begun: there is no run yet")
        return self.run, self.evaluator

    # evaluations

    def evaluate_what_is_due(self, step: int, epoch: int | None = None) -> None:
        """Evaluate what is due after ``step``, and after whole epoch ``epoch`` if one has ended."""
        before, self._steps = self._steps, step
        if epoch is not None:
            self.progress.epoch_ended(step, self._open[0].names)
        test, train = self._intervals
        try:
            if test.due(step, since=before) or (epoch is not None and test.due_epoch(epoch)):
                self.evaluate()
            if train.due(step, since=before) or (epoch is not None and train.due_epoch(epoch)):
                self.evaluate_train()
            if epoch is not None:
                self._open[1].tag_train_set()
        except Exception as error:
            self.warnings.handle("what follows a step", error)

    @property
    def _follows(self) -> bool:
        """Whether the framework decides when the test sets are evaluated."""
        return self._facts.evaluates and "evaluate_every" not in self._given

    def evaluate(self, split: str | None = None) -> None:
        """Measure the test set or sets now, or one ``split``, at the step of the last record."""
        self.evaluate_now(split)

    def evaluate_now(self, split: str | None = None) -> None:
        """Go through the test set or sets, or one ``split``, and record the results."""
        _, evaluator = self._open
        for name, loader in list(evaluator.loaders.items()):
            if split in (None, name):
                self._offer(name, evaluator.run(name, loader, self._measured_model, self._count))

    def evaluate_train(self) -> None:
        """Measure a stable subset of the train set, no larger than the test set."""
        _, evaluator = self._open
        if evaluator.train_loader is not None and (count := evaluator.train_count(self._count)):
            evaluator.run("train", evaluator.train_loader, self._measured_model, count)

    @property
    def _measured_model(self) -> Any:
        """The model whose predictions are measured."""
        given = self.options.evaluate_model
        if given is None:
            return self._model
        return given if hasattr(given, "eval") else given()

    @property
    def _count(self) -> int | None:
        return None if self._follows else self.options.evaluate_images

    def _offer(self, split: str, values: dict[str, float]) -> None:
        """Hand the ``values`` of ``split`` to the framework, for callbacks that monitor them."""
