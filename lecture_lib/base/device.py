"""The device that a chapter runs on, and a line that says which."""

import os
import platform
import warnings
from pathlib import Path

import torch


def choose_device() -> torch.device:
    """CUDA if there is one, else Apple's MPS, else the CPU."""
    if cuda_works():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def cuda_works() -> bool:
    """Whether torch can compute with CUDA; without torch's warning where the driver is too old for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.is_available()


def describe_device(device: torch.device) -> str:
    """A readable name for the device, e.g. `cpu (x86_64, 2 threads)`."""
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "mps":
        return "mps (Apple GPU)"
    threads = torch.get_num_threads()
    return f"cpu ({platform.machine()}, {threads} thread{'s' * (threads > 1)})"


def describe_machine() -> str:
    """Processor, cores and torch's version, to be stored with a recorded number."""
    return f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}"


def processor() -> str:
    """The processor's name as Linux reports it; elsewhere, its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
