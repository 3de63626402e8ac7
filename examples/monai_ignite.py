"""2D segmentation with MONAI: its engines are Ignite's, four classes through a sigmoid each.

Run it:  python examples/monai_ignite.py      then:  boxscore view example
"""

import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointSaver, ValidationHandler
from monai.losses import DiceLoss
from monai.networks.nets import UNet
from monai.transforms import RandFlipd

from boxscore.callbacks.ignite import BoxscoreHandler
from boxscore.demo.shapes import Shapes


def loader(split, transform=None):
    shapes = Shapes(split, "semantic-segmentation")
    items = [
        {"image": image, "label": labels[None]}
        for image, labels in map(shapes.__getitem__, range(len(shapes)))
    ]
    return DataLoader(Dataset(items, transform), batch_size=8, shuffle=transform is not None)


def main(steps=200, log_every=10, evaluate_every=1):
    torch.manual_seed(0)
    train = loader("train", RandFlipd(["image", "label"], prob=0.5))
    model = UNet(2, 3, 4, channels=(16, 32, 64), strides=(2, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    loss = DiceLoss(to_onehot_y=True, sigmoid=True)
    evaluator = SupervisedEvaluator("cpu", loader("test"), model)
    trainer = SupervisedTrainer(
        "cpu",
        max(1, steps // len(train)),
        train,
        model,
        optimizer,
        loss,
        train_handlers=[ValidationHandler(evaluate_every, evaluator)],
    )
    score = BoxscoreHandler(
        model, optimizer, criterion=loss, task="semantic-segmentation", dataset="shapes",
        classes=Shapes("test", "semantic-segmentation").classes, log_dir="example/runs",
        tracking_uri="sqlite:///example/mlflow.db", log_every=log_every,
    )  # fmt: skip
    score.attach(trainer, evaluator)
    CheckpointSaver("example", {"model": model, "boxscore": score}, save_final=True).attach(trainer)
    trainer.run()
    print({name: round(value, 3) for name, value in score.best.items()})


if __name__ == "__main__":
    main()
