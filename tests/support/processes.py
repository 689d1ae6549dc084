"""Command lines, environments and listening addresses of processes, from /proc."""

from __future__ import annotations

import ipaddress
import struct
from pathlib import Path

PROC = Path("/proc")


def below(process: int) -> dict[int, str]:
    """Return a process and its descendants, with their command lines."""
    parents: dict[int, int] = {}
    for folder in PROC.iterdir():
        try:
            if folder.name.isdecimal():
                parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    family = [process]
    for member in family:
        family += [child for child, parent in parents.items() if parent == member]
    return {member: _command(member) for member in family}


def listening(processes: dict[int, str]) -> set[str]:
    """Return the addresses on which the processes listen."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in (PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A":  # state LISTEN
                sockets[f"socket:[{fields[9]}]"] = _address(fields[1].partition(":")[0])
    return {sockets[target] for process in processes for target in _open(process) if target in sockets}


def variable(process: int, name: str) -> str:
    """Return a variable of a process's initial environment; empty if unset."""
    try:
        lines = (PROC / str(process) / "environ").read_bytes().split(b"\0")
    except OSError:
        lines = []
    return next((line.partition(b"=")[2].decode() for line in lines if line.startswith(f"{name}=".encode())), "")


def _address(text: str) -> str:
    """Parse an address of /proc/net: words of 32 bits in host byte order."""
    words = [int(text[place : place + 8], 16) for place in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    return str(getattr(address, "ipv4_mapped", None) or address)


def _open(process: int) -> list[str]:
    try:
        return [str(link.readlink()) for link in (PROC / str(process) / "fd").iterdir()]
    except OSError:  # it has ended
        return []


def _command(process: int) -> str:
    try:
        return (PROC / str(process) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
