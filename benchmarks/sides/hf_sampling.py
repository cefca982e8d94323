"""Sampling by the generate of transformers.   python hf_sampling.py PROMPTS.json MODEL_FOLDER"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from _counting import counting
from _worker import serve, stopwatch
from transformers import AutoModelForCausalLM

PROMPTS = json.loads(Path(sys.argv[1]).read_text())
MODEL = AutoModelForCausalLM.from_pretrained(sys.argv[2], dtype=torch.float32).eval()
THREADS = torch.get_num_threads()


def sample(prompts: int, group_size: int, tokens: int, temperature: float) -> dict[str, Any]:
    """Completions of so many tokens, `group_size` of each prompt, all in one batch."""
    ids = torch.tensor(PROMPTS[:prompts])
    how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    with stopwatch() as taken, counting(MODEL) as counts, torch.inference_mode():
        written = MODEL.generate(
            ids, attention_mask=torch.ones_like(ids), num_return_sequences=group_size, max_new_tokens=tokens,
            eos_token_id=None, pad_token_id=0, **how,
        )
    completions = written[:, ids.shape[1] :].tolist()
    return taken | counts | {
        "version": transformers.__version__,
        "completions": completions if temperature == 0 else [],
        "trained_tokens": sum(map(len, completions)),
        "threads": THREADS,
        "settings": {"batch": prompts * group_size, "dtype": "float32", **how},
    }


serve({"sample": sample})
