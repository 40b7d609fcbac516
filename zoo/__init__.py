"""Architectures and training of the networks that the runtime runs."""

from zoo.models import MODELS, create
from zoo.slim_layers import NotCalibratedError, SlimError
from zoo.slim_net import SlimNet, materialise

__all__ = ["MODELS", "NotCalibratedError", "SlimError", "SlimNet", "create", "materialise"]
