"""What tests of engines share."""

from __future__ import annotations

import pytest

from posttrain.engines.torch.native import library


@pytest.fixture(params=["in C", "by torch"])
def either_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the functions in C, and without them."""
    if request.param == "by torch":
        monkeypatch.setattr(library, "library", lambda: None)
    elif library.library() is None:
        pytest.skip("no C compiler, or a processor without AVX-512")
