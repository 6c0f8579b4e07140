"""The tests that compare devices, as one more section: how many agree, and which do not."""

import re
import subprocess
import sys
import time
from pathlib import Path

import torch

from benchmarks.accelerator.measure import FAILED, MEASURED, Record

ROOT = Path(__file__).parent.parent.parent
NAME, SECTION = "tests that compare devices", "agreement"


def agreement(device: torch.device, seconds: float, *, tiny: bool) -> Record:
    """A record of how many tests passed, within `seconds`; what failed is named, and printed as pytest prints it.

    On a card all tests marked gpu. On a processor the same cases against another rounding; if tiny, the triggers'.
    """
    chosen = ["tests", "-m", "gpu"]
    if device.type != "cuda":
        chosen = ["tests/test_devices.py", "-m", "not gpu", *(["-k", "trigger"] if tiny else [])]
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider", *chosen]
    start = time.perf_counter()
    try:
        found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds)
        text, status = found.stdout + found.stderr, found.returncode
    except subprocess.TimeoutExpired:
        return record(f"the tests took more than their {seconds:g} s", 1)
    if status:
        print(text, flush=True)
    print(f"{time.perf_counter() - start:.0f} s", flush=True)
    return record(text, status)


def record(text: str, status: int) -> Record:
    """What pytest printed and its exit status, as a record: failed unless the status is 0 and a test has passed."""
    passed = re.search(r"(\d+) passed", text)
    count = int(passed[1]) if passed else 0
    if status == 0 and count:
        return Record(NAME, SECTION, count, "passed", count, "float32", status=MEASURED)
    failing = re.findall(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", text, re.MULTILINE)
    last = text.strip().splitlines()[-1] if text.strip() else "pytest printed nothing"
    reason = f"{last}: {', '.join(failing)}" if failing else last
    return Record(NAME, SECTION, None, "passed", count, "float32", status=FAILED, reason=reason)
