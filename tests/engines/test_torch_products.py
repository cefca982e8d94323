"""Products and norms with gradients of their own give those of the plain operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_models import make

from posttrain.engines.torch import onednn
from posttrain.engines.torch.adapted_product import ALL, Delta, Pair, PlainProduct, adapted_product
from posttrain.engines.torch.adapters import AdapterBank, FrozenLinear
from posttrain.engines.torch.forest import plant
from posttrain.engines.torch.head import OutputHead
from posttrain.engines.torch.network import Network
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


def test_weights_are_laid_out_by_column_and_those_that_layers_share_are_not() -> None:
    model = make("llama")
    model.lm_head.weight = model.get_input_embeddings().weight  # reads a few rows: it may take what it gets
    first, second = (layer.self_attn.o_proj for layer in model.model.layers[:2])
    first.weight = second.weight
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    lay_out_for_products(model)
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())
    ids = torch.arange(10)[None]
    assert torch.equal(model.get_input_embeddings()(ids), wanted["model.embed_tokens.weight"][ids])
    linears = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    by_column = {name for name, module in linears.items() if module.weight.t().is_contiguous()}
    assert by_column == {name for name, module in linears.items() if module not in (first, second)}


class Holder(nn.Module):
    """A model of one layer."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def get_input_embeddings(self) -> nn.Embedding:
        return nn.Embedding(1, 1)


@pytest.mark.parametrize("rows", [1, 5, 70, 150])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", ["by row", "by column", "by column, 16 to spare", "a part of what was joined"])
def test_products_by_onednn_are_those_of_torch(how: str, bias: bool, rows: int) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(40, 512 if "spare" in how else 96, bias=bias).requires_grad_(False)
    weight, offset = linear.weight.clone(), linear.bias
    if "column" in how:
        lay_out_for_products(Holder(linear))
        assert linear.weight.stride() == (1, len(weight) + (16 if "spare" in how else 0))
    elif "part" in how:
        linear.weight.data = torch.cat([weight, weight]).t().contiguous().t()[: len(weight)]
    x, plain = (torch.randn(rows, 40, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    pairs = [Pair(torch.randn(2, 40), torch.randn(len(weight), 2), ALL)]
    found = adapted_product(x, onednn.OneDNNProduct(linear), [Delta(0, rows, pairs, 0.5)])
    wanted = nn.functional.linear(plain, weight, offset) + 0.5 * plain @ pairs[0].a.t() @ pairs[0].b.t()
    gradient = torch.randn(wanted.shape)
    found.backward(gradient)
    wanted.backward(gradient)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(x.grad, plain.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("maker, capability, wanted", [
    ("AuthenticAMD", "AVX512", True), ("AuthenticAMD", "AVX2", True), ("AuthenticAMD", "DEFAULT", False),
    ("GenuineIntel", "AVX512", False), ("GenuineIntel", "AVX2", False)])
def test_the_library_goes_by_the_processor(
        maker: str, capability: str, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "_is_intel", lambda: maker == "GenuineIntel")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(onednn, "_mkl_is_slow", onednn._mkl_is_slow.__wrapped__)
    assert onednn.suits(torch.ones(2, 2)) is wanted
    assert not onednn.suits(torch.ones(2, 2, dtype=torch.bfloat16)) and not onednn.suits(torch.ones(2, device="meta"))


@pytest.mark.parametrize("name", ["llama", "qwen2", "gpt_neox"])
def test_a_model_has_the_same_numbers_by_either_library(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = [[5, 9, 4, 8, 7, 3, 11, 2], [5, 9, 4, 8, 7, 3, 11, 6]]
    hidden = []
    for by_onednn in (False, True):
        monkeypatch.setattr(onednn, "_mkl_is_slow", lambda by_onednn=by_onednn: by_onednn)
        network = Network(make(name), None, torch.device("cpu"))
        kinds = {type(m._products["float32"]).__name__ for m in network.model.modules() if isinstance(m, FrozenLinear)}
        assert kinds == {"OneDNNProduct" if by_onednn else "PlainProduct"}
        with torch.inference_mode():
            hidden.append(network.head(network.forest(plant(tokens, ["", ""]))[0]))
    torch.testing.assert_close(*hidden, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", pytest.param("bfloat16", marks=pytest.mark.skipif(
    not onednn.OPERATIONS._is_mkldnn_bf16_supported(), reason="this processor has no products in bfloat16"))])
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
