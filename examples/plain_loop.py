"""A plain PyTorch loop: four lines of boxscore in a training script of one's own.

Run it:  python examples/plain_loop.py      then:  boxscore view example
"""

import torch
from torch.utils.data import DataLoader
from torchvision.models.detection import fcos_resnet50_fpn

from boxscore.callbacks.loop import LoopCallback
from boxscore.demo.shapes import Shapes


def as_lists(batch):
    images, targets = zip(*batch, strict=True)
    return list(images), list(targets)


def main(steps=200, log_every=10, evaluate_every=50):
    torch.manual_seed(0)
    train, test = Shapes("train", "detection"), Shapes("test", "detection")
    loader = DataLoader(train, batch_size=8, shuffle=True, collate_fn=as_lists)
    test_loader = DataLoader(test, batch_size=8, collate_fn=as_lists)
    model = fcos_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=4, min_size=128, max_size=128
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)

    score = LoopCallback(
        model,
        optimizer,
        test_loader,
        train_loader=loader,
        dataset="shapes",
        classes=train.classes,
        log_dir="example/runs",
        tracking_uri="sqlite:///example/mlflow.db",
        log_every=log_every,
        evaluate_every=evaluate_every,
    )
    done = 0
    while done < steps:
        for images, targets in loader:
            model.train()
            losses = model(images, targets)
            optimizer.zero_grad()
            sum(losses.values()).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            score.step(losses)
            done += 1
            if done == steps:
                break
    score.close()
    print({name: round(value, 3) for name, value in score.best.items()})


if __name__ == "__main__":
    main()
