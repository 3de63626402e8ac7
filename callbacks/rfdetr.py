"""For RF-DETR's own training.

.. code-block:: python

    model = RFDETRNano()
    BoxscoreCallback().attach(model)
    model.train(dataset_dir="bccd", epochs=50)

or, with its Lightning module and data module:

.. code-block:: python

    trainer = build_trainer(train_config, model_config)
    trainer.callbacks.append(BoxscoreCallback())
    trainer.fit(RFDETRModelModule(model_config, train_config), RFDETRDataModule(…))

Algorithm, backbone, resolution, task, classes and the name of the data are those of its
configurations and of its data set. The losses are those of its criterion, with its weights. The
test set is its validation set, measured with the predictions of its own post-processing, of the
averaged weights where RF-DETR validates these, in the frame of the original images.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

from .requires import require

require("rfdetr", "boxscore[rfdetr]")
require("pytorch_lightning", "boxscore[rfdetr]")

import pytorch_lightning  # noqa: E402
import torch  # noqa: E402

from boxscore.callbacks.reading import rfdetr_module  # noqa: E402
from boxscore.callbacks.reading.facts import Facts  # noqa: E402

from . import lightning  # noqa: E402


class BoxscoreCallback(lightning.BoxscoreCallback, pytorch_lightning.Callback):  # type: ignore[misc]
    """Logs the losses and metrics of an RF-DETR training, over optimizer steps.

    The test set is measured whenever RF-DETR validates, or with ``evaluate_every=`` every so many
    optimizer steps and at the end. The train set is measured without augmentation. With
    ``run_test=True`` the best weights' metrics of the test folder are logged as the set
    ``test-held_out``, at the step of these weights. Checkpoints of the trainer hold the run's
    state: ``resume=`` continues the run.
    """

    reader = rfdetr_module.Reader()
    watched = rfdetr_module.Watched

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._has_ended = False

    def attach(self, model: Any) -> Self:
        """Measure the trainings of ``model``, an `RFDETR`, whose ``train`` takes no callbacks.

        Its ``train`` is wrapped, and while it runs RF-DETR's ``build_trainer``.

        Returns:
            the callback.
        """
        model.train = partial(self._train, model.train)
        return self

    def _train(self, train: Callable[..., None], **settings: Any) -> None:
        from rfdetr import training

        build: Any = training.build_trainer

        def built(*args: Any, **more: Any) -> Any:
            trainer = build(*args, **more)
            if self not in trainer.callbacks:  # it may be attached twice
                trainer.callbacks.append(self)
            return trainer

        training.build_trainer = built
        try:
            train(**settings)
        finally:
            training.build_trainer = build

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Open the run."""
        self.restart()
        self._begin(trainer, pl_module, None)

    def _facts_of(self, trainer: Any, module: Any, batch: Any) -> Facts:
        return rfdetr_module.facts_of(trainer, module, self._given)

    def evaluate_train(self) -> None:
        """Measure a stable subset of the train set, without augmentation."""
        loader = self._open[1].train_loader
        self._watched.train_set = getattr(loader, "dataset", None)
        try:
            super().evaluate_train()
        finally:
            self._watched.train_set = None

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """End the run, before RF-DETR loads its best weights to test them."""
        self.stop("FINISHED")
        self._has_ended = True

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        """Begin to evaluate the test folder, as of the step of the weights."""
        with self.warnings.catch("evaluation of the test folder"):
            if self._has_ended:
                self._loaded_step = _step_of_best(trainer)
            self.on_validation_start(trainer, pl_module)

    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Note that a later test is of the weights that the module holds."""
        self._has_ended = self._has_ended and stage != "fit"


def _step_of_best(trainer: Any) -> int | None:
    """The optimizer step of the best weights, which RF-DETR keeps in a file and has loaded."""
    from rfdetr.training.callbacks import BestModelCallback

    for callback in trainer.callbacks:
        if isinstance(callback, BestModelCallback) and callback._run_test:
            path = callback._output_dir / "checkpoint_best_total.pth"
            return int(torch.load(path, weights_only=False, mmap=True)["global_step"])
    return None
