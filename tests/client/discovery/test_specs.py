import pytest
from hypothesis import given
from hypothesis import strategies as st

from twocans_client.discovery.specs import Kind, Spec, Target, parse_spec
from twocans_client.evidence.results import Reason
from twocans_core.net.sockets import Address


@pytest.mark.parametrize(
    ("text", "host", "port", "kind"),
    [
        ("server", "server", 5000, Kind.ONE),
        ("server:7", "server", 7, Kind.ONE),
        ("192.0.2.1:65535", "192.0.2.1", 65_535, Kind.ONE),
        ("[2001:db8::1]:7", "2001:db8::1", 7, Kind.ONE),
        ("[2001:db8::1]", "2001:db8::1", 5000, Kind.ONE),
        ("[fe80::1%eth0]:7", "fe80::1%eth0", 7, Kind.ONE),
        ("dns:server.ns.svc:7", "server.ns.svc", 7, Kind.DNS),
        ("dns:server", "server", 5000, Kind.DNS),
        ("endpointslices:server:7", "server", 7, Kind.ENDPOINTSLICES),
    ],
)
def test_a_target_is_read_as_it_is_written(text, host, port, kind):
    assert parse_spec(text) == Spec(text, host, port, kind)


# fmt: off
NO_TARGETS = (
    "", ":5000", "server:", "server:0", "server:65536", "server:x", "a b:1", "a\n:1",
    "http://server:5000", "2001:db8::1", "[::1", "::1]:5", "dns:", "server:5000/x", "ä:1",
    "endpointslices:a.b:1", "endpointslices:192.0.2.1", "endpointslices:[::1]:1",
    "x" * 129, "[fe80::1]:5000", "dns:[fe80::1]:5000",
)
# fmt: on


@pytest.mark.parametrize("text", NO_TARGETS)
def test_what_is_no_target_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        parse_spec(text)


def test_the_refusal_says_what_to_write():
    with pytest.raises(ValueError, match=r"write HOST:PORT, \[IPV6\]:PORT, dns:NAME:PORT or endp"):
        parse_spec("http://server")


@given(st.text(max_size=200))
def test_any_text_is_a_target_or_is_refused(text):
    try:
        spec = parse_spec(text)
    except ValueError:
        return
    assert spec.text == text
    assert text.isascii()
    assert text.isprintable()
    assert 0 < spec.port < 65_536


def test_an_address_needs_no_look_up_and_a_name_does():
    assert parse_spec("[2001:0db8::1]:7").literal == Address("2001:db8::1", 7)
    assert parse_spec("server:7").literal is None


def test_addresses_of_a_dns_name_are_paths_of_their_own_and_else_the_text_is_the_path():
    one, two = (Address(host, 7) for host in ("192.0.2.1", "192.0.2.2"))
    every, single = parse_spec("dns:server:7"), parse_spec("server:7")
    assert len({Target(every, one).key, Target(every, two).key}) == 2
    assert len({Target(single, one).key, Target(single, two).key}) == 1
    assert Target(single, None, Reason.DNS_FAILURE).key == Target(single, one).key
