import subprocess
import sys

import pytest
from lab.ablated_client import ABLATIONS

# In a process of its own: what is taken away stays away.
PROGRAMS = {
    "server_stamps": """
from twocans_client.evidence.results import Exchange
from twocans_client.evidence.split import Stamps
full = Stamps(t1u=0, t1s=1, t1k=2, t2k=3, t2u=4, t3u=5, t3k=6, t4k=7, t4u=8)
def seen():
    one = Exchange.of(1, 8, full).completed(6, resent=False)
    return one.split is not None or one.user_split is not None
""",
    "conservation": """
from twocans_client.evidence.window import Window
from twocans_client.evidence.loss import Fates, Segments
from makers import good
def seen():
    window, segments = Window(), Segments(Fates(sent=9, lost=4), Fates(sent=9, lost=4))
    window.probed(good(), segments)
    window.counted(segments)
    return window.probes[0].segments is not None or not window.forward.is_quiet
""",
    "witness": """
from twocans_client.service.questions import Questions
def seen():
    try:
        Questions.look(None, 0, frozenset())
    except AttributeError:
        return True
    return False
""",
}


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_evidence_is_there_until_it_is_taken_away(ablation):
    program = f"""
import sys
sys.path[:0] = ["tests", "tests/client", "."]
{PROGRAMS[ablation]}
from lab.ablated_client import ABLATIONS
assert seen()
ABLATIONS[{ablation!r}]()
assert not seen()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
