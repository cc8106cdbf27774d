import pytest

from twocans_core.host.arrivals import NO_OWN_COUNTS, OwnReader

OWN_SNMP = """\
Ip: Forwarding InReceives ForwDatagrams InDelivers OutRequests ReasmReqds ReasmOKs
Ip: 1 1000 100 700 9 60 20
Tcp: RtoAlgorithm InCsumErrors
Tcp: 1 3
"""


def own_counts(snmp):
    counts = OwnReader(snmp)()
    return counts.csum_errors, counts.undelivered


def test_what_our_host_gave_to_nobody_is_what_came_less_what_became_of_it(tmp_path):
    (tmp_path / "snmp").write_text(OWN_SNMP)
    # Of 60 fragments 20 packets were made: 40 were not lost.
    assert own_counts(tmp_path / "snmp") == (3, 1000 - 100 - 700 - 40)


def test_what_never_left_is_what_was_made_less_what_did(tmp_path):
    # As on Linux 6.18, behind `iptables -A OUTPUT -j REJECT --reject-with tcp-reset`: the SYN is
    # not sent, and the reset that the rule makes is.
    (tmp_path / "snmp").write_text(
        "Ip: Forwarding ForwDatagrams OutRequests OutTransmits\nIp: 1 30 502 531\n"
    )
    assert OwnReader(tmp_path / "snmp")().unsent == 1
    (tmp_path / "snmp").write_text(OWN_SNMP)  # an older kernel
    assert OwnReader(tmp_path / "snmp")().unsent is None
    assert NO_OWN_COUNTS.unsent is None


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", (None, None)),
        (OWN_SNMP.replace("ReasmOKs", "ReasmOthers"), (3, None)),
        (OWN_SNMP.replace("InCsumErrors", "Others"), (None, 160)),
        (OWN_SNMP.replace("60 20", "60"), (3, None)),
    ],
)
def test_what_a_kernel_does_not_say_of_our_host_is_not_known(tmp_path, text, found):
    (tmp_path / "snmp").write_text(text)
    assert own_counts(tmp_path / "snmp") == found
    assert own_counts(tmp_path / "none") == (None, None)
    assert (NO_OWN_COUNTS.csum_errors, NO_OWN_COUNTS.undelivered) == (None, None)
