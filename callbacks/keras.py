"""For Keras 3, on any of its backends.

.. code-block:: python

    with BoxscoreCallback(test_data, task="semantic-segmentation", dataset="cells",
                          classes=["no", "yes"]) as score:
        model.fit(train_data, epochs=5, callbacks=[score])

Keras' callbacks get running means and no predictions: the train losses are read from the model's
own sums, and the test set is passed here, batches ``(x, y)``. Detection: the output of ``predict``
and ``y`` are KerasHub's mappings, ``boxes``, ``classes`` and ``confidence``, padded with -1.
Semantic segmentation, which needs torch: logits and label maps in Keras' data format; focal,
cross_entropy and dice of the train split on the torch backend alone, whose steps are not compiled.
"""

from __future__ import annotations

from functools import partial
from importlib.util import find_spec
from typing import Any, Self, Unpack

from .requires import require

require("keras", "boxscore[keras]")

import keras

from boxscore.callbacks.reading import keras_losses, keras_outputs
from boxscore.callbacks.reading.facts import Facts
from boxscore.callbacks.reading.found import Found
from boxscore.exit_status import ended, sigterm_raises
from boxscore.keys import loss_scope, progress
from boxscore.records import Point

from .base import CallbackBase
from .options import Keywords


class BoxscoreCallback(CallbackBase, keras.callbacks.Callback):  # type: ignore[misc]
    """Logs the losses and metrics of a training by Keras, over optimizer steps.

    `regularization` is that of the layers, ``model.losses``, a part of Keras' own loss; without it
    the nominal one of the optimizer's ``weight_decay``, which is applied beside the objective.

    Keras tells its callbacks of no exception: the run then ends with the ``with`` block, or as the
    process exits, or another training begins. Its checkpoints hold no state of callbacks: keep
    `state_dict` beside them.
    """

    status_if_not_closed = "FAILED"
    always_evaluates = True  # all images
    reader = keras_outputs.KerasReader()

    def __init__(
        self,
        test_data: Any = None,
        *,
        train_data: Any = None,
        bounding_box_format: str | None = None,
        **options: Unpack[Keywords],
    ) -> None:
        """Name what is measured.

        Args:
            test_data: batches ``(x, y)``, to be gone through often; a mapping names several sets.
            train_data: likewise, for metrics on the train split.
            bounding_box_format: of the predictions and of ``y``; by default the model's.
            **options: see `boxscore.callbacks.options.Options`.
        """
        self._test_data, self._train_data = test_data, train_data
        self._format = bounding_box_format
        keras.callbacks.Callback.__init__(self)
        if find_spec("torch") is None:  # which draws the pictures
            options.setdefault("pictures", False)
        super().__init__(**options)
        if self.options.batch is not None:
            self.reader = keras_outputs.AdaptedKerasReader(self.options.batch)

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._sums: dict[str, Any] = {}  # of each loss in the epoch, as of the last reading
        self._new: dict[str, Any] = {}  # and since the last point
        self._first, self._position = 0, 0.0  # the optimizer's count at the beginning, and epochs
        self._seen: Any = None  # x, y and y_pred of a due batch, () before; None where not seen

    # the training

    def on_train_begin(self, logs: Any = None) -> None:
        """Open the run."""
        self.stop("FAILED")  # an exception ended the last training
        model = self.model
        self.restart()
        self.set_model(model)
        if self.options.task == "semantic-segmentation":
            require("torch", "torch>=2.4")
        optimizer = model.optimizer
        settings = {
            "epochs": self.params.get("epochs"),
            "optimizer": type(optimizer).__name__,
            "learning_rate": f"{keras_losses.number(optimizer.learning_rate):g}",
            "weight_decay": f"{optimizer.weight_decay or 0:g}",
        }
        loaders = {"loaders": self._test_data, "train_loader": self._train_data}
        self.start(model, None, Facts(**loaders, settings=settings))
        if self._open[0].task == "semantic-segmentation":
            self._watch_outputs(model)
        self._first = int(keras_losses.number(optimizer.iterations)) - self._steps
        self._stack.enter_context(sigterm_raises())

    def _watch_outputs(self, model: Any) -> None:
        if keras.backend.backend() != "torch" or model.jit_compile:
            text = "focal, cross_entropy and dice of the train split are not measured"
            self.warnings.warn_once("compiled", f"{text}: its steps are compiled, without outputs")
            return
        self._seen = ()
        self._stack.enter_context(keras_losses.seen(model, self._see))

    def _see(self, x: Any, y: Any, outputs: Any) -> None:
        """Keep what the model gave for a batch for which a point is due."""
        if self._open[0].due(self._steps + 1):
            self._seen = x, y, outputs

    def _semantic(self) -> tuple[Any, Any]:
        """The logits and label maps of the batch."""
        if not self._seen:
            raise ValueError("the train step calls no compute_loss(), whose arguments are measured")
        x, y, outputs = self._seen
        logits = keras_outputs.logits(outputs)
        return logits, keras_outputs.label_maps(self.reader.targets((x, y))).to(logits.device)

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin to sum anew, as Keras does."""
        self._sums, self._epoch = {}, epoch

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Forget the batch before."""
        self._seen = None if self._seen is None else ()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Record the losses since the last point, where one is due."""
        (run, _), optimizer = self._open, self.model.optimizer
        step = int(keras_losses.number(optimizer.iterations)) - self._first
        if batches := self.params.get("steps"):
            self._position = self._epoch + (batch + 1) / batches
        losses: dict[str, float] = {}
        if run.due(step):
            with self.warnings.catch("reading the losses of a step"):
                losses = self._losses()
            run.log(
                [
                    Point(
                        progress("learning_rate"),
                        keras_losses.number(optimizer.learning_rate),
                        step,
                    )
                ]
            )
            self._log_decay("train", step)
        self.record(losses, step, semantic=None if self._seen is None else self._semantic)
        self.evaluate_what_is_due(step)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Evaluate what is due after an epoch."""
        with self.warnings.catch("reading the losses of an epoch"):
            self._read()
        self.evaluate_what_is_due(self._steps, epoch + 1)

    def on_train_end(self, logs: Any = None) -> None:
        """End the run."""
        self.stop("FINISHED")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.stop(ended(error))

    def epochs(self) -> float | None:
        """How many epochs have passed, None where their length is not known."""
        return self._position or None

    def _losses(self) -> dict[str, float]:
        """The mean losses since the last point."""
        self._read()
        new, self._new = self._new, {}
        return keras_losses.parts(self.model, {n: s[0] / s[1] for n, s in new.items() if s[1]})

    def _read(self) -> None:
        """Add what the model has summed since the last reading."""
        now = keras_losses.sums(self.model)
        more = {name: value - self._sums.get(name, 0) for name, value in now.items()}
        self._new = {name: value + self._new.get(name, 0) for name, value in more.items()}
        self._sums = now
        self.progress.count(round(more["loss"][1]) if "loss" in more else 0)

    # evaluations

    def evaluate_now(self, split: str | None = None) -> None:
        """Go through the test set or sets, or one ``split``, and record the results."""
        for name, data in list(self._open[1].loaders.items()):
            if split in (None, name):
                self._offer(name, self._go_through(name, data))

    def evaluate_train(self) -> None:
        """Measure the first images of the train data, about as many as in the test set."""
        if self._train_data is not None and (count := self._open[1].train_count(None)):
            self._go_through("train", self._train_data, count)

    def _go_through(self, split: str, data: Any, count: float = float("inf")) -> dict[str, float]:
        _, evaluator = self._open
        evaluator.start(split, data)
        try:
            with keras_losses.kept(self.model):
                for batch in data:
                    if count <= 0:
                        break
                    count -= self.reader.count(batch)
                    evaluator.batch(split, batch, self._found)
        except Exception as error:
            evaluator.drop()
            self.warnings.handle(f"reading the data of the {split} split", error)
            return {}
        if split != "train":
            self._log_decay(split, self._open[0].step)
        return evaluator.finish(split)

    def _log_decay(self, split: str, step: int) -> None:
        """Log the optimizer's regularization, where the layers have none; it is not in `total`."""
        with self.warnings.catch("the optimizer's regularization"):
            if (value := keras_losses.decay(self.model)) and not self.model.losses:
                scope = loss_scope(self._open[0].identity.group)
                self._open[0].log([Point("regularization", value, step, split, scope=scope)])

    def _found(self, batch: Any) -> Found:
        model = self._measured_model
        if self.options.predict:
            return self.options.predict(model, batch)
        x, y = self.reader.images(batch), self.reader.targets(batch)
        losses, outputs = keras_losses.of_batch(model, x, y), model.predict_on_batch(x)
        if self._open[0].task == "semantic-segmentation":
            return losses, keras_outputs.logits(outputs), keras_outputs.label_maps(y)
        form = self._format or str(getattr(model, "bounding_box_format", ""))
        listed = partial(keras_outputs.listed, form=form, size=keras_outputs.size(x))
        return losses, listed(outputs), listed(y)
