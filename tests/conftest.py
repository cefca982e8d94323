"""What tests share: a tokenizer and a model small enough to make on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

torch.set_num_threads(1)  # matrices this small are slower on two, and other tests may run beside these


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Again, for an engine that took two has left the process with them."""
    torch.set_num_threads(1)


SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")

TEXTS = [
    "The printer is down and nothing can go out today.", "Where is my order A-48213? It is still not here.",
    "Please answer with one word: positive or negative.", "system user assistant You are a helpful AI assistant",
    '{"queue": "billing", "urgency": "normal", "reference": null}', "I was charged twice for invoice 2024-117.",
    "good bad great awful fine yes no", "trained by Hugging Face named SmolLM", "one two three four five six seven",
] * 4


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE like SmolLM2's, of 400 tokens, with its special tokens and chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>",
                                   unk_token="<|endoftext|>", pad_token="<|im_end|>", chat_template=SMOLLM2_TEMPLATE)


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def tiny_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of two layers with its tokenizer, as `save_pretrained` writes them."""
    folder = tmp_path_factory.mktemp("tiny_model")
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
                         bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                         pad_token_id=tokenizer.pad_token_id, tie_word_embeddings=False)
    model = LlamaForCausalLM(config)
    model.lm_head.weight.data *= 5  # it is frozen: with a smaller one no adapter could ever be sure of a token
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
