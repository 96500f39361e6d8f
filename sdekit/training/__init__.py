"""Training: the trainer, and checkpoints that execute nothing when they are read."""

from sdekit.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from sdekit.training.trainer import Trainer, TrainResult

__all__ = ["Checkpoint", "TrainResult", "Trainer", "load_checkpoint", "save_checkpoint"]
