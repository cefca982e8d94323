"""Products with weights laid out beforehand are those that torch computes with them as they are, to the bit."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_models import batch, moved

from posttrain import losses
from posttrain.engines.torch.adapted_product import adapted_product
from posttrain.engines.torch.base import choose_precision
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.torch.rounded import RoundedProduct
from posttrain.types import LoRA

pytestmark = pytest.mark.skipif(choose_precision(torch.device("cpu")) != "bfloat16",
                                reason="this processor does not multiply bfloat16, so the engine does not either")


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 96), (7, 96), (300, 96)])
def test_products_and_gradients_are_those_of_torch(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(96, 160, bias=bias).requires_grad_(False)
    with torch.inference_mode():  # sampling comes first, and must not spoil the weights for training
        rounded = RoundedProduct(linear)
        sampled = adapted_product(torch.ones(shape), rounded, ())
    assert not sampled.requires_grad
    x, plain_x = (torch.linspace(-2, 2, 96).expand(shape).clone().requires_grad_() for _ in range(2))
    y = adapted_product(x, rounded, ())
    weight, offset = linear.weight.bfloat16(), linear.bias.bfloat16() if bias else None
    plain = nn.functional.linear(plain_x.bfloat16(), weight, offset).float()
    gradient = torch.randn(plain.shape)
    y.backward(gradient)
    plain.backward(gradient)
    assert torch.equal(y, plain)
    assert torch.equal(x.grad, plain_x.grad) and x.grad.abs().sum() > 0


@pytest.mark.filterwarnings("error")  # torch only warns of a gradient that ends in a product without one
@pytest.mark.parametrize("layers", [1.0, 0.5])
def test_what_is_learnt_in_bfloat16_is_what_is_learnt_in_float32(tiny_model_folder: Path, layers: float) -> None:
    """Through the head and every layer."""
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="bfloat16")
    try:
        policy = asyncio.run(moved(engine, LoRA(rank=4, layers=layers)))
        gradients = []
        for precision in ("bfloat16", "float32"):
            engine.network.bank.precision = precision
            asyncio.run(policy.forward_backward(batch(), losses.cross_entropy, normaliser=10))
            parameters = engine.network.bank.get(policy.adapter).parameters()
            gradients.append([parameter.grad for parameter in parameters])
            for parameter in parameters:
                parameter.grad = None
        for rounded, exact in zip(*gradients, strict=True):
            assert (rounded - exact).norm() < 0.05 * exact.norm()
    finally:
        engine.close()
