"""How long questions and answers are, and whether they fit: roughly, or to the token where a model is at hand."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from posttrain.candidates.policy import PolicyCandidate
from posttrain.tasks.findings import Finding, count, places
from posttrain.tasks.loading import Reading
from posttrain.types import Policy, Row, target_text

BYTES_PER_TOKEN = 4
"""Of UTF-8, roughly: English has a byte and Chinese three to a character."""
RULE = f"at {BYTES_PER_TOKEN} bytes a token"


def approximate(text: str) -> int:
    """About how many tokens a text has."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def lengths(reading: Reading, policy: Policy | None = None) -> list[Finding]:
    """How long inputs and targets are, and targets that `max_tokens` cuts off.

    With a `policy` the tokens are its own, prompts are counted as it is given them (instructions, tools and passages
    included), and rows that do not fit into its context are errors.
    """
    rows = [row for split in reading.task.splits.values() for row in split]
    if policy is None:
        return [*_roughly(reading, rows), *_cut_off(reading, rows, approximate, f", {RULE}")]
    count_tokens = policy.renderer.count
    return [*_exactly(reading, rows, policy), *_cut_off(reading, rows, lambda text: count_tokens(text) + 1, "")]


def _roughly(reading: Reading, rows: Sequence[Row]) -> list[Finding]:
    asked = ["\n".join((*row.contexts, *(message.content for message in row.messages))) for row in rows]
    wanted = [target_text(row.target) for row in rows if row.target is not None]
    findings = []
    if rows:
        instructions = approximate(reading.task.instructions)
        message = f"inputs: {_spread(asked)}; instructions: about {instructions:,} tokens ({RULE})"
        findings.append(Finding("note", reading.place, message))
    if wanted:
        findings.append(Finding("note", reading.place, f"targets: {_spread(wanted)}"))
    return findings


def _spread(texts: Sequence[str]) -> str:
    characters, tokens = [len(text) for text in texts], [approximate(text) for text in texts]
    return (
        f"{statistics.median(characters):,.0f} characters, about {statistics.median(tokens):,.0f} tokens (median); "
        f"{max(characters):,} characters, about {max(tokens):,} tokens (longest)"
    )


def _exactly(reading: Reading, rows: Sequence[Row], policy: Policy) -> list[Finding]:
    candidate = PolicyCandidate.of("", policy, reading.task)
    prompts = [len(candidate.prompt(row)) for row in rows]
    findings = []
    if rows:
        message = (
            f"prompts: {statistics.median(prompts):,.0f} tokens of {policy.model} (median), {max(prompts):,} (longest)"
        )
        findings.append(Finding("note", reading.place, message))
    room = policy.context_length - reading.task.output.max_tokens
    long = [row for row, tokens in zip(rows, prompts, strict=True) if tokens > room]
    if long:
        message = (
            f"the prompt of {count(long)}, of up to {max(prompts):,} tokens, leaves no room for an answer of "
            f"{reading.task.output.max_tokens:,} in the context of {policy.context_length:,}"
        )
        remedy = "shorten or remove them, or choose a model with a longer context"
        findings.append(Finding("error", places(reading, long), message, remedy))
    return findings


def _cut_off(reading: Reading, rows: Sequence[Row], tokens: Callable[[str], int], rule: str) -> list[Finding]:
    most = reading.task.output.max_tokens
    long = [row for row in rows if row.target is not None and tokens(target_text(row.target)) > most]
    if not long:
        return []
    message = f"{count(long, 'target')} longer than max_tokens = {most} allows{rule}"
    return [Finding("warning", places(reading, long), message, "raise max_tokens under [output]")]
