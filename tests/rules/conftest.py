import os
import shutil

import pytest


@pytest.fixture(scope="session")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if os.environ.get("TWOCANS_REQUIRE_DOCKER") == "1":
            pytest.fail("there is no promtool here, and TWOCANS_REQUIRE_DOCKER=1", pytrace=False)
        pytest.skip("there is no promtool here")
    return found
