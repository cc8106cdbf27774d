import pytest

from twocans_core.errors import LocalProtocolError, RemoteProtocolError


@pytest.mark.parametrize("kind", [LocalProtocolError, RemoteProtocolError])
def test_a_protocol_error_is_its_reason_and_a_detail_for_people(kind):
    error = kind("too_big", "9 > 8 bytes")
    assert (str(error), error.reason, error.detail) == (
        "too_big: 9 > 8 bytes",
        "too_big",
        "9 > 8 bytes",
    )
    assert str(kind("too_big")) == "too_big"
