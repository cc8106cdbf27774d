from collections.abc import Iterator

import pytest

from core.net.ends import LOOPBACKS, Pair


@pytest.fixture(params=LOOPBACKS)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    pair = Pair(request.param)
    yield pair
    pair.close()
