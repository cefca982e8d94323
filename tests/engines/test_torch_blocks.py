"""Layers computed in fewer operations give the numbers of the model's own, and others are left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_models import EXPERTS, GROUPED, make, open_engine, worst_logprobs
from transformers import AutoModelForCausalLM, Glm4MoeConfig, OlmoConfig
from transformers.activations import ACT2FN
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from posttrain.engines.torch.adapters import AdapterBank
from posttrain.engines.torch.attention import NAME
from posttrain.engines.torch.blocks import replace_blocks
from posttrain.engines.torch.gate import gated
from posttrain.engines.torch.rotation import turned
from posttrain.engines.torch.weights import join_siblings

SIZE, TOKENS = 8, 5
WIDTHS = (4 * SIZE, 2 * SIZE, 2 * SIZE)


def angles() -> tuple[Tensor, Tensor]:
    """cos and sin [tokens, head size], whose halves differ: no model has such, and the formula does not mind."""
    found = torch.randn(TOKENS, SIZE, generator=torch.Generator().manual_seed(1), dtype=torch.double)
    return found.cos(), found.sin()


def test_queries_and_keys_are_turned_as_transformers_does_it() -> None:
    cos, sin = angles()
    joined = torch.randn(TOKENS, sum(WIDTHS), dtype=torch.double)
    q, k, v = (part.view(TOKENS, -1, SIZE) for part in joined.split(WIDTHS, dim=1))
    wanted = apply_rotary_pos_emb(q, k, cos, sin)
    found_q, found_k, found_v = turned(joined, cos, sin, WIDTHS)
    torch.testing.assert_close(found_q.view(q.shape), wanted[0])
    torch.testing.assert_close(found_k.view(k.shape), wanted[1])
    assert torch.equal(found_v.view(v.shape), v)


def test_without_values_there_are_two() -> None:
    cos, sin = angles()
    joined = torch.randn(TOKENS, sum(WIDTHS), dtype=torch.double)
    wanted = turned(joined, cos, sin, WIDTHS)[:2]
    found = turned(joined[:, : sum(WIDTHS[:2])], cos, sin, WIDTHS[:2])
    assert len(found) == 2 and all(map(torch.equal, found, wanted))


def test_they_are_turned_back_by_the_gradient() -> None:
    cos, sin = angles()
    joined = torch.randn(TOKENS, sum(WIDTHS), dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda joined: turned(joined, cos, sin, WIDTHS), (joined,))
    with torch.no_grad():
        plain = turned(joined, cos, sin, WIDTHS)
    for mine, wanted in zip(turned(joined, cos, sin, WIDTHS), plain, strict=True):
        assert torch.equal(mine, wanted)


@pytest.mark.parametrize("activation", ["silu", "swish", "gelu_pytorch_tanh", "relu"])
def test_a_gate_and_its_gradient_are_those_of_the_formula(activation: str) -> None:
    act = ACT2FN[activation]
    joined = torch.randn(TOKENS, 12, dtype=torch.double, requires_grad=True)
    gate, up = joined.chunk(2, dim=1)
    torch.testing.assert_close(gated(joined, act), act(gate) * up)
    torch.testing.assert_close(gated(joined.detach(), act), act(gate) * up)
    assert torch.autograd.gradcheck(lambda joined: gated(joined, act), (joined,))


@pytest.mark.parametrize(("name", "attention", "wide"), [
    ("llama", 2, 2), ("qwen2", 2, 2), ("mistral", 2, 2), ("qwen3", 2, 2), ("gemma3", 2, 2), ("qwen3_moe", 2, 0),
    ("phi3", 0, 0), ("gpt_neox", 0, 0), ("opt", 0, 0),
])  # fmt: skip
def test_which_layers_of_known_models_are_replaced(name: str, attention: int, wide: int) -> None:
    model: Any = make(name).requires_grad_(False)
    joined = join_siblings(model)
    model.set_attn_implementation(NAME)
    assert len(replace_blocks(model, AdapterBank(model), joined)) == attention + wide
    kinds = [type(module.forward).__name__ for module in model.modules()]
    assert (kinds.count("Attention"), kinds.count("Gated")) == (attention, wide)


def test_layers_of_another_kind_are_left_alone() -> None:
    model: Any = make("llama").requires_grad_(False)
    attention, wide = model.model.layers[0].self_attn, model.model.layers[1].mlp
    attention.forward = lambda *given, plain=attention.forward, **named: (2 * plain(*given, **named)[0], None)
    wide.act_fn = nn.Sequential(wide.act_fn, nn.Dropout(0.5))  # other numbers every time
    joined = join_siblings(model)
    model.set_attn_implementation(NAME)
    found = replace_blocks(model, AdapterBank(model), joined)
    assert [joined["model.layers.0.mlp.gate_proj"], joined["model.layers.1.self_attn.q_proj"]] == found


def test_a_layer_that_clamps_what_is_large_is_left_alone() -> None:
    model: Any = AutoModelForCausalLM.from_config(OlmoConfig(**GROUPED, clip_qkv=50.0)).eval().requires_grad_(False)
    joined = join_siblings(model)
    model.set_attn_implementation(NAME)
    found = replace_blocks(model, AdapterBank(model), joined)
    assert [path for path in joined if joined[path] in found] == [
        "model.layers.0.mlp.gate_proj", "model.layers.1.mlp.gate_proj"]


def test_where_only_a_part_of_each_head_is_turned_the_plain_layer_is_asked(tiny_tokenizer: Any) -> None:
    """Which only the width of cos says: in such models it is half of a head's."""
    config = Glm4MoeConfig(**EXPERTS, head_dim=16, n_routed_experts=4, n_shared_experts=1, n_group=1, topk_group=1,
                           first_k_dense_replace=1)
    model: Any = AutoModelForCausalLM.from_config(config).eval()
    engine = open_engine(model, tiny_tokenizer)
    try:
        assert worst_logprobs(engine, model) < 1e-4
    finally:
        engine.close()


def test_in_bfloat16_too() -> None:
    model: Any = make("llama").bfloat16().requires_grad_(False)
    joined = join_siblings(model)
    model.set_attn_implementation(NAME)
    assert len(replace_blocks(model, AdapterBank(model), joined)) == 4
