"""A lost process or machine: the launcher starts the processes again, and the run continues by itself."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
from support import tiny_recipe

from ppcls.engine.checkpoint.lock import lock_path

pytestmark = [pytest.mark.dist, pytest.mark.slow]
LONGEST = 60  # seconds in which the loss has to be noticed
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("PADDLE", "CUDA", "GLOO"))}


@pytest.fixture
def recipe_file(image_folder, tmp_path):
    recipe = tiny_recipe(image_folder, tmp_path / "output")
    recipe["Global"] |= {"epochs": 60, "save_steps": 1, "keep_last": 1, "eval_interval": 60, "report": False}
    recipe["DataLoader"]["Train"]["sampler"]["batch_size"] = 3
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path


class Machine:
    """``ppcls train --nproc`` on one machine; what it prints goes into a file."""

    def __init__(self, recipe, output, *options, inside=()):
        self.output = output
        command = [*inside, sys.executable, "-m", "ppcls", "train", "-c", str(recipe), "--resume", "auto"]
        with output.open("ab") as stream:
            self.process = subprocess.Popen(
                [*command, "--max-restart", "9", *options],
                env=ENVIRONMENT,
                stdout=stream,
                stderr=subprocess.STDOUT,
            )

    def printed(self):
        return self.output.read_text(errors="replace")

    def wait_for(self, pattern, seconds):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.printed()):
            assert time.monotonic() < end, f"not found in {seconds} s: {pattern}\n{self.printed()[-3000:]}"
            time.sleep(0.1)

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(20)


@pytest.fixture
def machines():
    started = []
    yield started
    for machine in started:
        machine.end()


def finished(folder):
    return json.loads((folder / "latest.pdstates").read_text())


def test_a_killed_process_is_started_again(recipe_file, tmp_path, machines):
    machine = Machine(recipe_file, tmp_path / "printed", "--nproc", "2")
    machines.append(machine)
    machine.wait_for("Epoch 4/60", 120)
    folder = tmp_path / "output/resnet8"
    os.kill(json.loads(lock_path(folder).read_text())["pid"], signal.SIGKILL)
    machine.wait_for("restart 1 of 9", LONGEST)
    machine.wait_for(r"resumed .*/latest: epoch \d+ ", 120)
    assert machine.process.wait(120) == 0, machine.printed()
    state = finished(folder)
    assert state["finished"]
    assert state["step"] == 120
    steps = [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert sorted(set(steps)) == list(range(1, 121))


def network_namespaces():
    """Make two namespaces with a link between them; return their names, or None without permission."""
    names = [f"ppcls{os.getpid()}{letter}" for letter in "ab"]
    first, second = names
    commands = [
        *(f"netns add {name}" for name in names),
        f"link add name {first} type veth peer name {second}",
        *(f"link set {name} netns {name}" for name in names),
        *(f"-n {name} addr add 10.77.0.{number}/24 dev {name}" for number, name in enumerate(names, 1)),
        *(f"-n {name} link set {device} up" for name in names for device in ("lo", name)),
    ]
    try:
        for command in commands:
            subprocess.run(["ip", *command.split()], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        remove(names)
        return None
    return names


def remove(names):
    for name in names:
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@pytest.fixture
def places():
    """Return address and command prefix of two machines: network namespaces, or two local addresses."""
    names = network_namespaces() if os.path.exists("/usr/sbin/ip") or os.path.exists("/sbin/ip") else None
    if names is None:
        yield [("127.0.0.1", ()), ("127.0.0.2", ())]
        return
    yield [(f"10.77.0.{n}", ("ip", "netns", "exec", name)) for n, name in enumerate(names, 1)]
    remove(names)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_machine_comes_back(recipe_file, tmp_path, machines, places, lost):
    """Its launcher is killed, with it its processes; the other notices, waits, and both continue."""
    addresses = ",".join(address for address, _ in places)

    def start(number):
        address, inside = places[number]
        options = ["--nproc", "1", "--ips", addresses, "--host", address]
        return Machine(recipe_file, tmp_path / f"printed.{number}", *options, inside=inside)

    machines += [start(0), start(1)]
    machines[0].wait_for("Epoch 4/60", 180)
    machines[lost].end()
    other = machines[1 - lost]
    other.wait_for("restart 1 of 9", LONGEST)
    machines.append(start(lost))
    assert other.process.wait(240) == 0, other.printed()
    assert machines[-1].process.wait(60) == 0, machines[-1].printed()
    assert re.search(r"resumed .*/latest: epoch \d+ ", machines[0].printed())
    state = finished(tmp_path / "output/resnet8")
    assert state["finished"]
    assert state["step"] == 120


def test_a_machine_that_cannot_be_reached_is_noticed_by_both(recipe_file, tmp_path, machines, places):
    if not places[0][1]:
        pytest.skip("needs permission to make network namespaces")
    addresses = ",".join(address for address, _ in places)
    for number, (address, inside) in enumerate(places):
        options = ["--nproc", "1", "--ips", addresses, "--host", address]
        machines.append(Machine(recipe_file, tmp_path / f"printed.{number}", *options, inside=inside))
    machines[0].wait_for("Epoch 4/60", 180)
    name = places[1][1][-1]
    subprocess.run(["ip", "-n", name, "link", "set", name, "down"], check=True)
    end = time.monotonic() + LONGEST
    for machine in machines:
        machine.wait_for("restart 1 of 9", end - time.monotonic())
    subprocess.run(["ip", "-n", name, "link", "set", name, "up"], check=True)
    for machine in machines:
        assert machine.process.wait(240) == 0, machine.printed()
    assert finished(tmp_path / "output/resnet8")["step"] == 120
