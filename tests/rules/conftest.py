import pytest

from needs import need


@pytest.fixture(scope="session")
def promtool() -> str:
    return need("promtool")
