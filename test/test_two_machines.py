"""The DDS profile for two machines: what must agree with the other one, and drawn targets by the network alone."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import test_transport

from genima import paths
from genima_bringup.supervisor import ros_environment

TILES = 30
NAME = "{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}"


def profile(name: str) -> ET.Element:
    return ET.parse(paths.shared("config", "dds", f"{name}.xml")).getroot()


def test_memory_is_shared_as_on_one_machine() -> None:
    """Processes of one machine find each other by either profile's shared memory alone."""
    one, two = (profile(name).find(f".//{NAME}transport_descriptor") for name in ("shared_memory", "two_machines"))
    assert one is not None and two is not None
    assert [(e.tag, e.text) for e in one] == [(e.tag, e.text) for e in two]


def test_the_network_is_added() -> None:
    transports = [element.text for element in profile("two_machines").findall(f".//{NAME}userTransports/*")]
    assert transports == ["shared_memory", "network"]
    assert int(profile("two_machines").findtext(f".//{NAME}receiveBufferSize") or 0) > 4 * 512 * 512 * 3


def test_drawn_targets_come_by_the_network(tmp_path: Path) -> None:
    """As between machines, where no memory is shared. What comes is whole; on a busy machine a newer one may have
    taken the place of an older."""
    text = paths.shared("config", "dds", "two_machines.xml").read_text()
    alone = tmp_path / "network.xml"
    alone.write_text(re.sub(r"(<userTransports>\s*)<transport_id>shared_memory</transport_id>", r"\1", text))
    assert alone.read_text() != text
    environment = os.environ | ros_environment() | {"FASTRTPS_DEFAULT_PROFILES_FILE": str(alone)}
    programs = [
        program.replace(str(test_transport.TILES - 1), str(TILES - 1)).replace(str(test_transport.TILES), str(TILES))
        for program in (test_transport.READER, test_transport.SENDER)
    ]
    reader, sender = (
        subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True)
        for program in programs
    )
    try:
        output, _ = reader.communicate(timeout=90)
    finally:
        for process in (reader, sender):
            process.kill()
            process.wait()
    seeds = json.loads(output)["seeds"]  # the reader has compared every byte
    assert seeds == sorted(set(seeds)) and len(seeds) > TILES / 2
