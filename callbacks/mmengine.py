"""For MMEngine's Runner, and what is built on it: MMDetection, MMSegmentation.

.. code-block:: python

    custom_imports = dict(imports=["boxscore.callbacks.mmengine"])
    custom_hooks = [dict(type="BoxscoreHook", dataset="bccd")]

The losses are those of ``train_step``. The test set is that of the runner's validation, measured
with the data samples that the model returns, in the original image's frame; its losses come from a
forward more, in mode ``"loss"``. A model of other conventions needs ``predict=``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from .requires import require

require("mmengine", "boxscore[mmengine]")

import torch
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from boxscore import Run
from boxscore.callbacks.reading import data_samples
from boxscore.callbacks.reading.facts import Facts
from boxscore.callbacks.reading.model_info import inferred, size_of
from boxscore.callbacks.reading.predict import Found, Predict
from boxscore.identity.wrappers import infer, network, without_ddp
from boxscore.keys import further_split

from .base import CallbackBase
from .hooks import telling_its_end
from .sharding import random_numbers_kept

STATE = "boxscore"
"""The entry of a checkpoint."""


@HOOKS.register_module()
class BoxscoreHook(CallbackBase, Hook):  # type: ignore[misc]
    """Logs the losses and metrics of a training by MMEngine, over optimizer steps.

    The metrics join the runner's: ``save_best="box_AP", rule="greater"``. What `Runner.test` gives
    after the training is logged in its run, as the set ``test-held_out``. An average of the weights
    by ``EMAHook`` is measured instead of the weights.

    MMEngine tells its hooks of no exception: the train loop's ``run`` is wrapped.
    """

    priority = "LOW"  # before checkpoints are saved
    reader = data_samples.SampleReader()

    def restart(self) -> None:
        """Forget every training, but not a checkpoint that was loaded for the next one."""
        super().restart()
        self._runner: Any = None
        self._done = self._epoch = 0  # optimizer steps, and whole epochs
        self._logits: Any = None  # of the batch
        self._data: Any = None  # the set of an evaluation by boxscore, None of the test set
        self._split = ""  # under way
        self._is_after = False

    # the training

    def before_run(self, runner: Any) -> None:
        """Have the end of the training told."""
        loop = runner._train_loop
        if hasattr(loop, "run") and not hasattr(loop.run, "__wrapped__"):
            loop.run = telling_its_end(loop.run, self.stop)

    def before_train(self, runner: Any) -> None:
        """Begin anew; the first batch tells the rest."""
        self.restart()
        self._runner = runner

    def after_load_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Continue the run of a checkpoint, where the training is resumed."""
        if runner._resume and STATE in checkpoint:
            self.load_state_dict(checkpoint[STATE])

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        """Add the state to a checkpoint."""
        checkpoint[STATE] = self.state_dict()

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Open the run at the first batch."""
        if self.run is None:
            self._begin(data_batch)

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Record the losses of a batch; several may make an optimizer step."""
        self.saw(data_batch)
        semantic, self._logits = self._semantic(data_batch), None
        epoch = self.epochs()
        self.record(outputs or {}, self._done, epoch=epoch, semantic=semantic)
        before, self._epoch = self._epoch, int(epoch or 0)
        self.evaluate_what_is_due(self._done, self._epoch if self._epoch > before else None)

    def _begin(self, batch: Any) -> None:
        runner, loops = self._runner, (self._runner.val_loop, self._runner.train_loop)
        loader = loops[0] and loops[0].dataloader
        samples = batch.get("data_samples") if isinstance(batch, dict) else None
        size = None if self.options.identity else size_of(self.reader.images(batch))
        wrapper = next(iter(getattr(runner.optim_wrapper, "optim_wrappers", {}).values()), None)
        wrapper = wrapper or runner.optim_wrapper
        facts = Facts(
            identity=inferred(runner.cfg, size) if "algorithm" in infer(runner.cfg) else None,
            task=data_samples.task_of(samples) if samples else None,
            classes=_classes(loader) or _classes(runner.train_dataloader),
            size=size,
            loaders=loader,
            train_loader=runner.train_dataloader,
            settings={
                "accumulate": wrapper._accumulative_counts,
                "epochs": getattr(loops[1], "_max_epochs", None),
                "steps": getattr(loops[1], "_max_iters", None),
            },
            evaluates=loader is not None,
        )
        run = self.start(runner.model, wrapper.optimizer, facts)
        self._open[1].shows_bar = True
        self._done, self._epoch = self._steps, int(self.epochs() or 0)
        self._stack.callback(wrapper.optimizer.register_step_post_hook(self._stepped).remove)
        if run.task == "semantic-segmentation":
            head = getattr(network(runner.model), "decode_head", None)
            if (last := getattr(head, "conv_seg", None)) is not None:
                self.watch(last, self._see)
            else:
                what = "focal, cross_entropy and dice of the train split are not measured"
                self.warnings.warn_once("logits", f"the model has no decode_head.conv_seg: {what}")

    def _stepped(self, *_: Any) -> None:
        self._done += 1

    def _see(self, module: Any, args: Any, kwargs: Any, outputs: Any) -> None:
        if module.training and self._open[0].due(self._done + 1):
            self._logits = outputs

    def _semantic(self, batch: Any) -> Callable[[], tuple[Any, Any]] | None:
        logits, self._logits = self._logits, None
        if logits is None:
            return None
        return lambda: (logits, data_samples.label_maps(batch["data_samples"]).to(logits.device))

    # evaluations

    def before_val_epoch(self, runner: Any, split: str = "test") -> None:
        """Begin to evaluate the set, in a training or after it."""
        self._split, is_training = "", self.run is not None and self.run.is_open
        if self.run is None:
            text = "evaluations before the training are not logged: there is no run yet"
            self.warnings.warn_once("before", text)
        elif self._follows or not is_training:
            self._is_after = not is_training
            if is_training:
                self.run.reach(self._done)
            else:
                self.reopen()
            self._split, loop = split, runner.val_loop if split == "test" else runner.test_loop
            self._open[1].start(split, loop.dataloader)

    def after_val_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        """Measure a batch."""
        if self._split:
            loader = runner.val_loop if self._split == "test" else runner.test_loop
            find = partial(self._found, outputs, data=loader.dataloader.dataset)
            self._open[1].batch(self._split, data_batch, find)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Record the results, and add them to the runner's metrics."""
        if self._split:
            values = self._open[1].finish(self._split)
            if metrics is not None:
                metrics.update({n: v for n, v in values.items() if n not in metrics})
        if self._is_after:
            self.stop(None)

    def before_test_epoch(self, runner: Any) -> None:
        """Begin to evaluate the test set, as one of its own."""
        self.before_val_epoch(runner, further_split("held_out"))

    after_test_iter = after_val_iter
    after_test_epoch = after_val_epoch

    def predictor(self, model: Any, run: Run) -> Predict | None:
        """Of models whose data samples hold what is measured."""
        return self._own_pass

    @property
    def _measured_model(self) -> Any:
        """The model whose predictions are measured, by default the average of an ``EMAHook``."""
        averages = [hook.ema_model for hook in self._runner.hooks if hasattr(hook, "ema_model")]
        is_given = self.options.evaluate_model is not None or not averages
        return super()._measured_model if is_given else averages[0].module

    def evaluate_train(self) -> None:
        """Measure a stable subset of the train set, no larger than the test set."""
        self._data = getattr(self._facts.train_loader, "dataset", None)
        try:
            super().evaluate_train()
        finally:
            self._data = None

    def _own_pass(self, model: Any, batch: Any) -> Found:
        """What boxscore's own pass gives for a batch."""
        data = self._data or next(iter(self._open[1].loaders.values())).dataset
        if self._open[0].task == "semantic-segmentation" and self._is_resized(data):
            batch = data_samples.unaltered(batch)
        return self._found(model.val_step(batch), batch, model=model, data=data)

    def _found(self, outputs: Any, batch: Any, *, data: Any, model: Any = None) -> Found:
        model = model or without_ddp(self._runner.model)
        if self.options.predict:
            return self.options.predict(model, batch)
        is_resized, samples = self._is_resized(data), outputs[: self.reader.count(batch)]
        with random_numbers_kept(), torch.no_grad():
            try:
                losses = data_samples.losses(model, batch, is_resized=is_resized)
            except Exception as error:
                self.warnings.handle("losses of a set in mode='loss'", error)
                losses = {}
        if self._open[0].task == "semantic-segmentation":
            logits = torch.stack([data_samples.logits(sample) for sample in samples])
            return losses, logits, data_samples.label_maps(samples)
        predictions = [data_samples.detection(sample) for sample in samples]
        return losses, predictions, [data_samples.target(s, is_resized=is_resized) for s in samples]

    def _is_resized(self, data: Any) -> bool:
        """Whether the ground truth of a data set is in the frame of the model's input."""
        is_resized = data_samples.truth_is_resized(data)
        if is_resized is None and self._open[0].task != "semantic-segmentation":
            text = "the data set has no pipeline.transforms: where data samples have a scale_factor"
            text = f"{text}, their ground truth is read in the original image's frame"
            self.warnings.warn_once("frame", text)
        return bool(is_resized)


def _classes(loader: Any) -> Any:
    """Names by label, in the metainfo of a data set."""
    names = getattr(getattr(loader, "dataset", None), "metainfo", {}).get("classes")
    return dict(enumerate([names] if isinstance(names, str) else names)) if names else None
