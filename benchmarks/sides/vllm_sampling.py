"""Sampling by vLLM on a CPU.   python vllm_sampling.py PROMPTS.json MODEL_FOLDER PRECISION [eager]"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from _worker import serve, stopwatch

THREADS = int(os.environ["OMP_NUM_THREADS"])
os.environ |= {  # in this process, whose time is taken; on so many cores
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, range(THREADS))),
    "VLLM_CPU_KVCACHE_SPACE": "2",
    "VLLM_CPU_NUM_OF_RESERVED_CPU": "0",
    "VLLM_NO_USAGE_STATS": "1",
}

import vllm  # noqa: E402
from vllm import LLM, SamplingParams  # noqa: E402

PROMPTS = json.loads(Path(sys.argv[1]).read_text())
SETTINGS: dict[str, Any] = {
    "dtype": sys.argv[3], "max_model_len": 512, "enable_prefix_caching": True, "enforce_eager": "eager" in sys.argv[4:],
}
MODEL = LLM(sys.argv[2], skip_tokenizer_init=True, disable_log_stats=True, **SETTINGS)


def sample(prompts: int, group_size: int, tokens: int, temperature: float) -> dict[str, Any]:
    """Completions of so many tokens, `group_size` of each prompt, which is read once.

    What an earlier turn read, which is the same, must not be known.
    """
    if not MODEL.reset_prefix_cache():
        raise RuntimeError("vLLM still knows the prompts of an earlier turn")
    how = SamplingParams(
        n=group_size, temperature=temperature, max_tokens=tokens, ignore_eos=True, detokenize=False, seed=None
    )
    asked: Any = [{"prompt_token_ids": prompt} for prompt in PROMPTS[:prompts]]
    with stopwatch() as taken:
        written = MODEL.generate(asked, how, use_tqdm=False)
    completions = [list(choice.token_ids) for one in written for choice in one.outputs]
    return taken | {
        "version": vllm.__version__,
        "completions": completions if temperature == 0 else [],
        "trained_tokens": sum(map(len, completions)),
        "threads": THREADS,
        "settings": SETTINGS,
    }


serve({"sample": sample})
