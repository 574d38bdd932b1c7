"""Shutting the present process off from the network, for good, before it runs code that is not onnxviz's.

On Linux the kernel does it: the process moves into a network namespace of its own, which is empty, and what it starts
lives there too. That needs either the right to make one or unprivileged user namespaces. Everywhere, and also where
neither is allowed, an audit hook refuses what Python's sockets are asked for (PEP 578); native code and programs that
the process starts are beyond it. Sockets in the file system (AF_UNIX) stay open: processes of one program talk through
them. This keeps code that was trusted from doing more than it should; it is no wall against code that attacks it.

This module imports nothing but the standard library: the kernel grants a user namespace only to a process with a
single thread, and numpy starts more.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import signal
import socket
import sys
from pathlib import Path
from typing import Any

__all__ = ["call_confined", "confine", "refused"]

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000  # sched.h
_SET_PARENT_DEATH_SIGNAL, _SET_NO_NEW_PRIVILEGES = 1, 38  # prctl.h
_SOCKET_CALLS = frozenset(("socket.bind", "socket.connect", "socket.sendmsg", "socket.sendto"))
_LOOKUPS = frozenset(
    ("socket.getaddrinfo", "socket.gethostbyaddr", "socket.gethostbyname", "socket.getnameinfo")
)  # fmt: skip
_LOCAL = ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "")
_refused: list[str] = []  # the process is confined for good, and so is this


def confine(*, namespace: bool = True) -> str:
    """Shut this process off from the network; it also ends when its parent does (Linux).

    Args:
        namespace: Ask the kernel too, and not only Python.

    Returns:
        ``"network namespace"`` where the kernel does it, else ``"audit hook"``.
    """
    kernel = namespace and sys.platform == "linux" and _leave_network()
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl
        prctl(_SET_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
        prctl(_SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)  # no way back through a setuid program
    with contextlib.suppress(ImportError, ValueError, OSError):  # Windows has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file in the user's folder
    sys.addaudithook(_refuse)
    return "network namespace" if kernel else "audit hook"


def call_confined(function: str, arguments: bytes, *, namespace: bool = True) -> tuple[str, Any]:
    """Confine this process, then import ``module:function`` and call it.

    Args:
        function: What to call, by name: importing it may start threads, and must come after.
        arguments: The pickled positional arguments, for the same reason.
        namespace: As for :func:`confine`.

    Returns:
        What :func:`confine` and the function returned.
    """
    isolation = confine(namespace=namespace)
    module, _, name = function.partition(":")
    return isolation, getattr(importlib.import_module(module), name)(*pickle.loads(arguments))


def refused() -> tuple[str, ...]:
    """Return what of the outside this process has asked for in vain, such as ``"example.org:443"``, in order."""
    return tuple(_refused)


def _leave_network() -> bool:
    """Move into an empty network namespace; in a user namespace, where the user stays himself, if need be."""
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "unshare"):
        return False
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_NET) == 0:
        return True
    if libc.unshare(_NEW_USER | _NEW_NET) != 0:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with contextlib.suppress(OSError):  # without, the user has no name, but the same rights
            Path(f"/proc/self/{name}").write_text(text)
    return True


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event in _SOCKET_CALLS:
        unix = getattr(socket, "AF_UNIX", None)
        if (unix is not None and args[0].family == unix) or args[1] is None:
            return
        what = args[1]
    elif event in _LOOKUPS:
        what = args[:2] if event == "socket.getaddrinfo" else args[0]
    else:
        return
    host, port = (*what, None)[:2] if isinstance(what, tuple) and what else (what, None)
    host = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
    shown = f"{host}:{port}" if port is not None else host
    if host not in _LOCAL and shown not in _refused:
        _refused.append(shown)
    # PermissionError is what programs expect of a network that is closed to them, and many go on without.
    raise PermissionError(f"code run with --trust may not use the network (it asked for {shown or 'a socket'})")
