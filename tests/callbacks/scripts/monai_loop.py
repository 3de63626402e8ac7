"""As MONAI's 2D tutorials: batches are mappings, several crops of an image, sigmoid and Dice."""

import torch
from monai.data import DataLoader, Dataset, list_data_collate
from monai.losses import DiceLoss
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from monai.transforms import Compose, RandCropByPosNegLabeld, ScaleIntensityd

from boxscore.callbacks.loop import LoopCallback  # boxscore

torch.manual_seed(0)
pictures = torch.rand(4, 1, 48, 48)
items = [{"img": picture, "seg": (picture > 0.5).float()} for picture in pictures]
crop = RandCropByPosNegLabeld(["img", "seg"], label_key="seg", spatial_size=[32, 32], pos=1, neg=1, num_samples=2)
train_loader = DataLoader(Dataset(items, Compose([ScaleIntensityd("img"), crop])), batch_size=2, collate_fn=list_data_collate)
val_loader = DataLoader(Dataset(items, ScaleIntensityd("img")), batch_size=1)
model = UNet(spatial_dims=2, in_channels=1, out_channels=1, channels=(4, 8), strides=(2,))
loss_function = DiceLoss(sigmoid=True)
optimizer = torch.optim.Adam(model.parameters(), 1e-2)
score = LoopCallback(model, optimizer, val_loader, train_loader=train_loader, criterion=loss_function, task="semantic-segmentation", classes=["no", "yes"], identity=Identity("U-Net", "32x32"), **options)  # boxscore
printed = []
for epoch in range(2):
    model.train()
    for batch in train_loader:
        inputs, labels = batch["img"], batch["seg"]
        optimizer.zero_grad()
        outputs = model(inputs)
        loss = loss_function(outputs, labels)
        loss.backward()
        optimizer.step()
        printed.append(loss.item())
        score.step(loss, outputs, labels)  # boxscore
    model.eval()
    metric, right, total = DiceMetric(), 0.0, 0
    with torch.no_grad():
        for batch in val_loader:
            guess = (model(batch["img"]).sigmoid() > 0.5).float()
            metric(guess, batch["seg"])
            right += float((guess == batch["seg"]).sum())
            total += guess.numel()

own = {"pixel_accuracy": right / total}
own_losses = {"total": printed}
images_per_step = 4
