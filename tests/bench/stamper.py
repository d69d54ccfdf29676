"""A program that stamps messages at an intended rate, open loop: `python stamper.py SERVICE RATE SECONDS FIRST_ID`.

Each message is stamped at four points by one thread; the rate is in stamps per second. Prints one JSON line: how many
it stamped, how late it was behind its intended times, and its CPU time.
"""

from __future__ import annotations

import json
import sys
import time

import tailsight_probe as probe

POINTS = ("app_ingress", "app_transform", "app_decision", "app_egress")


def main(service: str, rate: float, seconds: float, first: int) -> None:
    """Stamp `rate * seconds` stamps in ticks of one millisecond."""
    probe.init(service=service, capacity=1 << 20)
    points = [probe.point(name, space="order") for name in POINTS]
    stamp = probe.stamp
    per_tick = rate / 1000 / len(POINTS)
    start = time.perf_counter()
    done, worst = 0, 0.0
    for tick in range(int(seconds * 1000)):
        due = start + tick / 1000
        now = time.perf_counter()
        if now < due:
            time.sleep(due - now)
        else:
            worst = max(worst, now - due)
        target = int((tick + 1) * per_tick)
        for message in range(first + done, first + target):
            for point in points:
                stamp(point, message)
        done = target
    spent = time.perf_counter() - start
    json.dump(
        {
            "stamps": done * len(POINTS),
            "seconds": spent,
            "worst_lag_s": worst,
            "cpu_s": time.process_time(),
            "probe": str(probe.stats()),
        },
        sys.stdout,
    )
    sys.stdout.write("\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
