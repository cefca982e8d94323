"""Products with weights laid out beforehand are those that torch computes with them as they are, to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from posttrain.engines.torch.adapted_product import adapted_product
from posttrain.engines.torch.base import choose_precision
from posttrain.engines.torch.rounded import RoundedProduct

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
