"""The loop's two parts that Lightning leaves to us: one step of an FCN, and checkpoints.

`Training` computes the loss straight from the scores and sums the confusion matrix over processes;
`Checkpoints` writes what `fullconv train --resume` continues from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassConfusionMatrix

from fullconv.core.settings import Settings
from fullconv.data.loading.dataset import shared_ignore_index
from fullconv.evaluation.metrics import Metrics, heads_dict
from fullconv.inference.runtime import Runtime
from fullconv.models.model import Model, save_model
from fullconv.network.fcn import FCN


class Training(pl.LightningModule):
    """The Lightning module: one step, one validation, the optimizer.

    Args:
        model: what is trained.
        settings: decided.
        class_weights: (K,) of each head, or None.
        protocol: of the validation split; goes with the metrics into the model.
        folder: of the run; the best model is saved there.
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
        self.model = model
        self.settings = settings
        self.class_weights = class_weights
        self.ignore_index = shared_ignore_index(model.tables)
        # One class more for what is ignored: cheaper than to pick out the other pixels.
        self.confusions = nn.ModuleList(
            MulticlassConfusionMatrix(len(labels) + 1, validate_args=False)
            for labels in model.tables
        )
        self.protocol = protocol
        self.folder = folder
        self.engine: Runtime | None = None
        self.latest: Metrics | None = None
        self.others: dict[str, Metrics] = {}  # of further heads
        self.best = -1.0
        if settings.freeze_backbone:
            self.network.backbone.requires_grad_(False)
            self.train()  # Lightning leaves the modes as they are

    def on_fit_start(self) -> None:
        if self.class_weights:
            self.class_weights = [weights.to(self.device) for weights in self.class_weights]

    def train(self, mode: bool = True) -> Training:
        """What is frozen keeps its running means, too, and drops nothing out."""
        super().train(mode)
        if self.settings.freeze_backbone:
            self.network.backbone.eval()
        return self

    def on_train_batch_start(self, batch: Any, index: int) -> None:
        # Dropout and the like: the same at this step, whether or not the training was stopped.
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
            for k, (scores, truth) in enumerate(zip(heads, self._truths(target), strict=True))
        ]
        return torch.stack(losses).sum() if len(losses) > 1 else losses[0]

    def _truths(self, target: Tensor) -> list[Tensor]:
        """(N, H, W) of each head."""
        return [target] if target.ndim == 3 else list(target.unbind(1))

    def on_validation_start(self) -> None:
        # As it will be used, in the precision of the training: this number chooses an epoch. The
        # one that goes with the model is computed at the end, in float32.
        half = self.trainer.precision == "bf16-mixed"
        precision = "bfloat16" if half else "float32"
        self.engine = Runtime(self.model, device=self.device, precision=precision)

    def validation_step(self, batch: tuple[Tensor, Tensor], index: int) -> dict[str, Any]:
        """The labels found, (N, H, W) of each head; they are counted here, and drawn elsewhere."""
        images, target = batch
        with torch.autocast(self.device.type, enabled=False):
            assert self.engine is not None
            found = self.engine.labels(images)
        rows = zip(self.confusions, found, self._truths(target), self.model.tables, strict=True)
        for confusion, labels, truth, table in rows:
            ignored = truth == self.ignore_index
            confusion.update(labels.int(), truth.int().masked_fill(ignored, len(table)))  # type: ignore[operator]
        return {"found": found}

    def on_validation_epoch_end(self) -> None:
        self.engine = None
        heads = []
        for confusion, table in zip(self.confusions, self.model.tables, strict=True):
            counts = confusion.compute().cpu().numpy()[:-1, :-1]  # type: ignore[operator]  # of all processes
            confusion.reset()  # type: ignore[operator]
            heads.append(Metrics(table.names, counts))
        if self.trainer.sanity_checking:
            return
        self.latest, *further = heads
        self.others = dict(zip(self.model.heads, further, strict=True))
        # Of several heads the mean. nan where no validation pixel is labelled: any model is then as
        # good as another.
        mean_iou = float(np.mean([np.nan_to_num(head.mean_iou) for head in heads]))
        self.log("mean_iou", mean_iou, rank_zero_only=False, logger=False)  # for early stopping
        if mean_iou > self.best:
            self.best = mean_iou
            self.model.metrics = {
                **self.latest.to_dict(),
                **heads_dict(self.others),
                "epoch": self.current_epoch + 1,
                "protocol": self.protocol,
            }
            if self.trainer.is_global_zero:
                save_model(self.model, self.folder / "model")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["best_mean_iou"] = self.best

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.best = checkpoint["best_mean_iou"]

    def configure_optimizers(self) -> Any:
        s = self.settings
        groups = _groups(self.network, s)
        optimizer: torch.optim.Optimizer
        if s.optimizer == "adamw":
            optimizer = torch.optim.AdamW(groups, fused=True)
        else:
            optimizer = torch.optim.SGD(groups, momentum=s.momentum, fused=True)
        steps = int(self.trainer.estimated_stepping_batches)
        if s.schedule == "fixed":
            return optimizer
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if s.schedule == "onecycle":
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in groups],
                total_steps=steps + 1,
                pct_start=0.15,
                cycle_momentum=False,
            )
        else:
            scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, power=0.9)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def _groups(network: FCN, settings: Settings) -> list[dict[str, Any]]:
    """Parameters by what they have in common: rate and weight decay. Biases and normalisation are
    not pulled to zero; biases may have a rate of their own (Caffe's lr_mult 2)."""
    rates = {True: settings.backbone_lr, False: settings.lr}
    backbone = {id(p) for p in network.backbone.parameters()}
    biases = {
        id(layer.bias)
        for layer in network.modules()
        if isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)) and layer.bias is not None
    }
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if not parameter.requires_grad:
            continue
        rate, decay = rates[id(parameter) in backbone], settings.weight_decay
        assert rate is not None
        assert decay is not None
        rate *= settings.bias_lr_factor if id(parameter) in biases else 1
        groups.setdefault((rate, decay if parameter.ndim > 1 else 0.0), []).append(parameter)
    return [{"params": p, "lr": r, "weight_decay": d} for (r, d), p in groups.items()]
