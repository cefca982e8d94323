"""Retrieval by words."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from posttrain.retrieval.bm25 import BM25Retriever
from posttrain.types import Document

DOCUMENTS = [Document("tarn", "Tarn 300", "A label printer. Faults go to the orbit team."),
             Document("brindle", "Brindle XL", "A label printer for wide labels. Faults go to the maple team."),
             Document("kivo", "Kivo 2D", "A barcode scanner. Faults go to the anchor team.")]


def found(query: str, k: int = 3) -> list[str]:
    return [document.id for document, _ in BM25Retriever(DOCUMENTS).search(query, k)]


def test_titles_and_texts_are_searched() -> None:
    assert found("my BRINDLE keeps pausing")[0] == "brindle"
    assert found("2d")[0] == "kivo"
    assert found("the orbit people")[0] == "tarn"


def test_the_best_come_first_with_falling_scores() -> None:
    results = BM25Retriever(DOCUMENTS).search("wide label printer", 2)
    assert [document.id for document, _ in results] == ["brindle", "tarn"]
    assert results[0][1] > results[1][1] > 0


def test_what_a_document_is_about_beats_what_it_mentions() -> None:
    mentions = Document("mentions", "Dock", "Tarn: see there. Needs the Tarn, and a Tarn cable.")
    about = Document("about", "Tarn", "A printer for labels, with a cutter and a stand and a lamp.")
    assert [document.id for document, _ in BM25Retriever([mentions, about]).search("tarn", 2)] == ["about", "mentions"]


def test_nothing_in_common_finds_nothing() -> None:
    assert found("") == found("?!") == found("zebra") == found("tarn", 0) == []
    assert BM25Retriever([]).search("tarn", 3) == []
    assert BM25Retriever([Document("a", "", "")]).search("tarn", 3) == []


def test_one_document_is_enough() -> None:
    assert [document.id for document, _ in BM25Retriever(DOCUMENTS[:1]).search("tarn", 3)] == ["tarn"]


def test_equals_keep_their_order() -> None:
    twins = [Document(str(i), "", "the same words") for i in range(50)]
    assert [document.id for document, _ in BM25Retriever(twins).search("same", 7)] == [str(i) for i in range(7)]


@given(texts=st.lists(st.text(max_size=20), max_size=6), query=st.text(max_size=20), k=st.integers(0, 8))
def test_any_text_can_be_searched(texts: list[str], query: str, k: int) -> None:
    retriever = BM25Retriever([Document(str(i), "", text) for i, text in enumerate(texts)])
    results = retriever.search(query, k)
    assert len(results) <= k and all(score > 0 for _, score in results)
    assert results == retriever.search(query, k) == sorted(results, key=lambda result: (-result[1], int(result[0].id)))
