"""Leases and their tokens, on every database: of two who think that a job is theirs, one can write."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from databases import DATABASES, database

from posttrain.store import queue
from posttrain.store.opening import Store, open_store
from posttrain.store.queue import LEASE_S, Claim, LeaseLost, claim, held
from posttrain.store.tables import Event, Job
from posttrain.types import UserError


@pytest.fixture(params=DATABASES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    with database(request.param) as url:
        found = open_store(tmp_path, url)
        yield found
        found.close()


def add(store: Store, name: str, organisation: str = "a", created_at: int = 0) -> None:
    with store.writing() as session:
        session.add(Job(id=name, organisation=organisation, created_at=created_at, status=queue.QUEUED, model="m", seed=0,
                        training_file="f", method={}, asked={}, result_files=[], token=0, last_step=0, lost=0))


def job(store: Store, name: str) -> Job:
    with store.reading() as session:
        return session.get_one(Job, name)


def test_a_job_is_claimed_once(store: Store) -> None:
    add(store, "one")
    found: list[Claim | None] = []
    threads = [threading.Thread(target=lambda: found.append(claim(store))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each for each in found if each] == [Claim("one", 1)]


def test_what_was_lost_can_write_nothing(store: Store) -> None:
    add(store, "one")
    first = claim(store, now=1000)
    assert first is not None and claim(store, now=1000 + LEASE_S - 1) is None
    with held(store, first, now=1010) as (session, row):  # renewed
        queue.tell(session, row, "first")
    assert claim(store, now=1000 + LEASE_S + 1) is None
    second = claim(store, now=1010 + LEASE_S + 1)
    assert second == Claim("one", 2)
    with pytest.raises(LeaseLost), held(store, first) as (session, row):
        queue.tell(session, row, "never")
    with held(store, second) as (session, row):
        queue.tell(session, row, "second")
        queue.end(row, queue.SUCCEEDED)
    with pytest.raises(LeaseLost), held(store, second):
        pass
    with store.reading() as session:
        assert [event.message for event in session.query(Event).order_by(Event.number)] == ["first", "second"]
    assert job(store, "one").status == "succeeded" and job(store, "one").finished_at and claim(store) is None


def test_a_job_that_kills_its_workers_is_given_up(store: Store) -> None:
    add(store, "deadly")
    for number in range(queue.MOST_LOST + 1):
        assert claim(store, now=1000 * number) == Claim("deadly", number + 1)
    assert claim(store, now=1e6) is None
    assert job(store, "deadly").status == "failed" and "workers died" in job(store, "deadly").error["message"]  # type: ignore[index]


def test_a_job_that_gets_further_is_not_given_up(store: Store) -> None:
    add(store, "slow")
    for number in range(3 * queue.MOST_LOST):
        mine = claim(store, now=1000 * number)
        assert mine is not None
        with held(store, mine, now=1000 * number) as (_, row):
            row.last_step, row.lost = number, 0


def test_nothing_is_kept_of_a_transaction_that_fails(store: Store) -> None:
    add(store, "one")
    mine = claim(store)
    assert mine is not None
    with pytest.raises(ZeroDivisionError), held(store, mine) as (session, row):
        queue.tell(session, row, "before it failed")
        queue.end(row, queue.SUCCEEDED)
        session.flush()
        raise ZeroDivisionError
    with store.reading() as session:
        assert not session.query(Event).count()
    assert job(store, "one").status == "running"


def test_organisations_take_turns(store: Store) -> None:
    for number in range(4):
        add(store, f"a{number}", "a", created_at=number)
    for number in range(2):
        add(store, f"b{number}", "b", created_at=100 + number)
    order = [found.job for _ in range(6) if (found := claim(store, now=1000))]
    assert order == ["a0", "b0", "a1", "b1", "a2", "a3"]


def test_writers_wait_for_one_another_and_readers_do_not(store: Store) -> None:
    add(store, "one")
    errors: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(20):
                with store.writing() as session:
                    row: Any = session.get(Job, "one", with_for_update=True)
                    row.last_step += 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    with store.writing() as session:
        session.add(Event(job="one", created_at=0, level="info", message="under way"))
        session.flush()
        assert job(store, "one").id == "one"
    for thread in threads:
        thread.join()
    assert not errors and job(store, "one").last_step == 120


def test_a_store_is_opened_again_and_brought_up_to_date_once(store: Store) -> None:
    add(store, "kept")
    url = store.engine.url.render_as_string(hide_password=False)
    found: list[Store] = []
    threads = [threading.Thread(target=lambda: found.append(open_store(store.folder, url))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [job(each, "kept").id for each in found] == ["kept"] * 3
    for each in found:
        each.close()


@pytest.mark.parametrize("url", ["nonsense", "postgresql+psycopg://u:p@127.0.0.1:9/none", "abc://x"])
def test_a_database_that_cannot_be_had(url: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot open the database") as refused:
        open_store(tmp_path, url)
    assert "--database" in refused.value.remedy and ":p@" not in str(refused.value)
