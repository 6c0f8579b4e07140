"""What a process has used so far: memory and CPU time, as the system tells it."""

from pathlib import Path

import psutil


def resident_peak(pid: int) -> int:
    """Largest resident memory in bytes that the process ever had, where the system says so; else what it has now."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, IndexError):
        pass
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def cpu_seconds(process: psutil.Process) -> float:
    """CPU seconds of a process and of its children that have ended; 0 if it is gone."""
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system + times.children_user + times.children_system)
