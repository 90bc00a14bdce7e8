"""``./genima eval``: success of a checkpoint over many seeds, by the closed loop in lock-step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm import tqdm

from genima.cell import Cell, load_cell
from genima.errors import GenimaError
from genima.evaluation import BlankTargets
from genima.evaluation.episodes import EpisodeOptions, run_episodes
from genima.evaluation.results import Results, checkpoint_digest, open_results
from genima.io.files import require_writable
from genima.policy import spec as checkpoint
from genima.policy.base import Policy
from genima.policy.genima import GenimaPolicy
from genima.policy.registry import GENIMA, PolicyOptions, load_policy
from genima.policy.temporal_ensemble import EnsemblePolicy
from genima.system.signals import interrupt_on_signals
from genima_sim.simulators import get_simulator

if TYPE_CHECKING:
    from genima_cli.evaluate_options import Evaluate


def run(options: Evaluate) -> int:
    """Evaluate; return the exit code.

    Raises:
        GenimaError: for options that the checkpoint or the simulator does not allow.
    """
    cell = load_cell(options.cell)
    simulator = get_simulator(cell)
    simulator.require_task(options.task, cell)
    if options.time_limit is None:
        options.time_limit = simulator.time_limit
    genima = options.policy == GENIMA
    if genima:  # in a moment, before the models are loaded
        spec, folders = checkpoint.read_pair(options.checkpoint)
        policy = None
    else:
        policy = load_policy(options.policy, policy_options(options, cell))
        spec, folders = policy.spec, {}
    cell.require_policy(spec, f"the checkpoint {options.checkpoint or 'of Genima'}" if genima else options.policy)
    if options.horizon > spec.horizon:
        raise GenimaError(f"--horizon {options.horizon}: the checkpoint has chunks of K = {spec.horizon} actions")
    if options.ensemble is not None and options.horizon >= spec.horizon:
        raise GenimaError(f"--ensemble needs a --horizon below K = {spec.horizon}, so that chunks overlap")
    torch.set_num_threads(options.threads)
    policy = policy or load_policy(GENIMA, policy_options(options, cell))
    if options.blank_targets and isinstance(policy, GenimaPolicy):
        policy = GenimaPolicy(BlankTargets(spec), policy.controller)
    if options.ensemble is not None:
        policy = EnsemblePolicy(policy, options.ensemble)
    if options.out:
        require_writable(options.out)
    with (
        interrupt_on_signals(),
        open_results(options.out, settings(options, cell, folders), options.overwrite) as results,
    ):
        seeds = range(options.seed, options.seed + options.episodes)
        todo = [seed for seed in seeds if seed not in set(results.seeds)]
        if len(todo) < len(seeds):
            print(f"{len(seeds) - len(todo)} of {len(seeds)} episodes are in {options.out} already")
        try:
            _run_episodes(options, cell, policy, todo, results)
        except KeyboardInterrupt:
            where = f" are in {options.out}; the same command resumes" if options.out else ""
            print(f"\ninterrupted: {results.success().episodes} of {len(seeds)} episodes{where or ' were evaluated'}")
            return 130
    print(f"{options.task}{' with blank targets' if options.blank_targets else ''}: {results.success()}")
    return 0


def _run_episodes(options: Evaluate, cell: Cell, policy: Policy, seeds: Sequence[int], results: Results) -> None:
    assert options.time_limit is not None
    environment = get_simulator(cell).environment(cell, policy.spec, options.host, options.port)
    episodes = EpisodeOptions(options.horizon, options.mode, options.latency, options.time_limit)
    with closing(environment), tqdm(total=len(seeds), unit="episode", desc=options.task, dynamic_ncols=True) as bar:

        def on_result(seed: int, succeeded: bool) -> None:
            results.add(seed, succeeded)
            success = results.success()
            bar.set_postfix_str(f"{success.successes}/{success.episodes}", refresh=False)
            bar.update()

        run_episodes(environment, policy, cell.robot, options.task, seeds, episodes, on_result)


def settings(options: Evaluate, cell: Cell, folders: Mapping[str, Path]) -> dict[str, Any]:
    """Return whatever a result depends on, as plain JSON types."""
    return {
        "task": options.task,
        "cell": cell.name,
        "seed": options.seed,
        **({"policy": options.policy, "episode": options.episode} if options.policy != GENIMA else {}),
        "checkpoint": str(options.checkpoint or "bundled"),
        "checkpoint_digest": checkpoint_digest(folders),
        "blank_targets": options.blank_targets,
        "horizon": options.horizon,
        "mode": options.mode,
        "latency": options.latency,
        "ensemble": options.ensemble,
        "time_limit": options.time_limit,
        "drawing": asdict(options.drawing),
    }


def policy_options(options: Evaluate, cell: Cell) -> PolicyOptions:
    """Return the options of the policy."""
    folder = str(options.checkpoint) if options.checkpoint else ""
    return PolicyOptions(
        folder, options.device, cell.robot_reference, cell.views, options.episode, sampling=options.drawing
    )
