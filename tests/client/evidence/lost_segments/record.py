"""Write recorded.json anew, from real kernels: see README.md."""

import json
from pathlib import Path

from integration.test_loss import CASES, drop_and_probe
from twocans_client.evidence.results import ProbeResult


def counters_of(result: ProbeResult) -> dict[str, dict[str, int | None]]:
    assert result.bye is not None
    named = {
        "connected": result.connected,
        "greeted": result.server_greeted,
        **result.bye._asdict(),
    }
    return {name: counters._asdict() for name, counters in named.items() if counters is not None}


def main() -> None:
    recorded = []
    for case in CASES:
        result, dropped = drop_and_probe(*case)
        kind, direction, _, step = case
        recorded.append(
            {
                "name": f"{kind} {direction} {step}",
                "kind": kind,
                "direction": direction,
                "dropped": dropped[kind],
                "counters": counters_of(result),
            }
        )
    text = json.dumps(recorded, indent=1)
    (Path(__file__).parent / "recorded.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
