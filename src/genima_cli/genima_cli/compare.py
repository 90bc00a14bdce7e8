"""`./genima compare A B`: two policies in the same simulated episodes, with early stopping.

Nothing slow is imported before the options are checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated

import tyro
from pydantic import Field

from genima.errors import GenimaError
from genima.policy.registry import require_policy
from genima.system.command_line import parse_options
from genima_cli.evaluate import (
    Evaluate,
    LockStepOptions,
    check,
    episode_options,
    load_evaluated,
    lock_step_settings,
    policy_settings,
    print_interrupted,
    print_resumed,
)

if TYPE_CHECKING:
    from genima.cell import Cell
    from genima.evaluation.comparison import ComparisonFile
    from genima.evaluation.episodes import Environment
    from genima.policy.base import Policy
    from genima_sim.simulator import Simulator


@dataclass
class Compare(LockStepOptions):
    """Compare two policies in simulation: the same seeds, initial states and perturbations.

    Stops when a sequential test at 5% finds a difference. With --out the result is kept after each pair;
    interrupted, the same command resumes. docs/evaluation.md explains the table.
    """

    a: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="A")]
    """Policy A: a checkpoint folder, a name such as genima or expert, or a server: as --policy of ./genima eval."""
    b: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="B")]
    """Policy B; the same as A shows that the comparison raises no false alarm."""
    task: Annotated[list[str], Field(min_length=1)]
    """Names of ./genima tasks list; the test pools the pairs of all."""
    all: Annotated[bool, tyro.conf.FlagCreatePairsOff] = False
    """Run all episodes; the verdict is McNemar's exact test at 5%."""

    @property
    def pairs(self) -> int:
        """Number of planned pairs."""
        return self.episodes * len(self.task)

    def side(self, policy: str) -> Evaluate:
        """Return the options of one policy, as ./genima eval has them."""
        shared = {each.name: getattr(self, each.name) for each in fields(LockStepOptions)}
        return Evaluate(task=self.task[0], policy=policy, **shared)


def main(argv: Sequence[str]) -> int:
    """Entry point of ``./genima compare``.

    Raises:
        GenimaError: for options that a policy or the simulator does not allow.
    """
    example = "./genima compare runs/mine genima --task push_button --out mine.json"
    options = parse_options(Compare, "genima compare", argv, example=example)
    if len(set(options.task)) != len(options.task):
        raise GenimaError(f"--task {' '.join(options.task)}: a task twice; name each once")
    for policy in (options.a, options.b):
        require_policy(policy)
    from genima.evaluation.comparison import Comparison, ComparisonFile
    from genima.evaluation.results import open_results
    from genima.system.signals import interrupt_on_signals

    cell, simulator = check(options, options.task)
    sides = {"a": options.side(options.a), "b": options.side(options.b)}
    loaded = {side: load_evaluated(each, cell) for side, each in sides.items()}
    settings = {
        "tasks": options.task,
        "planned_pairs": options.pairs,
        "stops_early": not options.all,
        **lock_step_settings(options, cell),
        **{
            f"{side}_{key}": value
            for side, (_, folders) in loaded.items()
            for key, value in {"policy": sides[side].policy, **policy_settings(sides[side], folders)}.items()
        },
    }
    results = ComparisonFile(Comparison(options.pairs, not options.all), settings, options.out)
    with interrupt_on_signals(), open_results(results, options.overwrite):
        comparison = results.comparison
        print_resumed(options, len(comparison.pairs), options.pairs, "pairs")
        try:
            _run_pairs(options, cell, simulator, [policy for policy, _ in loaded.values()], results)
        except KeyboardInterrupt:
            print_interrupted(options, len(comparison.pairs), options.pairs, "pairs")
            return 130
    print(comparison.report(options.a, options.b))
    return 0


def _run_pairs(
    options: Compare, cell: Cell, simulator: Simulator, policies: Sequence[Policy], results: ComparisonFile
) -> None:
    """Run the pairs that are missing: A then B, task by task with each seed."""
    from tqdm import tqdm

    from genima.evaluation.comparison import Pair
    from genima.evaluation.episodes import run_seed

    comparison, episodes = results.comparison, episode_options(options)
    seeds = range(options.seed, options.seed + options.episodes)
    order = [(task, seed) for seed in seeds for task in options.task]
    if comparison.ended:
        return
    with (
        ExitStack() as stack,
        tqdm(initial=len(comparison.pairs), total=len(order), unit="pair", dynamic_ncols=True) as bar,
    ):
        environments = _environments(options, cell, simulator, policies)
        for each in set(environments):
            stack.enter_context(closing(each))
        for task, seed in order[len(comparison.pairs) :]:
            bar.set_description(task)
            a, b = (
                run_seed(environment, policy, cell.robot, task, seed, episodes)
                for environment, policy in zip(environments, policies, strict=True)
            )
            results.add(Pair(task, seed, a, b))
            outcomes = comparison.outcomes()
            bar.set_postfix_str(f"A {outcomes.success_a.successes}, B {outcomes.success_b.successes}", refresh=False)
            bar.update()
            if comparison.ended:
                break


def _environments(
    options: Compare, cell: Cell, simulator: Simulator, policies: Sequence[Policy]
) -> Sequence[Environment]:
    """Return an environment for each policy; the same where they take the same images."""
    from genima_sim.simulators import perturb

    a, b = (policy.spec for policy in policies)
    same = (a.views, a.camera_size, a.requires_depth) == (b.views, b.camera_size, b.requires_depth)
    environments = [simulator.environment(cell, spec, options.host, options.port) for spec in ([a] if same else [a, b])]
    for environment in environments:
        perturb(environment, options.perturb)
    return [environments[0], environments[-1]]
