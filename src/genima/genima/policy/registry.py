"""Registry of policies, by name, checkpoint folder or server.

To add a policy, put a module with a function ``load(options: PolicyOptions) -> Policy`` into ``genima/policy/``, or
into ``policies/`` of a folder in ``GENIMA_PATH`` (:mod:`genima.system.registry`). The policy has the module's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from genima.errors import GenimaError
from genima.io.files import describe_error
from genima.io.paths import is_users_file
from genima.policy.chunk_sampling_options import ChunkSamplingOptions
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.names import EXPERT, GENIMA, REMOTE, REPLAY, TRAINED
from genima.system.registry import Registry

if TYPE_CHECKING:  # genima.policy.spec imports OpenCV and SciPy: too slow for --help
    from genima.policy.base import Policy

_LOAD = re.compile(r"^def load\(", re.MULTILINE)


def _default_views() -> tuple[str, ...]:
    from genima.policy.spec import PolicySpec

    return PolicySpec.views


@dataclass(frozen=True)
class PolicyOptions:
    """Options of all policies; a policy uses a part of them."""

    checkpoint: str = ""  # folder of a trained policy; empty: the bundled one
    device: str = "cpu"
    robot: str = "panda"  # of policies without checkpoint: a name in config/robots or a YAML file
    views: tuple[str, ...] = field(default_factory=_default_views)  # of policies without checkpoint
    episode: str = ""  # folder of the episode to replay
    server: str = ""  # of a remote policy: its address, or a YAML file
    reply_timeout: float | None = None  # s that a remote policy waits for a chunk; None: the duration of a chunk
    sampling: SamplingOptions = field(default_factory=SamplingOptions)  # of policies with a diffusion model
    chunk_sampling: ChunkSamplingOptions = field(default_factory=ChunkSamplingOptions)  # of the policy diffusion_policy
    calibration: str = "sim"  # of the cameras: a folder, or the name of one; for policies that take depth images


def _create(name: str, module: ModuleType) -> Callable[[PolicyOptions], Policy]:
    if not callable(load := getattr(module, "load", None)):
        raise GenimaError(f"policy {name}: the module has no function load(options); add it in {module.__file__}")
    return load


def _defines_policy(file: Path) -> bool:
    """Return whether a module of this package is a policy, without importing it."""
    return _LOAD.search(file.read_text(encoding="utf-8")) is not None


POLICIES: Registry[Callable[[PolicyOptions], Policy]] = Registry(
    "policy",
    "genima.policy",
    "policies",
    _create,
    defines=_defines_policy,
    # By name: imports point downwards only.
    others={EXPERT: "genima_sim.expert_policy", REPLAY: "genima.data.replay_policy"},
)
"""Functions that load a policy, by its name."""


def require_policy(name: str) -> None:
    """Raise a GenimaError for an unknown policy, without slow imports; a server is checked when it is loaded."""
    if name not in POLICIES and not is_server(name) and not _is_checkpoint(name):
        POLICIES.find(name)


def require_options(name: str, checkpoint: str, episode: str) -> None:
    """Raise a GenimaError for an option that a policy of the project does not use; a user's may use any."""
    if checkpoint and (name in (EXPERT, REPLAY) or name not in POLICIES):
        raise GenimaError(f"policy {name}: takes no checkpoint; leave {checkpoint} out, or name its policy")
    if episode and (name in (*TRAINED, EXPERT) or name not in POLICIES):
        raise GenimaError(f"policy {name}: takes no episode; leave {episode} out, or take policy {REPLAY}")


def is_server(name: str) -> bool:
    """Return whether a policy's name is the address of a server, or a YAML file that describes one."""
    return name.startswith(("ws://", "wss://")) or name.endswith(".yaml")


def load_policy(name_or_folder: str = GENIMA, options: PolicyOptions | None = None) -> Policy:
    """Load a policy: a name in :data:`POLICIES`, a checkpoint folder, or a server (:func:`is_server`).

    A user's policy raises a GenimaError for every error and for a wrong result.

    Raises:
        GenimaError: for an unknown name, and when loading fails.
    """
    options = options or PolicyOptions()
    if is_server(name_or_folder):
        options, name_or_folder = replace(options, server=name_or_folder), REMOTE
    if name_or_folder not in POLICIES and _is_checkpoint(name_or_folder):
        from genima.policy.spec import read_policy

        options = replace(options, checkpoint=name_or_folder)
        name_or_folder = read_policy(name_or_folder).policy
    load = POLICIES.find(name_or_folder)
    subject, file = f"policy {name_or_folder}", POLICIES.file(name_or_folder)
    try:
        policy = load(options)
        missing = [part for part in ("spec", "reset", "predict_chunk") if not hasattr(policy, part)]
    except GenimaError:
        raise
    except Exception as error:  # a user's policy may raise anything
        raise GenimaError(f"{subject}: cannot be loaded ({describe_error(error)}); see {file}") from error
    if missing:
        raise GenimaError(f"{subject}: load returns no policy (it lacks {', '.join(missing)}); see {file}")
    if not is_users_file(file):
        return policy
    from genima.policy.user_policy import UserPolicy

    return UserPolicy(policy, subject, file)


def _is_checkpoint(folder: str) -> bool:
    from genima.policy.spec import is_checkpoint

    return is_checkpoint(folder)
