"""As Transformers' examples of object detection, semantic and instance segmentation."""

import numpy as np
import torch
from transformers import TrainingArguments

from boxscore.callbacks.transformers import BoxscoreCallback  # boxscore
from tests.tiny_batches import built
from tests.tiny_trainer import Pictures, Trainer, together

torch.manual_seed(0)
task, data = {
    "detr": ("detection", "boxes"),
    "segformer": ("semantic-segmentation", "semantic"),
    "mask2former": ("instance-segmentation", "masks"),
}[kind]
score = BoxscoreCallback(task=task, **options)  # boxscore


def compute_metrics(found):
    if kind != "segformer":
        return {}
    logits, labels = torch.from_numpy(found.predictions), torch.from_numpy(found.label_ids)
    logits = torch.nn.functional.interpolate(logits, size=labels.shape[-2:], mode="bilinear")
    return {"own_accuracy": float(np.mean((logits.argmax(1) == labels).numpy()))}


arguments = TrainingArguments(
    folder, num_train_epochs=2, per_device_train_batch_size=2, eval_strategy="epoch", report_to=[],
    remove_unused_columns=False, use_cpu=True, save_strategy="no", logging_steps=1, disable_tqdm=True,
    prediction_loss_only=kind != "segformer",
)  # fmt: skip
trainer = Trainer(
    built(kind), arguments, train_dataset=Pictures(data, 4), eval_dataset=Pictures(data, 2),
    data_collator=together, compute_metrics=compute_metrics,
    callbacks=[score],  # the argument of a Trainer that has callbacks anyway
)  # fmt: skip
trainer.train()
history = trainer.state.log_history
own, own_losses = {}, {"total": [row["loss"] for row in history if "loss" in row]}
for row in history:
    if "eval_loss" in row and kind != "mask2former":  # whose test losses are drawn anew
        own["total"] = row["eval_loss"]
    if "eval_own_accuracy" in row:
        own["pixel_accuracy"] = row["eval_own_accuracy"]
