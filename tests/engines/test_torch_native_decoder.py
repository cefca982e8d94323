"""Tokens that go through all layers in C come out as they do layer by layer, adapters and all."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch_models import batch, make, moved, open_engine

from posttrain.engines.torch import onednn
from posttrain.engines.torch.adapters import BASE
from posttrain.engines.torch.attention import ForestLayout
from posttrain.engines.torch.cache import SlotCache, Trunk
from posttrain.engines.torch.decoding import DecodingLayout
from posttrain.engines.torch.engine import TorchEngine
from posttrain.engines.torch.forest import plant
from posttrain.engines.torch.native.library import has_pairs, library
from posttrain.engines.torch.network import Network
from posttrain.types import LoRA

pytestmark = pytest.mark.skipif(library() is None, reason="no C compiler, or a processor without AVX-512")
TOKENS = (batch()[0].tokens + batch()[1].tokens)[:40]


@pytest.fixture(params=["llama", "llama_biased", "qwen2", "mistral", "qwen3"])
def engine(request: pytest.FixtureRequest, tiny_tokenizer: Any) -> Iterator[TorchEngine]:
    """Plain, with biases, with windows, with norms of queries and keys."""
    opened = open_engine(make(request.param), tiny_tokenizer)
    yield opened
    opened.close()


def last_states(
        network: Network, adapter: str, trunk_length: int, rounding: float = 1e-5, count: int = 1,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The hidden states of the last `count` tokens, decoded in C, and as a forest has them."""
    with torch.inference_mode():
        whole, layout = network.forest(plant([TOKENS], [adapter]), store=True)
        trunk = Trunk(TOKENS[:trunk_length], [(k[:, :, :trunk_length], v[:, :, :trunk_length]) for k, v in layout.kept])
        in_slot, slots = len(TOKENS) - count - trunk_length, SlotCache()
        slots.reserve(3, in_slot + count, like=layout.kept)
        for layer, (keys, values) in enumerate(layout.kept):
            slots.write(1, layer, keys[0, :, trunk_length:-count], values[0, :, trunk_length:-count])
        decoding = DecodingLayout(slots, 1, [in_slot], [count], [trunk if trunk_length else None], network.device)
        found = network.decoder.hidden(  # type: ignore[union-attr]
            TOKENS[-count:], decoding, [(adapter, 0, count)], range(count))
        assert found is not None
        for kept, (keys, values) in zip(slots.layers, layout.kept, strict=True):
            new = slice(in_slot, in_slot + count)
            torch.testing.assert_close(kept[0][1, :, new], keys[0, :, -count:], rtol=rounding, atol=rounding)
            torch.testing.assert_close(kept[1][1, :, new], values[0, :, -count:], rtol=rounding, atol=rounding)
            assert not kept[0][0].any() and not kept[0][2].any(), "other slots are left alone"
        return found, whole[-count:]


def close(found: torch.Tensor, wanted: torch.Tensor, precision: str) -> None:
    """As rounding leaves them: what differs in its last bits may be rounded the other way before it is multiplied."""
    if precision == "float32":
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    else:
        assert float((found - wanted).norm() / wanted.norm()) < (2e-2 if precision == "int8" else 5e-3)


@pytest.mark.parametrize("trunk_length", [0, 30])
@pytest.mark.parametrize("lora", [
    None, LoRA(rank=4, alpha=8), LoRA(rank=16, alpha=8), LoRA(rank=19, alpha=8, targets=("v_proj", "up_proj", "down_proj")),
    LoRA(rank=2, alpha=3, layers=0.5)], ids=["base", "rank 4", "rank 16", "some layers of rank 19", "upper half"])
def test_it_comes_out_as_in_a_forest(engine: TorchEngine, lora: LoRA | None, trunk_length: int) -> None:
    adapter = asyncio.run(moved(engine, lora)).name if lora else BASE
    found, wanted = last_states(engine.network, adapter, trunk_length)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    bare, _ = last_states(engine.network, BASE, trunk_length)
    assert lora is None or float((bare - wanted).norm() / wanted.norm()) > 1e-2, "the adapter is felt"


@pytest.mark.parametrize("precision", [
    "int8",
    pytest.param("bfloat16", marks=pytest.mark.skipif(not has_pairs(), reason="nor bfloat16, or otherwise"))])
@pytest.mark.parametrize("count", [1, 2, 8])
@pytest.mark.parametrize("trunk_length", [0, 30])
def test_so_it_does_with_rounded_weights(
        tiny_model_folder: Path, tmp_path: Path, trunk_length: int, count: int, precision: Any) -> None:
    """Where a forest rounds what is multiplied to bfloat16, in 8 bits this rounds it to 16 bits."""
    plain = TorchEngine.open(str(tiny_model_folder), device="cpu", precision="float32")
    asyncio.run(asyncio.run(moved(plain, LoRA(rank=4, alpha=8))).save(tmp_path))
    plain.close()
    engine = TorchEngine.open(str(tiny_model_folder), device="cpu", precision=precision)
    for adapter in (BASE, engine.load(tmp_path).name):
        found, wanted = last_states(engine.network, adapter, trunk_length, rounding=0.1, count=count)
        close(found, wanted, precision)
    engine.close()


def test_a_trained_adapter_is_another(engine: TorchEngine) -> None:
    policy = asyncio.run(moved(engine, LoRA(rank=4, alpha=8)))
    before, _ = last_states(engine.network, policy.name, 0)
    adapter = engine.network.bank.get(policy.name)
    with torch.no_grad():
        for path, (a, b) in adapter.tensors.items():
            adapter.tensors[path] = (2 * a, b.clone())  # elsewhere in memory, as of a checkpoint that is gone back to
    adapter.stamp += 1000
    after, wanted = last_states(engine.network, policy.name, 0)
    torch.testing.assert_close(after, wanted, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, after, rtol=1e-2)


LORAS = [None, LoRA(rank=4, alpha=8), LoRA(rank=19, alpha=8, targets=("v_proj", "up_proj", "down_proj")), None,
         LoRA(rank=16, alpha=8, layers=0.5)]


def policies(engine: TorchEngine) -> list[str]:
    return [asyncio.run(moved(engine, lora, seed=i)).name if lora else BASE for i, lora in enumerate(LORAS)]


IN_PAIRS = pytest.param("bfloat16", marks=pytest.mark.skipif(not has_pairs(), reason="this processor has no pairs"))


@pytest.mark.parametrize("precision", ["float32", IN_PAIRS])
@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("most", [1, 3])
def test_a_step_of_several_rows_and_adapters(engine: TorchEngine, most: int, copies: int, precision: Any) -> None:
    """Rows of several lengths, with and without a trunk, some feeding several tokens, of adapters side by side."""
    engine.network.bank.precision = precision
    network, names = engine.network, [name for name in policies(engine) for _ in range(copies)]
    data = [datum.tokens for seed in range(4) for datum in batch(seed) if len(datum.tokens) > 12][: len(names)]
    counts = [1 + i % most for i in range(len(names))]
    with torch.inference_mode():
        read = [network.forest(plant([tokens], [name]), store=True) for tokens, name in zip(data, names, strict=True)]
        trunks = [6 if i % 2 else 0 for i in range(len(names))]
        own = [len(tokens) - skip - count for tokens, skip, count in zip(data, trunks, counts, strict=True)]
        slots = SlotCache()
        slots.reserve(len(names) + 2, max(map(len, data)), like=read[0][1].kept)
        for row, ((_, layout), skip) in enumerate(zip(read, trunks, strict=True)):
            for layer, (keys, values) in enumerate(layout.kept):
                slots.write(row + 1, layer, keys[0, :, skip: -counts[row]], values[0, :, skip: -counts[row]])
        held = [Trunk(tokens[:skip], [(k[:, :, :skip], v[:, :, :skip]) for k, v in layout.kept]) if skip else None
                for tokens, (_, layout), skip in zip(data, read, trunks, strict=True)]
        step = DecodingLayout(slots, 1, own, counts, held, network.device)
        owners = list(zip(names, counts, strict=True))
        network.forward = lambda *_: pytest.fail("layer by layer")  # type: ignore[method-assign]
        ends = [sum(counts[: i + 1]) for i in range(len(counts))]
        asked = [end - 1 for end in ends]
        fed = [token for tokens, count in zip(data, counts, strict=True) for token in tokens[-count:]]
        found = network.feed(fed, step, owners, asked)
        wanted = torch.stack([hidden[-1] for hidden, _ in read])
        close(found, wanted, precision)
        for row, (_, layout) in enumerate(read):
            place = slice(own[row], own[row] + counts[row])
            for kept, (keys, values) in zip(slots.layers, layout.kept, strict=True):
                close(kept[0][row + 1, :, place], keys[0, :, -counts[row]:], precision)
                close(kept[1][row + 1, :, place], values[0, :, -counts[row]:], precision)
        assert not any(part[i].any() for layer in slots.layers for part in layer for i in (0, len(names) + 1))


@pytest.mark.parametrize("precision", ["float32", IN_PAIRS])
@pytest.mark.parametrize("chunk", [1, 30])
@pytest.mark.parametrize("trunk_length", [0, 20])
def test_a_forest(engine: TorchEngine, trunk_length: int, chunk: int, precision: Any) -> None:
    """Read in C as it is by torch: hidden states of the wanted tokens, whatever their order, and all keys and values."""
    engine.network.bank.precision = precision
    network, names = engine.network, policies(engine)
    data = [(*datum.tokens, *datum.tokens * (chunk - 1)) for datum in batch(4)[:5]]  # more than go together, too
    data = [tuple(tokens[i] for i in range(min(len(tokens), 150 if i < 2 else 40))) for i, tokens in enumerate(data)]
    forest = plant(data, names, first_position=trunk_length)
    with torch.inference_mode():
        trunk = network.forest(plant([TOKENS[:trunk_length] or TOKENS], [BASE]), store=True)[1].kept if trunk_length else []
        held = Trunk(TOKENS[:trunk_length], trunk) if trunk else None
        hidden, plain = network.forest(forest, trunk=held, store=True)
        layout = ForestLayout(forest, network.device, trunk=trunk, store=True)
        for wanted in ([forest.index(i)[-1] for i in range(len(data))], list(range(len(forest.tokens))), [3, 3, 1]):
            found = network.decoder.hidden(forest.tokens, layout, forest.adapters, wanted)  # type: ignore[union-attr]
            close(found, hidden[torch.tensor(wanted)], precision)
        for mine, theirs in zip(layout.kept, plain.kept, strict=True):
            for part, other in zip(mine, theirs, strict=True):
                close(part, other, precision)
        assert len(forest.tokens) > 256 or chunk == 1
        unkept = ForestLayout(forest, network.device, trunk=trunk)
        again = network.decoder.hidden(forest.tokens, unkept, forest.adapters, [3, 3, 1])  # type: ignore[union-attr]
        assert torch.equal(again, found) and not unkept.kept


def test_an_adapter_of_a_high_rank(tiny_tokenizer: Any) -> None:
    """What it narrows tokens to is more than lies on the stack at once."""
    opened = open_engine(make("llama"), tiny_tokenizer)
    name = asyncio.run(moved(opened, LoRA(rank=9000, alpha=8, targets=("down_proj",)))).name
    tokens = [(7 * i) % 300 + 3 for i in range(200)]
    with torch.inference_mode():
        hidden, _ = opened.network.forest(plant([tokens], [name]))
        layout = ForestLayout(plant([tokens], [name]), opened.network.device)
        found = opened.network.decoder.hidden(tokens, layout, [(name, 0, 200)], range(200))  # type: ignore[union-attr]
        torch.testing.assert_close(found, hidden, rtol=1e-3, atol=1e-3)
        assert opened.network.decoder.hidden(tokens, layout, [(name, 0, 200)], []).shape == (0, 64)  # type: ignore[union-attr]
    opened.close()


def test_models_that_are_otherwise_go_layer_by_layer(tiny_tokenizer: Any) -> None:
    for name in ("gemma3", "gpt_neox", "phi3_longrope", "gpt_oss"):
        other = open_engine(make(name), tiny_tokenizer)
        assert other.network.decoder is None, name
        other.close()


def test_a_model_that_does_more_between_its_layers_is_found_out(tiny_tokenizer: Any) -> None:
    """As one that scales what its layers add, whose layers look alike."""
    model = make("llama")
    plain = type(model.model.layers[0]).forward

    def scaled(self: Any, hidden_states: torch.Tensor, **more: Any) -> torch.Tensor:
        return hidden_states + 0.9 * (plain(self, hidden_states, **more) - hidden_states)

    for layer in model.model.layers:
        layer.forward = scaled.__get__(layer)
    other = open_engine(model, tiny_tokenizer)
    assert other.network.decoder is None
    other.close()


def test_on_several_threads_it_goes_layer_by_layer(
        engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called so takes one."""
    network, asked = engine.network, []
    monkeypatch.setattr(network.decoder, "hidden", lambda *_: asked.append(1))
    monkeypatch.setattr(network, "forward", lambda tokens, *_: torch.zeros(len(tokens), 64))
    layout = DecodingLayout(SlotCache(), 0, [0], [1], [None], network.device)
    network.feed([5], layout, [(BASE, 1)], [0])
    assert asked == [1]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    network.feed([5], layout, [(BASE, 1)], [0])
    assert asked == [1]


def test_where_mkl_has_all_its_speed_many_tokens_go_layer_by_layer(
        engine: TorchEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onednn, "suits", lambda _: False)
    for count, native in ((64, True), (65, False)):
        tokens = [5 + i for i in range(count)]
        layout = ForestLayout(plant([tokens], [BASE]), engine.network.device)
        with torch.inference_mode():
            found = engine.network.decoder.hidden(tokens, layout, [], [0])  # type: ignore[union-attr]
        assert (found is not None) == native


def test_tokens_that_go_side_by_side_have_their_own_positions(tiny_tokenizer: Any) -> None:
    """Two threads, at places far apart, through a window: what one sees does not depend on the other."""
    opened = open_engine(make("mistral"), tiny_tokenizer)
    network, rounds = opened.network, 150
    path = network.decoder
    assert path is not None
    generator, layouts = torch.Generator().manual_seed(0), []
    for length in (5, 120):
        slots = SlotCache()
        heads, size = network.config.num_key_value_heads, path.layers[0].attention.size
        like = [tuple(torch.randn(1, heads, length + 1, size, generator=generator) for _ in range(2)) for _ in path.layers]
        slots.reserve(1, length + 1, like=like)  # type: ignore[arg-type]
        for layer, (keys, values) in enumerate(like):
            slots.write(0, layer, keys[0], values[0])
        layouts.append((slots, length))

    def hidden(number: int) -> torch.Tensor:
        slots, length = layouts[number]
        with torch.inference_mode():
            layout = DecodingLayout(slots, 0, [length], [1], [None], network.device)
            found = path.hidden([7], layout, [], [0])
        assert found is not None
        return found

    wanted = [hidden(0), hidden(1)]
    with ThreadPoolExecutor(2) as pool:
        for number, found in enumerate(pool.map(hidden, [i % 2 for i in range(2 * rounds)])):
            assert torch.equal(found, wanted[number % 2])
    opened.close()


def test_layers_with_fewer_heads_have_their_own_places() -> None:
    """As of pruned models: the slots of a layer begin as far apart as that layer is wide."""
    slots = SlotCache()
    slots.layers = [(torch.zeros(3, heads, 4, 16), torch.zeros(3, heads, 4, 16)) for heads in (4, 2)]
    places = DecodingLayout(slots, 1, [3, 1], [1, 1], [None, None], torch.device("cpu")).places(2, 4, 16)
    for place, (keys, values) in zip(places, slots.layers, strict=True):
        for row, at in enumerate([3, 1]):
            assert place.keys[0, 0, place.at[row]].data_ptr() == keys[1 + row, 0, at].data_ptr()
            assert place.values[0, 1, place.at[row]].data_ptr() == values[1 + row, 1, at].data_ptr()
            [source] = place.sources
            assert source.parts.table[row, 2] == row * keys.stride(0) // 16
