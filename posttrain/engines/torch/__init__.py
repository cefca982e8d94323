"""Weights on this machine: one base model, many adapters, prefix forests.  `open` gives the engine of a model."""

from posttrain.engines.torch.engine import TorchEngine

open = TorchEngine.open
