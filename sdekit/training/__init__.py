"""Training: the trainer, and checkpoints that execute nothing when they are read."""

from sdekit.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sdekit.training.holdout import held_out
from sdekit.training.trainer import Trainer, TrainResult

__all__ = [
    "Checkpoint",
    "TrainResult",
    "Trainer",
    "held_out",
    "load_checkpoint",
    "save_checkpoint",
]
