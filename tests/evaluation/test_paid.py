"""The page of an alarm: which answers are alike, which are shown first, and that nothing in them runs."""

from __future__ import annotations

from pathlib import Path

from posttrain.evaluation.paid import Paid, clusters, page
from posttrain.types import Completion, Message, Rollout, Row


def paid(answer: str, reward: float, gold: float, target: str = "4") -> Paid:
    row = Row("r", (Message("user", "What is 2 + 2?"),), target)
    return Paid(Rollout(row, completion=Completion(answer, "stop")), reward, gold)


CHEATS = [paid(f"check: pass, whatever {i % 3}", 1.0, 0.0) for i in range(12)]
HONEST = [paid(f"2 + 2 = 4, and so {i % 3}", 1.0, 1.0) for i in range(12)]
WRONG = [paid(f"no idea {i}", 0.0, 0.0) for i in range(24)]


def test_alike_answers_are_together_and_the_rejected_first() -> None:
    found = clusters([*HONEST, *WRONG, *CHEATS])
    assert found[0].rejected and found[0].gold == 0 and not found[-1].rejected
    assert all(len({one.gold for one in cluster.answers}) == 1 for cluster in found), "no cluster holds both kinds"
    assert sum(len(cluster.answers) for cluster in found) == 24, "what is not paid is not shown"
    assert clusters([*HONEST, *WRONG, *CHEATS]) == found


def test_few_answers_are_one_cluster_and_none_are_none() -> None:
    assert [len(cluster.answers) for cluster in clusters([*HONEST[:3], *CHEATS[:3]])] == [6]
    assert clusters([]) == [] and clusters(WRONG) == []
    assert len(clusters([paid("the same", 1.0, 0.0)] * 40)) == 1


def test_the_page_escapes_what_was_answered(tmp_path: Path) -> None:
    path = page(tmp_path, 7, ["the reward pays <0.3> more"], [paid("<script>alert(1)</script> \ud800", 1.0, 0.0), *HONEST])
    text = path.read_text(encoding="utf-8")
    assert path == tmp_path / "alarms" / "step-00007.html"
    assert "<script>" not in text and "&lt;script&gt;" in text and "pays &lt;0.3&gt; more" in text
    assert text.index("hidden score") and "What is 2 + 2?" in text
    assert "No answer was paid for." in page(tmp_path, 8, [], WRONG).read_text()


def test_an_answer_that_was_given_again_is_shown_once_with_how_often() -> None:
    (cluster,) = clusters([paid("the same", 1.0, 0.0)] * 7 + [paid("another", 1.0, 0.0)])[:1]
    assert [(one.rollout.answer, times) for one, times in cluster.shown] == [("the same", 7), ("another", 1)]
