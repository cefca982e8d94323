"""Weights in 8 bits: the products are those of the quantised numbers, adapters act as ever, and nothing is trained."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_models import batch, logprobs, moved

from posttrain import losses
from posttrain.engines.torch import rounded
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.torch.int8 import LARGEST, Int8Product
from posttrain.optimisers import Adam
from posttrain.types import LoRA, Sampling, UserError


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 200])
def test_products_are_those_of_the_quantised_numbers(
    rows: int, bias: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if native and not rounded.is_native():
        pytest.skip("this CPU does not multiply bfloat16")
    monkeypatch.setattr(rounded, "is_native", lambda: native)
    torch.manual_seed(0)
    linear = nn.Linear(96, 160, bias=bias).requires_grad_(False)
    linear.weight[3] = 0
    x = torch.randn(rows, 96).bfloat16().float()
    scales = (linear.weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / LARGEST).bfloat16().float()
    quantised = (linear.weight / scales).round().clamp(-LARGEST, LARGEST)
    wanted = nn.functional.linear(x, quantised * scales, linear.bias)
    found = Int8Product(linear).product(x)
    assert found.dtype == torch.float32
    assert (found - wanted).norm() < 3e-3 * wanted.norm(), "rounded to bfloat16 at the end, and no more than that"
    assert (found - linear(x)).norm() < 0.012 * wanted.norm()


def test_it_answers_with_adapters_and_is_not_trained(tiny_model_folder: Path, tmp_path: Path) -> None:
    plain = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    asyncio.run(asyncio.run(moved(plain, LoRA(rank=4, alpha=6))).save(tmp_path))
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="int8")
    taught, base = engine.load(tmp_path), engine.base()
    assert taught.precision == "int8"
    wanted = torch.cat([scores.exp() for scores in logprobs(plain.load(tmp_path), batch())])
    found = torch.cat([scores.exp() for scores in logprobs(taught, batch())])
    bare = torch.cat([scores.exp() for scores in logprobs(base, batch())])
    assert 0 < (found - wanted).norm() < 0.05 * wanted.norm() < (bare - wanted).norm()
    [[completion]] = asyncio.run(taught.sample([(5, 6, 7)], sampling=Sampling(4)))
    assert len(completion.tokens) == 4 or completion.stop_reason == "stop"
    for verb in (taught.forward_backward(batch(), losses.cross_entropy), taught.optim_step(Adam(1e-2))):
        with pytest.raises(UserError, match="int8 answers and is not trained"):
            asyncio.run(verb)
    engine.close()
    plain.close()
