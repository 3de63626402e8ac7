"""As the much copied U-Net of PyTorch tutorials: GradScaler, accumulation, batches as mappings."""

import torch
from torch import nn
from torch.utils.data import DataLoader

from boxscore.callbacks.loop import LoopCallback  # boxscore


class UNet(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.inc, self.outc = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, n_classes, 1)

    def forward(self, x):
        return self.outc(self.inc(x).relu())


torch.manual_seed(0)
pictures = torch.rand(8, 3, 16, 16)
dataset = [{"image": p, "mask": (p[0] > 0.5).long()} for p in pictures]
train_loader, val_loader = DataLoader(dataset, 2), DataLoader(dataset, 4)
model = UNet(2)
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, weight_decay=1e-8, foreach=True)
grad_scaler = torch.amp.GradScaler("cpu", enabled=False)
criterion = nn.CrossEntropyLoss()
score = LoopCallback(model, optimizer, val_loader, train_loader=train_loader, criterion=criterion, accumulate=2, task="semantic-segmentation", classes=["no", "yes"], **options)  # boxscore
micro = []
for epoch in range(2):
    model.train()
    for number, batch in enumerate(train_loader):
        masks_pred = model(batch["image"])
        loss = criterion(masks_pred, batch["mask"])
        grad_scaler.scale(loss / 2).backward()
        micro.append(loss.item())
        if number % 2:
            grad_scaler.step(optimizer)
            grad_scaler.update()
            optimizer.zero_grad()
        score.step(loss, masks_pred, batch["mask"])  # boxscore
model.eval()
with torch.no_grad():
    guess = torch.cat([model(batch["image"]).argmax(1) for batch in val_loader])
truth = torch.stack([item["mask"] for item in dataset])
own = {"pixel_accuracy": (guess == truth).float().mean().item()}
own_losses = {"classification": [(a + b) / 2 for a, b in zip(micro[::2], micro[1::2], strict=True)]}
images_per_step = 4
