"""What a model says about data: the variational bound."""

from sdekit.likelihood.decoder import Decoder

__all__ = ["Decoder"]
