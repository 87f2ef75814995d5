"""What a run stands on: versions, the machine, and the memory it took."""

import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch


def environment() -> dict[str, Any]:
    """Versions and the machine, as plain values."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": version("transformers"),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "threads": torch.get_num_threads(),
    }


def reset_peak() -> None:
    """Let ``peak_rss_bytes`` count from here on, where the system can (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def peak_rss_bytes() -> int:
    """The most memory this process has had since ``reset_peak``, in bytes; since it began where that cannot be reset."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    # the module does not exist on Windows
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts in bytes, other systems in KiB.
    return int(peak) if sys.platform == "darwin" else int(peak) * 1024


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has had where its networks run, in bytes."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else peak_rss_bytes()


def _processor() -> str:
    table = Path("/proc/cpuinfo")
    if table.is_file():
        for line in table.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()
