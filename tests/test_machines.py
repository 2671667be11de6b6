"""What ``ppcls train`` makes of the addresses of several machines."""

import pytest

from ppcls.cli import main
from ppcls.errors import ConfigError
from ppcls.machines import GLOO_INTERFACE, PORT, Machines, read_machines


def test_the_own_address_is_found_or_given():
    """203.0.113.0/24 is reserved for documentation, so no machine has it."""
    assert read_machines("203.0.113.1, 127.0.0.1", None, PORT) == Machines(
        ("203.0.113.1", "127.0.0.1"), "127.0.0.1"
    )
    found = read_machines("203.0.113.1,203.0.113.2,203.0.113.3", "203.0.113.2", 4000)
    assert found.rank == 1
    assert found.options() == [
        *("--ips", "203.0.113.1,203.0.113.2,203.0.113.3", "--host", "203.0.113.2", "--start_port", "4000")
    ]


@pytest.mark.parametrize(
    ("ips", "host", "port", "message"),
    [
        ("node1,node2", None, PORT, "--ips: 'node1' is no IPv4 address; expected IPv4 addresses, separated"),
        ("203.0.113.1,", None, PORT, "--ips: '' is no IPv4 address"),
        ("203.0.113.1,203.0.113.1", None, PORT, "expected a different address for each machine"),
        (
            "203.0.113.1,203.0.113.2",
            None,
            PORT,
            "this machine has none of these addresses; name its address with --host",
        ),
        ("127.0.0.1,127.0.0.2", None, PORT, "this machine has 127.0.0.1, 127.0.0.2; name its address"),
        (
            "203.0.113.1,203.0.113.2",
            "203.0.113.3",
            PORT,
            "--host 203.0.113.3: expected one of --ips 203.0.113.1,203.0.113.2",
        ),
        ("203.0.113.1,203.0.113.2", "me", PORT, "--host: 'me' is no IPv4 address; expected one of --ips"),
        ("127.0.0.1", None, 80, "--port 80: expected a number from 1024 to 65000"),
        ("127.0.0.1", None, 70000, "--port 70000: expected"),
        ("127.0.0.1", None, -1, "--port -1: expected"),
    ],
)
def test_wrong_addresses_are_named(ips, host, port, message):
    with pytest.raises(ConfigError, match=message):
        read_machines(ips, host, port)


def test_gloo_uses_the_network_of_the_addresses():
    local = read_machines("127.0.0.1", None, PORT)
    assert local.variables({}) in ({GLOO_INTERFACE: "lo"}, {})
    assert local.variables({GLOO_INTERFACE: "eth7"}) == {}
    assert Machines(("203.0.113.1",), "203.0.113.1").variables({}) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--max-restart 3", "--max-restart needs --nproc, the number of processes on this machine"),
        ("--ips 127.0.0.1", "--ips needs --nproc"),
        ("--host 127.0.0.1", "--host needs --nproc"),
        ("--nproc 2 --host 127.0.0.1", "--host needs --ips, the addresses of all machines"),
        ("--nproc 2 --port 4000", "--port needs --ips"),
        ("--nproc 2 --max-restart -1", "--max-restart: expected 0 or more, got -1"),
        (
            "--nproc 2 --max-restart 3",
            "--max-restart needs --resume auto: a restarted run has to continue where",
        ),
        ("--nproc 2 --max_restart 3 --resume x", "--max-restart needs --resume auto, got x"),
    ],
)
def test_options_that_do_not_go_together_are_refused(recipe, write_recipe, capsys, options, message):
    assert main(["train", "-c", str(write_recipe(recipe)), *options.split()]) == 2
    assert f"ppcls: {message}" in capsys.readouterr().err
