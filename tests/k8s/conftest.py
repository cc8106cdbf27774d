import pytest

from needs import need


@pytest.fixture(autouse=True)
def _kubectl() -> None:
    need("kubectl")
