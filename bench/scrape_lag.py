"""What a scrape does to the loop: 10 and 500 paths, probed once a second each, scraped ten times.

The client runs here, the server and the scraper in processes of their own. Lag is of the
client's loop, by a heartbeat of its own; the yardstick is the same time without a scrape.
"""

import asyncio
import statistics
import sys

from server_speed import twocans_server

from twocans_client.config import ClientConfig
from twocans_client.service.client import Client
from twocans_core.clock import SYSTEM_CLOCK
from twocans_core.host.lag import LagMonitor

PATHS = (10, 500)
SCRAPES = 10
# The page stays in the scraper: a megabyte read by the loop under test would be measured as well.
SCRAPE = """
import re, sys, urllib.request
for _ in sys.stdin:
    page = urllib.request.urlopen(sys.argv[1]).read().decode()
    series = sum(not line.startswith("#") for line in page.splitlines())
    took = re.search(r"^twocans_client_scrape_render_seconds (\\S+)$", page, re.MULTILINE)[1]
    print(series, took, flush=True)
"""


def main() -> None:
    """Measure and print."""
    sys.setswitchinterval(0.0001)  # as the command `run` has it
    with twocans_server() as (_, port):
        for paths in PATHS:
            asyncio.run(scrape(port, paths))


async def scrape(port: int, paths: int) -> None:
    """Probe so many paths, with and without scrapes."""
    targets = tuple(f"127.0.{n // 200}.{n % 200 + 1}:{port}" for n in range(paths))
    client = Client(ClientConfig(targets=targets, http_host="127.0.0.1", http_port=0))
    client.start()
    lag = LagMonitor()
    lag.attend()
    lag.start()
    url = f"http://{client.http_address}/metrics"
    scraper = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", SCRAPE, url),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert scraper.stdin is not None
    assert scraper.stdout is not None
    await asyncio.sleep(3)
    quiet, scraped, rendered_s = [], [], []
    series = b""
    for _ in range(SCRAPES):
        begun_ns = SYSTEM_CLOCK.mono_ns()
        scraper.stdin.write(b"\n")
        series, previous_s = (await scraper.stdout.readline()).split()
        took_s = (SYSTEM_CLOCK.mono_ns() - begun_ns) / 1e9
        scraped.append(lag.worst_since(begun_ns))
        rendered_s.append(float(previous_s))
        await asyncio.sleep(0.2)
        begun_ns = SYSTEM_CLOCK.mono_ns()
        await asyncio.sleep(took_s)
        quiet.append(lag.worst_since(begun_ns))
    scraper.stdin.close()
    await scraper.wait()
    await client.stop()
    print(f"{paths} paths, one probe a second each, {int(series):,} series on a page")
    print(f"  one scrape rendered in {statistics.median(rendered_s[1:]) * 1e3:.1f} ms")
    print("  worst lag of the loop    median       max")
    for name, lags in (("without a scrape", quiet), ("during a scrape", scraped)):
        row = f"{statistics.median(lags) / 1e6:>7.2f} ms{max(lags) / 1e6:>7.2f} ms"
        print(f"  {name:20}{row}")
    print(f"  probes that failed: {client.totals['fail']}")


if __name__ == "__main__":
    main()
