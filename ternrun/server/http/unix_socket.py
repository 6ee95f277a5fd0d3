"""A unix socket in the file system, and the rules for replacing and removing its file."""

from __future__ import annotations

import errno
import socket
from pathlib import Path

from ternrun.errors import UsageError

PATIENCE = 1.0  # seconds that a server may take to accept a connection


class UnixSocket:
    """A socket that listens at a path. It replaces only a file that a killed server left behind.

    Raises UsageError if a server listens there or the file is not a socket, OSError if it cannot listen.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._listen()
        except BaseException:
            self.socket.close()
            raise
        self._own = self._file()

    def remove(self) -> None:
        """Remove the file unless it belongs to another server by now. A second call does nothing.

        Call it while the socket is open: a newer file cannot have the inode number of an open one.
        """
        if self._own is not None and self._file() == self._own:
            self._path.unlink(missing_ok=True)
        self._own = None

    def _listen(self) -> None:
        try:
            self.socket.bind(str(self._path))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            self._refuse_foreign()
            self._path.unlink(missing_ok=True)
            self.socket.bind(str(self._path))
        self.socket.listen()

    def _refuse_foreign(self) -> None:
        """Raise UsageError unless the file is a socket without a listener."""
        if not self._path.is_socket():
            raise UsageError(f"{self._path} exists and is no socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(PATIENCE)
            try:
                probe.connect(str(self._path))
            except (ConnectionRefusedError, FileNotFoundError):
                return
            except PermissionError:
                raise
            except OSError:  # it is busy, or of another kind
                pass
        raise UsageError(f"{self._path} is in use by another server: stop that one, or choose another --unix-socket")

    def _file(self) -> tuple[int, int] | None:
        try:
            found = self._path.lstat()
        except OSError:
            return None
        return found.st_dev, found.st_ino
