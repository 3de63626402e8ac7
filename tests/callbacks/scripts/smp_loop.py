"""A loop around segmentation-models-pytorch: one class through a sigmoid, masks (N, 1, H, W)."""

import segmentation_models_pytorch as smp
import torch
from torch.utils.data import DataLoader, TensorDataset

from boxscore.callbacks.loop import LoopCallback  # boxscore

torch.manual_seed(0)
images = torch.rand(6, 3, 32, 32)
dataset = TensorDataset(images, (images.mean(1, keepdim=True) > 0.5).float())
train_loader, valid_loader = DataLoader(dataset, 2), DataLoader(dataset, 3)
model = smp.Unet("resnet18", encoder_weights=None, classes=1)
loss_fn = smp.losses.DiceLoss(smp.losses.BINARY_MODE, from_logits=True)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
score = LoopCallback(model, optimizer, valid_loader, train_loader=train_loader, criterion=loss_fn, classes=["ground", "road"], **options)  # boxscore
printed = []
for epoch in range(2):
    model.train()
    for image, mask in train_loader:
        logits = model(image)
        loss = loss_fn(logits, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        printed.append(loss.item())
        score.step(loss, logits, mask)  # boxscore
    model.eval()
    counts = [torch.zeros(1) for _ in range(4)]
    with torch.no_grad():
        for image, mask in valid_loader:
            guess = (model(image).sigmoid() > 0.5).long()
            found = smp.metrics.get_stats(guess, mask.long(), mode="binary")
            counts = [total + part.sum() for total, part in zip(counts, found, strict=True)]

tp, fp, fn, tn = (float(count) for count in counts)
own = {
    "pixel_accuracy": (tp + tn) / (tp + fp + fn + tn),
    "IoU": (tp / (tp + fp + fn) + tn / (tn + fn + fp)) / 2,
}
own_losses = {"total": printed}
