"""One service over the tiny model for the tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from service import Service, service


@pytest.fixture(scope="session")
def tiny_service(tiny_model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tiny_model_folder, tmp_path_factory.mktemp("service") / "data", "--deterministic") as found:
        yield found
