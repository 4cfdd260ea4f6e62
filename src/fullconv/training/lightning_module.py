"""The Lightning module: one training step, one validation pass, the optimizer.

The loss is computed straight from the scores; confusion matrices are summed over all processes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, PolynomialLR
from torchmetrics.classification import MulticlassConfusionMatrix

from fullconv.core.settings import Settings
from fullconv.data.loading.dataset import shared_ignore_index
from fullconv.evaluation.metrics import Metrics, heads_dict
from fullconv.inference.runtime import Runtime
from fullconv.models.model import Model, save_model
from fullconv.network.fcn import FCN


class TrainingModule(pl.LightningModule):
    """Trains a model, and saves it whenever its validation mean IoU is the best so far.

    Args:
        settings: resolved.
        class_weights: (K,) for each head, or None.
        protocol: of the validation split; saved with the metrics.
        folder: for the best model.
    """

    def __init__(
        self,
        model: Model,
        settings: Settings,
        *,
        class_weights: list[Tensor] | None,
        protocol: dict[str, Any],
        folder: Path,
    ) -> None:
        super().__init__()
        self.network = model.network
        self.model, self.settings, self.class_weights = model, settings, class_weights
        self.protocol, self.folder = protocol, folder
        self.ignore_index = shared_ignore_index(model.tables)
        # One more class for ignored pixels: cheaper than selecting the other pixels.
        self.confusions = nn.ModuleList(
            MulticlassConfusionMatrix(len(labels) + 1, validate_args=False)
            for labels in model.tables
        )
        self.runtime: Runtime | None = None
        self.latest: list[Metrics] = []  # of each head, in the last validation
        self.best = -1.0  # mean IoU
        self.last_is_best = False  # the last validation: the network has the best weights
        if settings.freeze_backbone:
            self.network.backbone.requires_grad_(False)
            self.train()  # Lightning keeps the modes as they are

    def train(self, mode: bool = True) -> TrainingModule:
        """Set the mode; a frozen backbone keeps its running means and has no dropout."""
        super().train(mode)
        if self.settings.freeze_backbone:
            self.network.backbone.eval()
        return self

    def on_fit_start(self) -> None:
        if self.class_weights:
            self.class_weights = [weights.to(self.device) for weights in self.class_weights]

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        # Dropout is the same at this step whether or not the run was resumed.
        passes = self.settings.grad_accumulation
        step = self.global_step * passes + index % passes
        torch.manual_seed(self.settings.seed * 1_000_003 + step)

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, target = batch
        inputs = self.model.normalize(images).contiguous(memory_format=torch.channels_last)
        heads = self.model.split(self.network(inputs))
        losses = [
            scores.loss(
                truth,
                ignore_index=self.ignore_index,
                class_weights=self.class_weights[k] if self.class_weights else None,
                label_smoothing=self.settings.label_smoothing,
            )
            for k, (scores, truth) in enumerate(zip(heads, _per_head(target), strict=True))
        ]
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def on_validation_start(self) -> None:
        # In the precision of the training: these metrics only choose an epoch. The metrics that
        # are saved at the end are computed in float32.
        precision = "bfloat16" if self.trainer.precision == "bf16-mixed" else "float32"
        self.runtime = Runtime(self.model, device=self.device, precision=precision)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> dict[str, Any]:
        """Count the predictions of each head, (N, H, W), and return them for the image logger."""
        images, target = batch
        assert self.runtime is not None
        with torch.autocast(self.device.type, enabled=False):
            predictions = self.runtime.labels(images)
        targets, tables = _per_head(target), self.model.tables
        for head, confusion in enumerate(self.confusions):
            ignored = targets[head] == self.ignore_index
            truth = targets[head].int().masked_fill(ignored, len(tables[head]))
            confusion.update(predictions[head].int(), truth)  # type: ignore[operator]
        return {"predictions": predictions}

    def on_validation_epoch_end(self) -> None:
        self.runtime = None
        heads = []
        for confusion, labels in zip(self.confusions, self.model.tables, strict=True):
            counts = confusion.compute().cpu().numpy()[:-1, :-1]  # type: ignore[operator]  # of all processes
            confusion.reset()  # type: ignore[operator]
            heads.append(Metrics(labels.names, counts))
        if self.trainer.sanity_checking:
            return
        self.latest = heads

        # The mean over heads chooses the model. NaN: no validation pixel of a head is labeled, so
        # any model is as good as another.
        mean_iou = float(np.mean([np.nan_to_num(head.mean_iou) for head in heads]))
        self.log("mean_iou", mean_iou, rank_zero_only=False, logger=False)  # for early stopping
        self.last_is_best = mean_iou > self.best
        if self.last_is_best:
            self.best = mean_iou
            more = heads_dict(dict(zip(self.model.heads, heads[1:], strict=True)))
            facts = {"epoch": self.current_epoch + 1, "protocol": self.protocol}
            self.model.metrics = {**heads[0].to_dict(), **more, **facts}
            if self.trainer.is_global_zero:
                save_model(self.model, self.folder / "model")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["best_mean_iou"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.best = checkpoint["best_mean_iou"]

    def configure_optimizers(self) -> Any:
        optimizer = _build_optimizer(self.network, self.settings)
        if self.settings.schedule == "fixed":
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler: LRScheduler
        if self.settings.schedule == "onecycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            options: dict[str, Any] = {"pct_start": 0.15, "cycle_momentum": False}
            scheduler = OneCycleLR(optimizer, peaks, total_steps=steps + 1, **options)
        else:
            scheduler = PolynomialLR(optimizer, steps, power=0.9)
        lr_scheduler = {"scheduler": scheduler, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": lr_scheduler}


def _per_head(target: Tensor) -> list[Tensor]:
    """Return the (N, H, W) target of each head."""
    return [target] if target.ndim == 3 else list(target.unbind(1))


def _build_optimizer(network: FCN, settings: Settings) -> torch.optim.Optimizer:
    """Group parameters by learning rate and weight decay. Biases and normalization layers do not
    decay; biases may have their own learning rate (lr_mult 2 in Caffe)."""
    lrs = {True: settings.backbone_lr, False: settings.lr}
    backbone = {id(parameter) for parameter in network.backbone.parameters()}
    biases = {
        id(layer.bias)
        for layer in network.modules()
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)) and layer.bias is not None
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        lr, decay = lrs[id(parameter) in backbone], settings.weight_decay
        assert lr is not None
        assert decay is not None
        lr *= settings.bias_lr_factor if id(parameter) in biases else 1
        groups.setdefault((lr, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    tables = [{"params": p, "lr": lr, "weight_decay": d} for (lr, d), p in groups.items()]
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(tables, fused=True)
    return torch.optim.SGD(tables, momentum=settings.momentum, fused=True)
