"""A process that has no network: by the kernel, by Python, and for a user without rights."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from onnxviz.runtime import confine as confine_module
from onnxviz.runtime.confine import call_confined
from onnxviz.runtime.isolated import isolated

ADDRESS = ("192.0.2.1", 80)  # for documentation: nobody has it (RFC 5737)
linux = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")


def ask(how: str) -> str:
    """Ask for the network and say what came of it."""
    try:
        if how == "lookup":
            socket.getaddrinfo("example.org", 443)
        elif how == "connect":
            with socket.socket() as stream:
                stream.connect(ADDRESS)
        elif how == "bind":
            with socket.socket() as stream:
                stream.bind(("", 0))
        else:
            with socket.socket(type=socket.SOCK_DGRAM) as packets:
                packets.sendto(b"x", ADDRESS)
    except OSError as error:
        return f"{type(error).__name__}: {error}"
    return "done"


def ask_all() -> dict[str, str]:
    return {how: ask(how) for how in ("lookup", "connect", "bind", "send")}


def interfaces() -> list[str]:
    """The network interfaces of this process, which python's sockets are not needed for."""
    lines = Path("/proc/self/net/dev").read_text().splitlines()[2:]
    return [line.split(":")[0].strip() for line in lines]


def talk_in_the_file_system() -> bytes:
    first, second = socket.socketpair()
    with first, second:
        first.sendall(b"hello")
        return second.recv(5)


def called(function: str, *, namespace: bool = True) -> tuple[str, object]:
    return isolated(call_confined, f"{__name__}:{function}", pickle.dumps(()), namespace=namespace)


def test_python_sockets_are_refused_with_what_they_asked_for() -> None:
    for namespace in (True, False):
        _, answers = called("ask_all", namespace=namespace)
        assert answers == {
            how: f"PermissionError: code run with --trust may not use the network (it asked for {what})"
            for how, what in {
                "lookup": "example.org:443", "connect": "192.0.2.1:80", "bind": ":0", "send": "192.0.2.1:80",
            }.items()
        }  # fmt: skip


def what_was_refused() -> tuple[str, ...]:
    for how in ("bind", "connect", "lookup", "connect"):
        ask(how)
    return confine_module.refused()


def test_what_was_asked_of_the_outside_is_kept() -> None:
    assert called("what_was_refused", namespace=False) == ("audit hook", ("192.0.2.1:80", "example.org:443"))


def test_local_sockets_stay() -> None:
    assert called("talk_in_the_file_system")[1] == b"hello"


@linux
def test_the_kernel_takes_the_network_away_where_it_may() -> None:
    isolation, names = called("interfaces")
    if isolation != "network namespace":
        pytest.skip("this machine allows no namespaces")
    assert "lo" in names  # type: ignore[operator]
    assert not {"eth0", "ens3", "wlan0"} & set(names)  # type: ignore[call-overload]
    planted, here = called("interfaces", namespace=False)
    assert planted == "audit hook"
    assert here == interfaces(), "without the namespace, the process sees what this one sees"


@linux
def test_a_user_without_rights_stays_himself() -> None:
    if os.getuid() != 0:
        pytest.skip("the other tests ran as such a user")
    source = Path(confine_module.__file__).read_text()
    code = f"import sys, types\nm = types.ModuleType('m')\nexec({source!r}, m.__dict__)\n" + (
        "import os\nbefore = os.getuid(), os.getgid()\nprint(m.confine(), (os.getuid(), os.getgid()) == before)"
    )
    interpreter = next((p for p in ("/usr/bin/python3", sys.executable) if Path(p).exists()), sys.executable)
    try:
        done = subprocess.run(
            [interpreter, "-I", "-c", code], user=65534, group=65534, extra_groups=[], cwd="/", text=True,
            capture_output=True, check=False,
        )  # fmt: skip
    except PermissionError:
        pytest.skip("another user cannot start this interpreter")
    if "audit hook" in done.stdout:
        pytest.skip("this machine allows no user namespaces")
    assert done.stdout == "network namespace True\n", done.stderr
