"""A made-up comparison with the shape of the demo's: 120 test rows, correlated candidates, known scores."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace

from posttrain.comparison.money import BreakEven, Prices, break_even, device_cost
from posttrain.comparison.results import CandidateResult, ComparisonResult, Latency
from posttrain.comparison.verdict import choose_reference, decide, detectable
from posttrain.evaluation.record import Attempt, Evaluation
from posttrain.types import Kind

ASKED = ("My LP-40 prints every second label blank since this morning, we ship at 3 pm today!! order 88213",
         "?? charged twice again", "The gateway drops all scanners when the night shift starts. SN GW2-00817.",
         "I want my money back, this is the worst scanner I have ever owned. Ticket 5501 was ignored.",
         "Can you tell me which ribbon fits the LP-60? Also our invoice 2024-118 shows the wrong address.")
QUEUES = ("printing", "scanning", "network", "billing", "returns", "sales")
SLICES = ("plain", "ambiguous", "two-in-one", "hostile", "fragment", "unseen product")


def evaluation(name: str, passed: Sequence[bool], *, task_hash: str = "f00d", slices: bool = True) -> Evaluation:
    """An evaluation with these outcomes."""
    draw = random.Random(7)
    attempts = []
    for i, right in enumerate(passed):
        queue, other = draw.sample(QUEUES, 2)
        target = json.dumps({"queue": queue, "urgency": "high", "reference": None})
        answer = target if right else json.dumps({"queue": other, "urgency": "high", "reference": None})
        attempts.append(Attempt(
            row_id=f"test-{i:03}", slices=(draw.choice(SLICES),) if slices else (),
            text=ASKED[i % len(ASKED)] + f" ({i})",
            target=target, messages=({"role": "system", "content": "Sort the message."},
                                     {"role": "user", "content": ASKED[i % len(ASKED)] + f" ({i})"}),
            answer=answer, value=float(right), passed=bool(right), valid=True,
            parts={"valid": 1.0, "queue": float(right), "urgency": 1.0}, prompt_tokens=200 + i, completion_tokens=24))
    return Evaluation(name, "support_triage", task_hash, "test", tuple(attempts))


def outcomes(score: float, n: int = 120, *, seed: int = 0, noise: float = 0.25) -> list[bool]:
    """Outcomes with about this score: rows are hard or easy for everybody, with some noise of the candidate's own."""
    hardness = random.Random(1)
    own = random.Random(seed)
    order = [(hardness.random() + noise * own.random(), i) for i in range(n)]
    easy = {i for _, i in sorted(order)[: round(score * n)]}
    return [i in easy for i in range(n)]


def result(name: str, kind: Kind, score: float, *, dev: float | None = None, seed: int = 0, n: int = 120,
           passed: Sequence[bool] | None = None, **fields: object) -> CandidateResult:
    """A candidate's result; `dev` is its score unless given."""
    known = {"label": name.replace("_", " "), "technique": name, "model": "" if kind == "floor" else "smollm2",
             "dev_score": score if dev is None else dev, **fields}
    known["dev_score"] = None if dev is not None and dev < 0 else known["dev_score"]
    return CandidateResult(name=name, kind=kind, evaluation=evaluation(name, passed or outcomes(score, n, seed=seed)),
                           **known)  # type: ignore[arg-type]


def comparison(*, own: bool = True) -> ComparisonResult:
    """Twelve candidates in the demo's shape, with costs, curves, and a system that runs already."""
    known = [("constant", "floor", 0.09, "always the commonest answer", 0.0001, 0, "run again"),
             ("nearest", "floor", 0.22, "the nearest training row's answer", 0.002, 0, "edit a row"),
             ("linear", "floor", 0.31, "word weights (TF-IDF)", 0.003, 0.4, "retrain, 1 s"),
             ("base", "prompt", 0.02, "the model as it comes", 0.9, 0, "edit the prompt"),
             ("few_shot", "prompt", 0.14, "examples in the prompt", 1.4, 40, "edit the prompt"),
             ("knn_few_shot", "prompt", 0.34, "the nearest examples in the prompt", 1.5, 15, "edit a row"),
             ("prompt_search", "prompt", 0.29, "searched instructions and examples", 1.3, 75, "edit the prompt"),
             ("retrieval", "prompt", 0.11, "the product card in the prompt", 1.6, 2, "edit a document"),
             ("sft", "weights", 0.64, "trained on the answers", 0.62, 110, "retrain, 2 min"),
             ("retrieval+sft", "weights", 0.71, "product card, then trained", 0.9, 160, "edit a document"),
             ("sft+grpo", "weights", 0.66, "trained, then rewarded", 0.62, 220, "retrain, 4 min")]
    draw = random.Random(3)
    results = []
    for i, (name, kind, score, label, seconds, spent, rule) in enumerate(known):
        trained = kind == "weights"
        results.append(result(
            name, kind, score, seed=i, label=label, update_rule=rule,  # type: ignore[arg-type]
            latency=Latency(seconds * 0.9, seconds * 1.3, seconds * 4),
            training_seconds=spent if trained else 0.0, search_seconds=0.0 if trained else spent,
            trained_tokens=31_000 if trained else 0, training_runs=3 if name == "sft" else int(trained),
            seed_scores=(0.64, 0.62, 0.66) if name == "sft" else (),
            cost=device_cost(Prices(), one_off_seconds=spent, request_seconds=[
                seconds * (0.8 + 0.4 * draw.random()) for _ in range(20)]),
            learning_curve=((50, score - 0.22), (100, score - 0.11), (200, score)) if trained else (),
            curves=tuple({"step": step, "loss": 2.1 * 0.93**step + 0.1 * draw.random()} for step in range(40))
            if trained else ()))
    if own:
        results.append(result("ours", "given", 0.52, dev=-1, seed=33, label="the answers you run today"))
    yours = "ours" if own else None
    reference = choose_reference(results, yours)
    prompted = choose_reference(results)
    assert reference and prompted and prompted.cost
    unknown = BreakEven(None, None, "not known: no price stated")
    pays = {r.name: break_even(prompted.cost, r.cost, quality_low=0.0) for r in results if r.kind == "weights"}
    results = [replace(r, break_even=unknown if r.kind == "given" else pays.get(r.name)) for r in results]
    comparisons, recommendation = decide(results, yours=yours)
    return ComparisonResult(
        task="support_triage", task_version="1", task_hash="f00d" * 16, model="smollm2", precision={"smollm2": "bfloat16"}, candidates=tuple(results),
        comparisons=tuple(comparisons), recommendation=recommendation, reference=reference.name, yours=yours, ceiling=0.86,
        volume_per_month=20_000, detectable_difference=detectable(comparisons, 120, "right"), test_uses=1, seeds=(0, 1, 2),
        estimate_seconds=780, actual_seconds=702,
        timings={"floors": 3.0, "prompts": 240.0, "training": 380.0, "test": 79.0},
        notes=("columns: text is the input; queue, urgency, reference the target",))
