"""Random models of several architectures, and what plain transformers and PEFT make of them: the truth."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import PeftModel
from torch import Tensor
from transformers import AutoModelForCausalLM, GenerationConfig, PretrainedConfig

from posttrain import losses
from posttrain.engines.torch.engine import TorchEngine, TorchPolicy
from posttrain.optimisers import Adam
from posttrain.types import Datum, LoRA

VOCABULARY = 400
WINDOW = 12
SHAPE = {"vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
         "num_attention_heads": 4, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": 2, "tie_word_embeddings": False}
GROUPED = {**SHAPE, "num_key_value_heads": 2}
EXPERTS = {**GROUPED, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}

EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", GROUPED),
    "llama_biased": ("Llama", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2", GROUPED),  # biases of queries, keys and values
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 16}),
    "mistral": ("Mistral", {**GROUPED, "sliding_window": WINDOW}),
    "gemma3": ("Gemma3Text", {**GROUPED, "head_dim": 16, "sliding_window": WINDOW,
                              "layer_types": ["sliding_attention", "full_attention"]}),
    "gemma2": ("Gemma2", {**GROUPED, "head_dim": 16, "sliding_window": WINDOW, "query_pre_attn_scalar": 24,
                          "attn_logit_softcapping": 0.2, "final_logit_softcapping": 0.5}),
    "gpt_oss": ("GptOss", {**GROUPED, "head_dim": 16, "sliding_window": WINDOW, "num_local_experts": 4,
                           "num_experts_per_tok": 2}),  # attention sinks
    "gpt_neox": ("GPTNeoX", SHAPE),
    "phi": ("Phi", GROUPED),  # turns a part of each head
    "phi3": ("Phi3", {**GROUPED, "sliding_window": WINDOW}),
    "phi3_longrope": ("Phi3", {**GROUPED, "original_max_position_embeddings": 96, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 96,
        "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}}),  # other frequencies in calls with longer sequences
    "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "head_dim": 16}),
    "opt": ("OPT", {**{key: value for key, value in SHAPE.items() if key != "intermediate_size"}, "ffn_dim": 96,
                    "word_embed_proj_dim": 64}),  # flattens tokens inside a layer
    "qwen2_moe": ("Qwen2Moe", {**EXPERTS, "shared_expert_intermediate_size": 32}),  # flattens tokens too
}
"""Architectures (name of the config class, its arguments) whose results must be those of transformers."""

NOT_COMPUTED: dict[str, tuple[str, dict[str, Any]]] = {
    "cohere": ("Cohere", GROUPED),  # scaled logits
    "llama4": ("Llama4Text", {**GROUPED, "head_dim": 16, "intermediate_size_mlp": 96, "num_local_experts": 2,
                              "attention_chunk_size": 16}),  # attends within chunks
    "gpt2": ("GPT2", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4}),  # no nn.Linear
    "falcon": ("Falcon", {key: value for key, value in SHAPE.items() if key != "intermediate_size"}),  # own attention
    "bloom": ("Bloom", {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4}),  # own attention
    "gptj": ("GPTJ", {"vocab_size": VOCABULARY, "n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8,
                      "n_positions": 256}),  # own attention
    "lfm2": ("Lfm2", {**GROUPED, "layer_types": ["conv", "full_attention"]}),  # convolves over neighbouring tokens
    "mamba": ("Mamba", {"vocab_size": VOCABULARY, "hidden_size": 64, "num_hidden_layers": 2}),  # no attention
}
"""What the engine has to compute exactly or refuse by name."""


def config(name: str) -> PretrainedConfig:
    kind, arguments = (EXACT | NOT_COMPUTED)[name]
    return getattr(transformers, f"{kind}Config")(**arguments)


def make(name: str) -> Any:
    """A random model in eval mode with transformers' own plain attention; the same one every time."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(name)).eval()
    model.generation_config = model.generation_config or GenerationConfig(eos_token_id=2)
    for tensor in model.parameters():  # as initialised they say too little about what they attend to
        tensor.data *= 3 if tensor.dim() > 1 else 1
    if name == "llama_biased":
        for bias in (tensor for key, tensor in model.named_parameters() if key.endswith(".bias")):
            bias.data = torch.linspace(-0.5, 0.5, len(bias)).sin()  # zero before
    for sinks in (tensor for key, tensor in model.named_parameters() if key.endswith("sinks")):
        sinks.data = torch.linspace(-2, 2, len(sinks))
    model.set_attn_implementation("eager")
    return model


def open_engine(model: Any, tokenizer: Any) -> TorchEngine:
    return TorchEngine(copy.deepcopy(model), tokenizer, name="tiny", source="tiny", device=torch.device("cpu"))


def sequences(seed: int = 0) -> list[tuple[int, ...]]:
    """Token sequences longer than the window that share long, short and no prefixes; one is another's prefix."""
    draw = random.Random(seed)

    def some(count: int) -> tuple[int, ...]:
        return tuple(draw.randrange(3, VOCABULARY) for _ in range(count))

    system, user = some(20), some(9)
    return [system + user + some(7), system + user + some(12), system + some(10), system + user, some(3) + some(21),
            system[:3] + some(5), system + user + some(7)]


def batch(seed: int = 0) -> list[Datum]:
    """Training data with weights of all kinds."""
    draw = random.Random(seed + 1)
    kinds = (0.0, 0.0, 0.5, 1.0, 2.0)
    return [Datum(tokens, (0.0, *[draw.choice(kinds) for _ in tokens[2:]], 1.0)) for tokens in sequences(seed)]


def plain_logprobs(model: Any, data: Sequence[Datum]) -> list[Tensor]:
    """Per datum the log-probabilities at its trained positions, each sequence forwarded on its own."""
    rows = []
    for datum in data:
        logits = model(input_ids=torch.tensor([datum.tokens])).logits[0, :-1].float()
        every = logits.log_softmax(dim=1).gather(1, torch.tensor(datum.tokens[1:])[:, None])[:, 0]
        rows.append(every[[position - 1 for position in datum.trained]])
    return rows


def generated(model: Any, engine: TorchEngine, prompt: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    """What transformers' generate goes on with, greedily."""
    found = model.generate(
        input_ids=torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt)), max_new_tokens=tokens,
        do_sample=False, eos_token_id=sorted(engine.sampler.stop_tokens), pad_token_id=2)
    return tuple(found[0, len(prompt):].tolist())


async def moved(engine: TorchEngine, lora: LoRA, seed: int = 0, steps: int = 2) -> TorchPolicy:
    """An adapter that changes something: a fresh one has no gradient in A."""
    policy = engine.base().fork(f"moved-{seed}", lora, seed=seed)
    for _ in range(steps):
        await policy.forward_backward(batch(100 + seed), losses.cross_entropy, normaliser=10)
        await policy.optim_step(Adam(2e-2))
    return policy


def with_peft(model: Any, folder: Path) -> Any:
    """The model with a saved adapter as PEFT loads it, ready to be trained."""
    return PeftModel.from_pretrained(copy.deepcopy(model), str(folder), is_trainable=True)


def gradients(engine: TorchEngine, policy: TorchPolicy) -> dict[str, Tensor]:
    """The adapter's gradients, under PEFT's names."""
    tensors = engine.network.bank.adapters[policy.adapter].tensors
    return {f"{path}.lora_{letter}": tensor.grad.clone() for path, pair in tensors.items()
            for letter, tensor in zip("AB", pair, strict=True) if tensor.grad is not None}


def peft_parameters(model: Any) -> dict[str, Tensor]:
    return {name.removeprefix("base_model.model.").removesuffix(".default.weight"): tensor
            for name, tensor in model.named_parameters() if ".lora_" in name}


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))


def logprobs(policy: Any, data: Sequence[Datum]) -> list[Tensor]:
    return [torch.tensor(row) for row in asyncio.run(policy.logprobs(data))]


def worst_logprobs(engine: TorchEngine, model: Any) -> float:
    """How far the base's log-probabilities are from those of the model itself, at worst."""
    data = batch(3)
    with torch.no_grad():
        wanted = plain_logprobs(model, data)
    return max(relative_error(*pair) for pair in zip(logprobs(engine.base(), data), wanted, strict=True))
