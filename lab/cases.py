"""Every case of the lab, by name."""

from .case import Case, Drawn, Expected, Truth, nothing
from .faults import buffers, delivery, healthy, hosts, middleboxes, names, setup
from .faults.doubles import together

__all__ = ["CASES", "Case", "Drawn", "Expected", "Truth", "nothing"]

_FAMILIES = (setup, names, delivery, middleboxes, hosts, buffers, healthy)
_SINGLE = {case.name: case for family in _FAMILIES for case in family.CASES}
_TOGETHER = (
    ("loss_forward", "cpu_throttled_server"),
    ("mtu_blackhole_forward", "dns_slow"),
    ("path_subset_loss_forward", "loss_reverse"),
    ("delay_increase_reverse", "loss_forward"),
    ("bufferbloat_forward", "slow_app"),
    ("idle_timeout_silent", "loss_reverse"),
    ("dns_slow", "process_paused_server"),
)

CASES = _SINGLE | {
    case.name: case
    for case in (together(_SINGLE[first], _SINGLE[second]) for first, second in _TOGETHER)
}
