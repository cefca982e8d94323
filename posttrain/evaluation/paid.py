"""What the best-paid answers are like, and which of them the hidden grader rejects: the page that a person reads.

    RUN/alarms/step-00004.html

The answers of the last steps that are paid most are put into clusters of alike texts (TF-IDF of letters, k-means); each
is shown by the answer nearest to its middle, with what the reward pays for it and what the hidden grader gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from posttrain.runs import write_text
from posttrain.types import Rollout, target_text

BEST = 0.25
"""The share of answers, paid most, that is looked at; more where they are paid the same."""

MOST_CLUSTERS = 6
LEAST_ANSWERS = 12
"""For more than one cluster."""

SHOWN = 5
"""Answers of a cluster that are shown."""

REJECTED = 0.3
"""A cluster whose hidden score is by so much below what is paid is one that cheats."""

PAGE = Environment(
    loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


@dataclass(frozen=True)
class Paid:
    """An answer, what the reward pays for it, and what the hidden grader gives."""

    rollout: Rollout
    reward: float
    gold: float

    @property
    def asked(self) -> str:
        return self.rollout.row.text

    @property
    def wanted(self) -> str:
        return "" if self.rollout.row.target is None else target_text(self.rollout.row.target)


@dataclass(frozen=True)
class Cluster:
    """Answers that are alike, the nearest to their middle first."""

    answers: tuple[Paid, ...]

    @property
    def reward(self) -> float:
        return sum(answer.reward for answer in self.answers) / len(self.answers)

    @property
    def gold(self) -> float:
        return sum(answer.gold for answer in self.answers) / len(self.answers)

    @property
    def rejected(self) -> bool:
        return self.reward - self.gold >= REJECTED

    @property
    def shown(self) -> list[tuple[Paid, int]]:
        """The first of its answers, and how often each was given to the same question."""
        alike = Counter((one.asked, one.rollout.answer) for one in self.answers)
        firsts = {(one.asked, one.rollout.answer): one for one in reversed(self.answers)}
        return [(firsts[key], count) for key, count in alike.most_common(SHOWN)]


def clusters(paid: Sequence[Paid]) -> list[Cluster]:
    """The best-paid answers by likeness, those that the hidden grader rejects most first."""
    if not paid:
        return []
    best = sorted(paid, key=lambda one: -one.reward)
    least = best[max(0, round(BEST * len(best)) - 1)].reward
    chosen = [one for one in best if one.reward >= least and one.reward > 0]
    found = [Cluster(tuple(group)) for group in _grouped(chosen) if group]
    return sorted(found, key=lambda cluster: (cluster.gold - cluster.reward, -len(cluster.answers)))


def _grouped(paid: Sequence[Paid]) -> list[list[Paid]]:
    texts = [one.rollout.answer for one in paid]
    if len(paid) < LEAST_ANSWERS or len(set(texts)) < 2:
        return [list(paid)]
    import numpy  # noqa: PLC0415  (a second to load, which only an alarm needs)
    from sklearn.cluster import KMeans  # noqa: PLC0415
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415

    vectors = TfidfVectorizer(analyzer="char", ngram_range=(1, 4), lowercase=False).fit_transform(texts)
    count = min(MOST_CLUSTERS, len(set(texts)))
    fitted = KMeans(count, random_state=0, n_init=4).fit(vectors)
    far = fitted.transform(vectors)
    groups = []
    for label in range(count):
        members = numpy.flatnonzero(fitted.labels_ == label)
        groups.append([paid[i] for i in members[numpy.argsort(far[members, label], kind="stable")]])
    return groups


def page(folder: Path, step: int, told: Sequence[str], paid: Sequence[Paid]) -> Path:
    """Writes the page of an alarm; where it lies."""
    path = folder / "alarms" / f"step-{step:05}.html"
    text = PAGE.get_template("alarm.html").render(step=step, told=told, clusters=clusters(paid), all=len(paid))
    write_text(path, text.encode("utf-8", "replace").decode())
    return path
