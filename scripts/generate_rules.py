"""Write k8s/components/alerts/prometheusrule.yaml from Prometheus' own rules file.

python -m scripts.generate_rules           write it
python -m scripts.generate_rules --check   exit 1 when it is stale

Kustomize cannot do this: it can put a file into a field as a string, and not as a structure.
"""

from collections.abc import Sequence
from pathlib import Path

from scripts.generated import write_or_check

_ROOT = Path(__file__).parent.parent
SOURCE = _ROOT / "observability/prometheus/rules/twocans.yml"
TARGET = _ROOT / "k8s/components/alerts/prometheusrule.yaml"

_HEAD = """\
# Made by scripts/generate_rules.py from observability/prometheus/rules/twocans.yml. Edit that.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: twocans
  labels:
    app.kubernetes.io/part-of: twocans
spec:
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check; returns the exit code."""
    return write_or_check({TARGET: prometheus_rule}, __doc__, arguments)


def prometheus_rule() -> str:
    """Return the resource: the rules file as it stands, indented below ``spec``."""
    lines = SOURCE.read_text().splitlines()
    return _HEAD + "".join(f"  {line}\n" if line else "\n" for line in lines)


if __name__ == "__main__":
    raise SystemExit(main())
