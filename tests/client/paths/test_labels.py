from twocans_client.discovery.specs import Target, Who, parse_spec
from twocans_client.paths.labels import Labels
from twocans_client.paths.path import Path
from twocans_core.net.sockets import Address


def path(server: str = "", node: str = "", text: str = "dns:x", host: str = "192.0.2.1") -> Path:
    made = Path(Target(parse_spec(text), Address(host, 5000)), drain_grace_ns=0)
    made.responder.expect(Who(server, node), 0)
    return made


def given(labels: Labels, *paths: Path) -> list[str]:
    for one in paths:
        labels.give(one)
    return [one.label for one in paths]


def test_a_path_is_called_as_its_server_and_before_it_answers_as_its_node():
    named, of_node = path("web", "node-1"), path(node="node-2")
    assert given(Labels(), named, of_node) == ["web", "node-2"]


def test_of_one_that_never_answered_the_label_is_the_configured_host_and_no_address():
    both = (path(text="dns:web.example:5000"), path(text="dns:web.example:5000", host="192.0.2.9"))
    assert given(Labels(), *both) == ["web.example", "web.example#2"]
    assert given(Labels(), path(text="web.example:5000")) == ["web.example"]
    assert given(Labels(), path(text="endpointslices:web:5000")) == ["web"]


def test_two_of_one_target_and_family_are_numbered():
    labels = Labels()
    assert given(labels, path("web"), path("web"), path("web")) == ["web", "web#2", "web#3"]
    others = (path("web", text="dns:y"), path("web", host="2001:db8::1"))
    assert given(labels, *others) == ["web", "web"]


def test_a_name_that_is_free_again_is_given_again():
    labels = Labels()
    first, second = path("web"), path("web")
    given(labels, first, second)
    labels.take(first)
    labels.take(first)
    assert given(labels, path("web")) == ["web"]
    assert second.label == "web#2"


def test_a_path_that_is_named_anew_frees_its_former_name():
    labels = Labels()
    unknown = path(node="node-1")
    labels.give(unknown)
    unknown.responder.name(Who("web", "node-1"), 0)
    labels.give(unknown)
    assert unknown.label == "web"
    assert given(labels, path(node="node-1")) == ["node-1"]


def test_a_name_that_another_has_is_not_freed_with_ours():
    labels = Labels()
    first, never_named = path("web"), path("web")
    labels.give(first)
    never_named.label = "web"
    labels.take(never_named)
    assert given(labels, path("web")) == ["web#2"]


def test_a_path_whose_address_changes_its_family_frees_the_name_it_had():
    labels = Labels()
    moved = path("web")
    labels.give(moved)
    moved.target = moved.target._replace(address=Address("2001:db8::1", 5000))
    labels.take(moved)
    assert given(labels, path("web"), path("web", host="2001:db8::1")) == ["web", "web"]
