"""What goes with exported weights so that they can be used without us: tokenizer, stop tokens, prompt, a README."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol, cast

from transformers import AutoTokenizer, GenerationConfig

from posttrain.candidates.policy import PolicyCandidate
from posttrain.runs import write_json, write_text
from posttrain.types import Candidate, Policy, UserError


class LocalPolicy(Policy, Protocol):
    """A policy whose base model lies in a folder (or has a name) that transformers can load."""

    model_folder: Path


def trained(candidate: Candidate, folder: Path) -> tuple[PolicyCandidate, LocalPolicy]:
    """The candidate and its policy.  Raises UserError when it has no trained weights of its own."""
    if not isinstance(candidate, PolicyCandidate) or candidate.kind != "weights":
        raise UserError(
            f"nothing to export: {candidate.name} has no trained weights",
            place=str(folder),
            remedy="export a candidate taught by sft, dpo or grpo",
        )
    return candidate, cast(LocalPolicy, candidate.policy)


def write_companions(candidate: PolicyCandidate, policy: LocalPolicy, folder: Path, load: str) -> None:
    """Writes everything but weights.  `load` is the Python that loads them into `model` from `folder`."""
    source = str(policy.model_folder)
    tokenizer = AutoTokenizer.from_pretrained(source)
    if not tokenizer.chat_template:  # a base model: what it was taught with becomes its template
        tokenizer.chat_template = getattr(policy.renderer, "template", None)
    tokenizer.save_pretrained(folder)
    _generation(source, policy).save_pretrained(folder)
    write_json(
        folder / "prompt.json",
        {
            "schema": 1,
            "instructions": candidate.instructions,
            "output": asdict(candidate.output),
            "demonstrations": [{"asked": shown.asked, "answer": shown.answer} for shown in candidate.demonstrations],
            "nearest": candidate.nearest,
            "passages": candidate.passages,
            "documents": [asdict(document) for document in candidate.documents] if candidate.passages else [],
        },
    )
    write_text(folder / "README.md", _readme(candidate, load))


def _generation(source: str, policy: Policy) -> GenerationConfig:
    """Greedy, ended by every token that ended an answer in training: as the candidate was evaluated."""
    try:
        given = GenerationConfig.from_pretrained(source)
    except OSError:  # older models have none
        given = GenerationConfig()
    ends: Any = given.eos_token_id
    stops = {*(ends if isinstance(ends, list) else [ends]), *getattr(policy.renderer, "stop_tokens", ())} - {None}
    return GenerationConfig(
        bos_token_id=given.bos_token_id,
        eos_token_id=sorted(stops),
        pad_token_id=min(stops) if given.pad_token_id is None else given.pad_token_id,
        max_new_tokens=None,
        do_sample=False,
    )


def _readme(candidate: PolicyCandidate, load: str) -> str:
    shown = ""
    if candidate.nearest:
        shown += (
            f"\nFor each question it was shown the {candidate.nearest} demonstrations of prompt.json nearest to "
            "the question by BM25, the nearest last. The code below shows all: choose them first.\n"
        )
    if candidate.passages:
        shown += (
            f"\nIt was given the {candidate.passages} documents of prompt.json nearest to the question by BM25, "
            'as "title\\ntext" with a blank line between, then "\\n\\n---\\n", then the question.\n'
        )
    if candidate.output.labels or candidate.output.schema:
        shown += (
            "\nIts answers were held to the form in prompt.json (`output`) while decoding; the code below "
            "decodes freely. To keep the form, use your server's structured output.\n"
        )
    return f"""# {candidate.name}

Taught with posttrain on {candidate.model}. `proof.json` says how closely these files were found to equal what was
trained. Answers as evaluated need the prompt in `prompt.json`:

    system: instructions
    user / assistant: demonstrations, if any
    user: the question
{shown}
```python
import json
from pathlib import Path

{load}
prompt = json.loads((folder / "prompt.json").read_text())
messages = [{{"role": "system", "content": prompt["instructions"]}}] if prompt["instructions"] else []
for shown in prompt["demonstrations"]:
    messages += [{{"role": "user", "content": shown["asked"]}}, {{"role": "assistant", "content": shown["answer"]}}]
messages.append({{"role": "user", "content": question}})
inputs = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
written = model.generate(**inputs, max_new_tokens=prompt["output"]["max_tokens"])
answer = tokenizer.decode(written[0, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
```
"""
