"""Running generated Python in a separate process with limits on CPU time, memory, files and processes.

If Linux allows user namespaces, the process has no network, loopback included. If the caller is root, the process runs
as nobody, because the limit on processes does not apply to root. This prevents accidents, not attacks: the process can
read everything that its user can read. Callers must run nothing here unless the user asked for it with a flag.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile

_DONE = 93  # exit code after the program's last line; a program that exits earlier has another one
_CHILD = """\
import os, resource, sys
cut = False
if sys.platform == "linux":
    import ctypes
    libc, root = ctypes.CDLL(None), os.geteuid() == 0
    cut = libc.unshare(0x40000000 | (0 if root else 0x10000000)) == 0  # CLONE_NEWNET, with CLONE_NEWUSER to be allowed
    if root:
        libc.prctl(8, 1, 0, 0, 0)  # PR_SET_KEEPCAPS; only reading is kept: the interpreter may belong to root
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(4, 4))  # CAP_DAC_READ_SEARCH
for kind, limit in ((resource.RLIMIT_CPU, {seconds}), (resource.RLIMIT_AS, {memory}), (resource.RLIMIT_FSIZE, 0),
                    (resource.RLIMIT_NOFILE, 16), (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(kind, (limit, limit))
sys.stdin.reconfigure(encoding="utf-8")
exec(compile(sys.stdin.read(), "generated", "exec"), {{"__name__": "__main__", "NETWORK_CUT": cut}})
os._exit({done})
"""


def succeeds(program: str, *, seconds: int = 5, memory: int = 512 << 20) -> bool:
    """Whether the program runs to its last line within the limits. All its processes are killed."""
    child = _CHILD.format(seconds=seconds, memory=memory, done=_DONE)
    with tempfile.TemporaryDirectory(prefix="ternrun-") as folder:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", child], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd=folder, env={}, start_new_session=True,
        )  # fmt: skip
        try:
            process.communicate(program.encode("utf-8", "replace"), timeout=4 * seconds)
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its children are in its group
            process.wait()
    return process.returncode == _DONE


def network_is_cut() -> bool:
    """Whether generated programs run without network on this machine."""
    return succeeds("assert NETWORK_CUT")
