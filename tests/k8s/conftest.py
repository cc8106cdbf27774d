import pytest

from k8s.manifests import need


@pytest.fixture(autouse=True)
def _kubectl() -> None:
    need("kubectl")
