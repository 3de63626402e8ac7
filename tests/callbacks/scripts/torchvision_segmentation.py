"""As torchvision's reference training of segmentation models, with an auxiliary head."""

import torch
import torchvision
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from boxscore.callbacks.loop import LoopCallback  # boxscore


def criterion(inputs, target):
    losses = {name: nn.functional.cross_entropy(x, target, ignore_index=255) for name, x in inputs.items()}
    return losses["out"] if len(losses) == 1 else losses["out"] + 0.5 * losses["aux"]


@torch.inference_mode()
def evaluate(model, data_loader):
    model.eval()
    matrix = torch.zeros(3, 3)
    for image, target in data_loader:
        guess = model(image)["out"].argmax(1).flatten()
        truth = target.flatten()
        kept = truth != 255
        matrix += torch.bincount(3 * truth[kept] + guess[kept], minlength=9).reshape(3, 3)
    hits = matrix.diag()
    return (hits.sum() / matrix.sum()).item(), (hits / (matrix.sum(0) + matrix.sum(1) - hits)).mean().item()


torch.manual_seed(0)
masks = torch.randint(0, 3, (6, 4, 4)).repeat_interleave(8, 1).repeat_interleave(8, 2)
masks[:, :2] = 255
dataset = TensorDataset(torch.rand(6, 3, 32, 32) + masks[:, None] % 255, masks)
data_loader, data_loader_test = DataLoader(dataset, 2), DataLoader(dataset, 3)
model = torchvision.models.segmentation.deeplabv3_mobilenet_v3_large(
    weights=None, weights_backbone=None, num_classes=3, aux_loss=True
)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
score = LoopCallback(model, optimizer, data_loader_test, train_loader=data_loader, criterion=criterion, classes=["a", "b", "c"], **options)  # boxscore
printed = []
for epoch in range(2):
    model.train()
    for image, target in data_loader:
        output = model(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        printed.append(loss.item())
        score.step(loss, output, target)  # boxscore
    accuracy, iou = evaluate(model, data_loader_test)

own = {"pixel_accuracy": accuracy, "IoU": iou}
own_losses = {"total": printed}
