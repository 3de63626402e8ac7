"""A SegFormer of random weights in Transformers' Trainer, its best checkpoint chosen by IoU.

Run it:  python examples/transformers_segformer.py      then:  boxscore view example
"""

import torch
from transformers import (
    SegformerConfig,
    SegformerForSemanticSegmentation,
    Trainer,
    TrainingArguments,
)

from boxscore.callbacks.transformers import BoxscoreCallback
from boxscore.demo.shapes import Shapes


def named(batch):
    images, labels = zip(*batch, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.stack(labels)}


def main(steps=200, log_every=10, evaluate_every=50):
    train, test = (Shapes(split, "semantic-segmentation") for split in ("train", "test"))
    torch.manual_seed(0)
    config = SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[16, 32, 64, 128],
        decoder_hidden_size=64,
        id2label=train.classes,
    )
    arguments = TrainingArguments(
        "example/checkpoints",
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=1e-3,
        eval_strategy="steps",
        eval_steps=evaluate_every,
        save_steps=evaluate_every,
        metric_for_best_model="IoU",
        remove_unused_columns=False,
        report_to="none",
    )
    score = BoxscoreCallback(
        dataset="shapes",
        log_dir="example/runs",
        tracking_uri="sqlite:///example/mlflow.db",
        log_every=log_every,
    )
    model = SegformerForSemanticSegmentation(config)
    data = {"train_dataset": train, "eval_dataset": test, "data_collator": named}
    trainer = Trainer(model, arguments, callbacks=[score], **data)
    trainer.train()
    best = {name: round(value, 3) for name, value in score.best.items()}
    print(best, trainer.state.best_model_checkpoint)


if __name__ == "__main__":
    main()
