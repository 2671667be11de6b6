"""The machines of a training that ``ppcls train --nproc`` starts on each of them."""

from __future__ import annotations

import ipaddress
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ppcls.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

PORT = 38714
GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"  # Paddle's variable; by default it takes the address of the host's name
_SIOCGIFADDR = 0x8915  # Linux: the address of a network interface


@dataclass(frozen=True)
class Machines:
    """Addresses of all machines, and which of them this one has.

    Attributes:
        addresses: one for each machine; the first one has process 0.
        own: the address of this machine.
        port: port of the first process of each machine; its other processes have the following ports.
    """

    addresses: tuple[str, ...]
    own: str
    port: int = PORT

    @property
    def rank(self) -> int:
        """Place of this machine among all."""
        return self.addresses.index(self.own)

    def options(self) -> list[str]:
        """Return the options for Paddle's launcher."""
        addresses = ",".join(self.addresses)
        return ["--ips", addresses, "--host", self.own, "--start_port", str(self.port)]

    def variables(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return variables that let gloo use the network of these addresses."""
        interface = None if GLOO_INTERFACE in environment else _interface(self.own)
        return {} if interface is None else {GLOO_INTERFACE: interface}


def read_machines(ips: str, host: str | None, port: int) -> Machines:
    """Read the options ``--ips``, ``--host`` and ``--port``.

    Raises:
        ConfigError: for addresses that are none, or if it is not clear which one this machine has.
    """
    addresses = tuple(text.strip() for text in ips.split(","))
    for address in addresses:
        _require_address(address, "--ips", "IPv4 addresses, separated by commas, such as 10.0.0.1,10.0.0.2")
    if len(set(addresses)) < len(addresses):
        raise ConfigError(f"--ips {ips}: expected a different address for each machine")
    if not 1024 <= port <= 65000:
        raise ConfigError(f"--port {port}: expected a number from 1024 to 65000")
    if host is not None:
        _require_address(host, "--host", "one of --ips")
        if host not in addresses:
            raise ConfigError(f"--host {host}: expected one of --ips {ips}")
        return Machines(addresses, host, port)
    own = [address for address in addresses if _is_own(address)]
    if len(own) != 1:
        found = f"has {', '.join(own)}" if own else "has none of these addresses"
        raise ConfigError(f"--ips {ips}: this machine {found}; name its address with --host")
    return Machines(addresses, own[0], port)


def _require_address(text: str, option: str, expected: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise ConfigError(f"{option}: {text!r} is no IPv4 address; expected {expected}") from None


def _is_own(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _interface(address: str) -> str | None:
    """Return the network interface that has an address; None if it cannot be found."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(probe, _SIOCGIFADDR, name.encode()[:15].ljust(256, b"\0"))
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return None
