"""`./genima serve`: serve a policy to a robot on another machine, or to another program, by openpi's protocol."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.policy.chunk_sampling_options import ChunkSamplingOptions
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.names import GENIMA, REMOTE
from genima.policy.registry import PolicyOptions, is_server, load_policy, require_policy
from genima.system.command_line import Workers, parse_options
from genima.system.signals import interrupt_on_signals, termination_signals
from genima.system.terminal import printable


@dataclass
class Serve:
    """Serve a policy by openpi's websocket protocol, to one robot at a time; Ctrl-C ends it.

    Clients send the token: GENIMA_POLICY_TOKEN, or a new one that is printed.
    """

    policy: tyro.conf.Positional[str] = GENIMA
    """Checkpoint folder, or a policy's name: genima (the bundled models), expert, or one of yours."""
    host: str = "127.0.0.1"
    """Address to listen on; 127.0.0.1: this machine only; 0.0.0.0: every machine that reaches this one."""
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Port; 0: a free one."""
    device: str = "cpu"
    """Device of the models."""
    threads: Workers = 1
    """Processor cores that the models use; the small ones are fastest on one."""
    cell: str = "sim_panda"
    """Robot cell of a policy without a checkpoint: a name in config/cells or a YAML file."""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    """Sampling options of genima: faster, and other, drawn targets."""
    chunk_sampling: ChunkSamplingOptions = field(default_factory=ChunkSamplingOptions)
    """Sampling options of diffusion_policy."""


def main(argv: Sequence[str]) -> int:
    """Serve until a signal; return the exit code.

    Raises:
        GenimaError: for a policy that cannot be loaded, and a port that cannot be used.
    """
    options = parse_options(Serve, "genima serve", argv, example="./genima serve models/mine --port 8000")
    if options.policy == REMOTE or is_server(options.policy):
        raise GenimaError(f"policy {options.policy}: on a server already; connect to that")
    require_policy(options.policy)
    from genima.policy.remote import TOKEN  # imported here: --help must be quick

    with interrupt_on_signals():
        from genima.cell import load_cell
        from genima.policy.policy_server import PolicyServer

        cell = load_cell(options.cell)
        import torch

        torch.set_num_threads(options.threads)
        policy = load_policy(
            options.policy,
            PolicyOptions(
                device=options.device,
                robot=cell.robot_reference,
                views=cell.views,
                sampling=options.sampling,
                chunk_sampling=options.chunk_sampling,
                calibration=cell.calibration,
            ),
        )
        token = os.environ.get(TOKEN) or secrets.token_urlsafe(16)

        def on_ready(port: int) -> None:
            host = socket.gethostname() if options.host in ("0.0.0.0", "::") else options.host
            host = f"[{host}]" if ":" in host else host
            spec = policy.spec
            print(f"policy {options.policy}: {spec.robot}, views {', '.join(spec.views)}, K {spec.horizon}")
            print(f"{TOKEN}={token} ./genima demo --policy ws://{host}:{port}", flush=True)

        server = PolicyServer(policy, token, lambda line: print(printable(line), flush=True))
        asyncio.run(server.run(options.host, options.port, on_ready, termination_signals()))
    return 0
