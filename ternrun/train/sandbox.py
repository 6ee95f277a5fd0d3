"""Run generated Python in a process of its own, with limits on processor time, memory, files and processes.

Where Linux allows user namespaces the process has no network either, loopback included. This keeps accidents from doing
harm. It is no wall against malice: the child may read what its user may read. Hence nothing here runs unless the user
asks for it by a flag.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile

_LIMITS = """\
import resource, sys
cut = False
if sys.platform == "linux":
    import ctypes
    cut = ctypes.CDLL(None).unshare(0x10000000 | 0x40000000) == 0  # CLONE_NEWUSER, CLONE_NEWNET
for kind, limit in ((resource.RLIMIT_CPU, {seconds}), (resource.RLIMIT_AS, {memory}), (resource.RLIMIT_FSIZE, 0),
                    (resource.RLIMIT_NOFILE, 16), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(kind, (limit, limit))
sys.stdin.reconfigure(encoding="utf-8")
exec(compile(sys.stdin.read(), "generated", "exec"), {{"__name__": "__main__", "NETWORK_CUT": cut}})
"""


def succeeds(program: str, *, seconds: int = 5, memory: int = 512 << 20) -> bool:
    """Does the program end by itself, without an exception, within the limits? Its output goes nowhere."""
    limits = _LIMITS.format(seconds=seconds, memory=memory)
    with tempfile.TemporaryDirectory(prefix="ternrun-") as folder:
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", "-B", "-c", limits], input=program.encode("utf-8", "replace"),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, env={}, timeout=4 * seconds,
                start_new_session=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
    return done.returncode == 0


def network_is_cut() -> bool:
    """Does this machine let generated programs run without a network?"""
    return succeeds("assert NETWORK_CUT")
