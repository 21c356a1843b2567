"""A kernel's environment: this interpreter and none of the user's settings, whatever is installed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from ipykernel.kernelspec import write_kernel_spec

NAME = "python3"  # of the kernel that every notebook of the course asks for
# What would change an output or a check: colours, another way to draw, assertions off, warnings on.
LEAKING = (
    "CLICOLOR_FORCE", "FORCE_COLOR", "MPLBACKEND", "PYTHONIOENCODING", "PYTHONOPTIMIZE", "PYTHONSTARTUP",
    "PYTHONWARNINGS", "PY_COLORS",
)  # fmt: skip


@contextmanager
def own_kernels(isolated: bool = True) -> Iterator[None]:
    """While the block runs, every new kernel uses this interpreter, whatever python3 means elsewhere.

    `isolated` kernels see neither the user's IPython profile nor variables that would change their outputs.
    """
    before = dict(os.environ)
    with TemporaryDirectory(prefix="lecture-kernels-") as folder:
        write_kernel_spec(Path(folder) / "kernels" / NAME)
        others = [] if isolated else [path for path in [before.get("JUPYTER_PATH")] if path]
        os.environ["JUPYTER_PATH"] = os.pathsep.join([folder, *others])  # is looked at before all else
        if isolated:
            for name in LEAKING:
                os.environ.pop(name, None)
            os.environ |= {"IPYTHONDIR": str(Path(folder) / "ipython"), "PYTHONUTF8": "1"}
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
