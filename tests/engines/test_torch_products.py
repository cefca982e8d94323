"""Products and norms with gradients of their own give those of the plain operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_models import make

from posttrain.engines.torch.adapted_product import ALL, Delta, Pair, PlainProduct, adapted_product
from posttrain.engines.torch.adapters import AdapterBank
from posttrain.engines.torch.head import OutputHead
from posttrain.engines.torch.norms import replace_norms, root_mean_square_norm
from posttrain.engines.torch.weights import join_siblings, lay_out_for_products


def with_gradients(out: Tensor, of: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
    return [out.detach(), *torch.autograd.grad((out * weights).sum(), of)]


@pytest.mark.parametrize("spans", [[(0, 20)], [(0, 7), (7, 20)], [(3, 5), (12, 19)]])
def test_the_deltas_of_several_adapters_are_added_on_their_rows(spans: list[tuple[int, int]]) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(12, 9).requires_grad_(False)
    x = torch.randn(20, 12, requires_grad=True)
    pairs = [(torch.randn(rank, 12, requires_grad=True), torch.randn(9, rank, requires_grad=True))
             for rank in range(2, 2 + len(spans))]
    scales = [0.5 + i for i in range(len(spans))]
    deltas = [Delta(*span, [Pair(*pair, ALL)], scale) for span, pair, scale in zip(spans, pairs, scales, strict=True)]
    plain = linear(x)
    for (start, end), (a, b), scale in zip(spans, pairs, scales, strict=True):
        delta = scale * x[start:end] @ a.t() @ b.t()
        plain = plain + nn.functional.pad(delta, (0, 0, start, 20 - end))
    of = [x, *(tensor for pair in pairs for tensor in pair)]
    found = with_gradients(adapted_product(x, PlainProduct(linear), deltas), of)
    for mine, wanted in zip(found, with_gradients(plain, of), strict=True):
        torch.testing.assert_close(mine, wanted)


def test_a_frozen_delta_lets_the_gradient_through_to_x() -> None:
    torch.manual_seed(0)
    linear, x = nn.Linear(6, 6).requires_grad_(False), torch.randn(4, 6, requires_grad=True)
    a, b = torch.randn(2, 6), torch.randn(6, 2)
    found = with_gradients(adapted_product(x, PlainProduct(linear), [Delta(0, 4, [Pair(a, b, ALL)], 2.0)]), [x])
    for mine, wanted in zip(found, with_gradients(linear(x) + 2 * x @ a.t() @ b.t(), [x]), strict=True):
        torch.testing.assert_close(mine, wanted)


def test_pairs_add_to_the_columns_that_are_theirs() -> None:
    """As in layers that are joined: those of one adapter read the same x, and may be of different ranks."""
    torch.manual_seed(0)
    linear, x = nn.Linear(12, 9).requires_grad_(False), torch.randn(20, 12, requires_grad=True)
    columns = [slice(0, 4), slice(6, 9)]
    pairs = [(torch.randn(rank, 12, requires_grad=True), torch.randn(width, rank, requires_grad=True))
             for rank, width in ((2, 4), (5, 3))]
    plain = linear(x)
    for (a, b), where in zip(pairs, columns, strict=True):
        wide = nn.functional.pad(0.5 * x[3:17] @ a.t() @ b.t(), (where.start, 9 - where.stop, 3, 3))
        plain = plain + wide
    of = [x, *(tensor for pair in pairs for tensor in pair)]
    delta = Delta(3, 17, [Pair(*pair, where) for pair, where in zip(pairs, columns, strict=True)], 0.5)
    found = with_gradients(adapted_product(x, PlainProduct(linear), [delta]), of)
    for mine, wanted in zip(found, with_gradients(plain, of), strict=True):
        torch.testing.assert_close(mine, wanted)


def test_a_norm_and_its_gradient_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    x, scale = (3 * torch.randn(2, 5, 16)).double().requires_grad_(), torch.randn(16).double()
    assert torch.autograd.gradcheck(lambda x: root_mean_square_norm(x, scale, 0.1), (x,))
    plain = x / (x.pow(2).mean(-1, keepdim=True) + 0.1).sqrt() * scale
    torch.testing.assert_close(root_mean_square_norm(x, scale, 0.1), plain)
    with torch.inference_mode():
        torch.testing.assert_close(root_mean_square_norm(x, scale, 0.1), plain)
        for row in range(5):
            alone = root_mean_square_norm(x[1:, row : row + 1], scale, 0.1)
            torch.testing.assert_close(alone, plain[1:, row : row + 1])


@pytest.mark.parametrize(("name", "norms"), [("llama", 5), ("gemma3", 13), ("gpt_neox", 0)])
def test_the_norms_of_known_models_are_replaced(name: str, norms: int) -> None:
    model: Any = make(name).requires_grad_(False)
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.weight.data.uniform_(0.5, 2)
    ids = torch.arange(3, 40)[None]
    wanted = model(ids).logits
    assert replace_norms(model) == norms
    torch.testing.assert_close(model(ids).logits, wanted, rtol=1e-4, atol=1e-4)


def test_a_norm_of_another_kind_is_left_alone() -> None:
    class OddRMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.eps = nn.Parameter(torch.ones(8), requires_grad=False), 1e-6

        def forward(self, x: Tensor) -> Tensor:
            return 2 * x * self.weight

    odd = OddRMSNorm()
    assert replace_norms(odd) == 0
    assert torch.equal(odd(torch.ones(1, 8)), torch.full((1, 8), 2.0))


@pytest.mark.parametrize("laid_out", [False, True])
@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox"])
def test_layers_that_are_joined_keep_their_numbers(name: str, laid_out: bool) -> None:
    model = make(name)
    wanted = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    joined = join_siblings(model)
    if laid_out:
        lay_out_for_products(model, joined.values())
    assert all(torch.equal(tensor, wanted[key]) for key, tensor in model.state_dict().items())
    assert len(joined) == (0 if name == "gpt_neox" else 2 * model.config.num_hidden_layers)
    x = torch.randn(3, 64)
    for each in joined.values():
        found = each.linear(x)
        for path, columns in each.columns.items():
            torch.testing.assert_close(found[:, columns], each.members[path](x))
            assert each.members[path].weight.data_ptr() in range(
                each.linear.weight.data_ptr(), each.linear.weight.data_ptr() + each.linear.weight.nbytes), "no copy"


def test_layers_that_share_their_weights_with_others_are_not_joined() -> None:
    model = make("llama")
    model.model.layers[0].self_attn.k_proj.weight = model.model.layers[1].self_attn.k_proj.weight
    assert set(join_siblings(model)) == {"model.layers.0.mlp.gate_proj", "model.layers.1.mlp.gate_proj"}


def test_weights_are_laid_out_by_column_but_those_an_embedding_shares() -> None:
    model = make("llama")
    model.lm_head.weight = model.get_input_embeddings().weight
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lay_out_for_products(model)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())
    by_column = {name for name, module in model.named_modules()
                 if isinstance(module, torch.nn.Linear) and module.weight.t().is_contiguous()}
    assert by_column == {name for name, module in model.named_modules()
                         if isinstance(module, torch.nn.Linear) and name != "lm_head"}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_gradient_of_a_sure_token_is_not_lost_in_rounding(precision: Any) -> None:
    """1 - p of a target that is sure is far below what p itself is rounded to."""
    torch.manual_seed(0)
    head = OutputHead(nn.Linear(32, 200, bias=False).requires_grad_(False), AdapterBank(make("llama")))
    head.bank.precision = precision
    hidden = torch.randn(40, 32)
    targets = head(hidden).argmax(dim=1)
    for sureness in (1.0, 10.0, 30.0):
        states = (sureness * hidden).requires_grad_()
        plain = nn.functional.linear(states, head.base.weight).log_softmax(dim=1).gather(1, targets[:, None])[:, 0]
        (wanted,) = torch.autograd.grad(plain.sum(), states)
        found = head.token_logprobs(states, targets)
        (got,) = torch.autograd.grad(found.sum(), states)
        each = (got - wanted).norm(dim=1) / wanted.norm(dim=1)
        to_learn = plain.exp() < 1 - 1e-3  # so is 1 - p in bfloat16 two and more times as far off, when p is rounded
        assert each[to_learn].max() < (1e-4 if precision == "float32" else 0.5), "of its own size"
        torch.testing.assert_close(found, plain, rtol=0.05, atol=0.05)
