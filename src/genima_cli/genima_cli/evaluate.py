"""`./genima eval`: success of a policy over many seeds, by the control loop in lock-step.

Nothing slow is imported before the options are checked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from genima.errors import GenimaError
from genima.policy.chunk_sampling_options import ChunkSamplingOptions
from genima.policy.diffusion_agent.sampling_options import SamplingOptions
from genima.policy.names import GENIMA
from genima.policy.registry import PolicyOptions, load_policy, require_options, require_policy
from genima.system.command_line import Episodes, Port, Seconds, Seed, Workers, parse_options
from genima_sim.coppeliasim import DEFAULT_HOST, DEFAULT_PORT

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima.evaluation.episodes import EpisodeOptions
    from genima.evaluation.results import Results
    from genima.policy.base import Policy
    from genima.policy.spec import PolicySpec
    from genima_sim.simulator import Simulator


_REPLY_TIMEOUT = 60.0  # s for a policy server: the simulation waits


@dataclass(kw_only=True)
class LockStepOptions:
    """Options of commands that run policies in a simulator in lock-step."""

    cell: str = "sim_panda"
    """Simulated robot cell: a name in config/cells or a YAML file; sim_rlbench needs RLBench, sim_coppeliasim a
    CoppeliaSim that runs (docs/coppeliasim.md)."""
    episodes: Episodes = 50
    """Number of episodes of a task."""
    seed: Seed = 0
    """First seed; episode i uses seed + i. Demos are recorded with seeds from 100000 on."""
    device: str = "cpu"
    """Device of the models."""
    threads: Workers = 1
    """Processor cores that the models use; the small ones are fastest on one."""
    horizon: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Actions executed before the next prediction takes over, 1 to K."""
    mode: Literal["overlapped", "serial"] = "overlapped"
    """overlapped: the next prediction is made while the chunk runs; serial: when the chunk has been executed."""
    latency: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Seconds from an observation until its chunk can be followed; time stands still meanwhile if 0."""
    ensemble: Annotated[float, Field(ge=-100, le=100)] | None = None
    """Average chunks that overlap, the i-th oldest with weight exp(-M i), as ACT does; needs a --horizon below K."""
    time_limit: Seconds | None = None
    """Seconds of an episode; default: 10, which are 200 steps; in CoppeliaSim 20."""
    perturb: list[str] = field(default_factory=list)
    """Perturbations of each scene, such as object_color or distractors, in MuJoCo: docs/tasks.md."""
    host: str = DEFAULT_HOST
    """With coppeliasim: machine that it runs on."""
    port: Port = DEFAULT_PORT
    """With coppeliasim: port of its ZeroMQ remote API."""
    sampling: SamplingOptions = field(default_factory=SamplingOptions)
    """Sampling options of genima: faster, and other, drawn targets."""
    chunk_sampling: ChunkSamplingOptions = field(default_factory=ChunkSamplingOptions)
    """Sampling options of diffusion_policy."""
    out: Path | None = None
    """JSON file for the result; one that the same command left is continued."""
    overwrite: bool = False
    """Replace the result in --out, and evaluate all episodes."""


@dataclass
class Evaluate(LockStepOptions):
    """Measure success in simulation, in lock-step and without ROS.

    With --out the result is kept after each episode; interrupted, the same command resumes.
    """

    task: str
    """A name of ./genima tasks list, of which the bundled models know push_button and take_lid_off_saucepan; in RLBench
    the same without variations; in CoppeliaSim one that the scene's names know."""
    policy: str = "genima"
    """Policy: genima, or another trained one of --checkpoint (docs/policies.md); a checkpoint folder; expert (scripted,
    simulation only); replay (of --episode); the name of your own module in policies/ of a folder in GENIMA_PATH; or a
    server: its address (ws://host:8000) or its YAML file."""
    blank_targets: bool = False
    """With genima: give the controller blank images instead of drawn targets, to measure what it does without them."""
    checkpoint: Path | None = None
    """Folder of the trained policy; default: the bundled models/tiny of genima."""
    episode: str = ""
    """With replay: folder of the episode."""


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima eval``."""
    options = parse_options(Evaluate, "genima eval", argv, example="./genima eval --task push_button --episodes 20")
    require_policy(options.policy)
    require_options(options.policy, str(options.checkpoint or ""), options.episode)
    if options.blank_targets and options.policy != GENIMA:
        raise GenimaError(f"--blank-targets: only policy genima has drawn targets, not {options.policy}")
    return run(options)


def run(options: Evaluate) -> int:
    """Evaluate; return the exit code.

    Raises:
        GenimaError: for options that the checkpoint or the simulator does not allow.
    """
    from genima.evaluation.results import Results, open_results
    from genima.system.signals import interrupt_on_signals

    cell, simulator = check(options, [options.task])
    policy, folders = load_evaluated(options, cell)
    with (
        interrupt_on_signals(),
        open_results(Results(settings(options, cell, folders), options.out), options.overwrite) as results,
    ):
        seeds = range(options.seed, options.seed + options.episodes)
        todo = [seed for seed in seeds if seed not in set(results.seeds)]
        print_resumed(options, len(seeds) - len(todo), len(seeds), "episodes")
        try:
            _run_episodes(options, cell, simulator, policy, todo, results)
        except KeyboardInterrupt:
            print_interrupted(options, results.success().episodes, len(seeds), "episodes")
            return 130
    changes = ", ".join([*options.perturb, *(["blank targets"] if options.blank_targets else [])])
    print(f"{options.task}{' with ' if changes else ''}{changes}: {results.success()}")
    return 0


def check(options: LockStepOptions, tasks: Sequence[str]) -> tuple[Cell, Simulator]:
    """Check options, set the simulator's time limit, and return cell and simulator.

    Raises:
        GenimaError: for a real cell, an unknown task, an unfit perturbation, and a result that cannot be written.
    """
    from genima.cell import load_cell
    from genima.io.files import require_writable
    from genima_sim.simulators import get_simulator, require_perturbations

    if options.out is not None and options.out.suffix != ".json":
        raise GenimaError(f"--out {options.out}: the result is a .json file")
    cell = load_cell(options.cell)
    simulator = get_simulator(cell)
    for task in tasks:
        simulator.require_task(task, cell)
    require_perturbations(cell, options.perturb, tasks)
    if options.time_limit is None:
        options.time_limit = simulator.time_limit
    if options.out:
        require_writable(options.out)
    return cell, simulator


def print_resumed(options: LockStepOptions, done: int, total: int, what: str) -> None:
    """Print how much of a result exists already."""
    if done:
        print(f"{done} of {total} {what} are in {options.out} already")


def print_interrupted(options: LockStepOptions, done: int, total: int, what: str) -> None:
    """Print how much of a result exists after an interrupt."""
    where = f" are in {options.out}; the same command resumes" if options.out else ""
    print(f"\ninterrupted: {done} of {total} {what}{where or ' were evaluated'}")


def load_evaluated(options: Evaluate, cell: Cell) -> tuple[Policy, Mapping[str, Path]]:
    """Return the policy and its checkpoint's folders; what does not fit is refused before a model is loaded.

    Raises:
        GenimaError: for a policy that cannot be loaded, or does not fit the cell or the options.
    """
    from genima.policy.spec import is_trained, read_policy

    folders: Mapping[str, Path] = {}
    trained = read_policy(options.policy, options.checkpoint) if is_trained(options.policy) else None
    if trained:
        folders = trained.folders
        _require_fitting(options, cell, trained.spec, trained.title)
    import torch  # takes seconds

    from genima.policy.temporal_ensemble import EnsemblePolicy

    torch.set_num_threads(options.threads)
    policy = load_policy(options.policy, policy_options(options, cell))
    if not trained:
        _require_fitting(options, cell, policy.spec, f"policy {options.policy}")
    if options.blank_targets:
        from genima.evaluation import BlankTargets
        from genima.policy.genima import GenimaPolicy

        assert isinstance(policy, GenimaPolicy)
        policy = GenimaPolicy(BlankTargets(policy.spec), policy.controller)
    return (policy if options.ensemble is None else EnsemblePolicy(policy, options.ensemble)), folders


def _require_fitting(options: Evaluate, cell: Cell, spec: PolicySpec, what: str) -> None:
    cell.require_policy(spec, what)
    if options.horizon > spec.horizon:
        raise GenimaError(f"--horizon {options.horizon}: {what} has chunks of K = {spec.horizon} actions")
    if options.ensemble is not None and options.horizon >= spec.horizon:
        raise GenimaError(f"--ensemble needs a --horizon below K = {spec.horizon}, so that chunks overlap")


def _run_episodes(
    options: Evaluate, cell: Cell, simulator: Simulator, policy: Policy, seeds: Sequence[int], results: Results
) -> None:
    from tqdm import tqdm

    from genima.evaluation.episodes import run_episodes
    from genima_sim.simulators import perturb

    environment = simulator.environment(cell, policy.spec, options.host, options.port)
    perturb(environment, options.perturb)
    with closing(environment), tqdm(total=len(seeds), unit="episode", desc=options.task, dynamic_ncols=True) as bar:

        def on_result(seed: int, succeeded: bool) -> None:
            results.add(seed, succeeded)
            success = results.success()
            bar.set_postfix_str(f"{success.successes}/{success.episodes}", refresh=False)
            bar.update()

        run_episodes(environment, policy, cell.robot, options.task, seeds, episode_options(options), on_result)


def episode_options(options: LockStepOptions) -> EpisodeOptions:
    """Return how an episode runs, of options that :func:`check` has seen."""
    from genima.evaluation.episodes import EpisodeOptions

    assert options.time_limit is not None
    return EpisodeOptions(options.horizon, options.mode, options.latency, options.time_limit)


def settings(options: Evaluate, cell: Cell, folders: Mapping[str, Path]) -> dict[str, Any]:
    """Return all settings that a result depends on, as plain JSON types."""
    return {"task": options.task, **lock_step_settings(options, cell), **policy_settings(options, folders)}


def lock_step_settings(options: LockStepOptions, cell: Cell) -> dict[str, Any]:
    """Return the settings of all policies that are evaluated, as plain JSON types."""
    return {
        "cell": cell.name,
        "seed": options.seed,
        **({"perturbations": options.perturb} if options.perturb else {}),
        "horizon": options.horizon,
        "mode": options.mode,
        "latency": options.latency,
        "ensemble": options.ensemble,
        "time_limit": options.time_limit,
        "drawing": asdict(options.sampling),
        **({} if options.chunk_sampling == ChunkSamplingOptions() else {"chunks": asdict(options.chunk_sampling)}),
    }


def policy_settings(options: Evaluate, folders: Mapping[str, Path]) -> dict[str, Any]:
    """Return the settings of one policy, as plain JSON types."""
    from genima.evaluation.results import checkpoint_digest

    return {
        **({"policy": options.policy, "episode": options.episode} if options.policy != GENIMA else {}),
        "checkpoint": str(options.checkpoint or "bundled"),
        "checkpoint_digest": checkpoint_digest(folders),
        "blank_targets": options.blank_targets,
    }


def policy_options(options: Evaluate, cell: Cell) -> PolicyOptions:
    """Return the options of the policy."""
    folder = str(options.checkpoint) if options.checkpoint else ""
    return PolicyOptions(
        folder, options.device, cell.robot_reference, cell.views, options.episode, reply_timeout=_REPLY_TIMEOUT,
        sampling=options.sampling, chunk_sampling=options.chunk_sampling, calibration=cell.calibration,
    )  # fmt: skip
