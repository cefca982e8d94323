"""Products with weights laid out beforehand are those that torch computes with them as they are: to the bit, or in C,
where the result is not rounded."""

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
from posttrain.engines.torch.native import products
from posttrain.engines.torch.rounded import RoundedProduct
from posttrain.types import LoRA

pytestmark = pytest.mark.skipif(choose_precision(torch.device("cpu")) != "bfloat16",
                                reason="this processor does not multiply bfloat16, so the engine does not either")


@pytest.mark.parametrize("in_c", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 96), (7, 96), (300, 96), (9, 33), (20, 2500)])
def test_products_and_gradients_are_those_of_torch(
        shape: tuple[int, int], bias: bool, in_c: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if in_c and not products.has_pairs():
        pytest.skip("no C compiler, or a processor that has no pairs of bfloat16, or matrices of them, too")
    if not in_c:
        monkeypatch.setattr(products, "has_pairs", lambda: False)
    torch.manual_seed(0)
    size = shape[1]
    linear = nn.Linear(size, 161, bias=bias).requires_grad_(False)
    with torch.inference_mode():  # sampling comes first, and must not spoil the weights for training
        rounded = RoundedProduct(linear)
        sampled = adapted_product(torch.ones(shape), rounded, ())
    assert not sampled.requires_grad
    x, plain_x = (torch.linspace(-2, 2, size).expand(shape).clone().requires_grad_() for _ in range(2))
    y = adapted_product(x, rounded, ())
    weight, offset = linear.weight.bfloat16(), linear.bias.bfloat16() if bias else None
    plain = nn.functional.linear(plain_x.bfloat16(), weight, offset).float()
    gradient = torch.randn(plain.shape)
    y.backward(gradient)
    plain.backward(gradient)
    assert x.grad.abs().sum() > 0
    if in_c:
        wanted = x.detach().bfloat16().double() @ weight.double().t() + (linear.bias.double() if bias else 0)
        torch.testing.assert_close(y.double(), wanted, rtol=1e-5, atol=1e-5)
        wanted = gradient.bfloat16().double() @ weight.double()
        torch.testing.assert_close(x.grad.double(), wanted, rtol=1e-5, atol=1e-5)
        assert torch.equal(rounded.product(x[-1:].detach()), y[-1:]), "no row depends on the others"
    else:
        assert torch.equal(y, plain) and torch.equal(x.grad, plain_x.grad)


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
