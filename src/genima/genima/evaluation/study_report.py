"""Report of a study: Markdown tables, plots and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genima.evaluation.study import Study, is_evaluation
from genima.evaluation.study_results import StudyResults, adjust_for_number
from genima.evaluation.success import Success
from genima.io.files import atomic_write

SUCCESS_PLOT, PERTURBATION_PLOT, AXIS_PLOT, MAP_PLOT = "success.png", "perturbations.png", "axis.png", "map.png"


@dataclass(frozen=True)
class JobSummary:
    """Commands of a job, and how long they took."""

    name: str
    commands: Sequence[str]
    hours: float | None  # of one core or its GPUs; None: not done
    machine: str = ""
    stopped: str = ""  # trainings that a time limit stopped


def write_report(
    results: StudyResults, jobs: Sequence[JobSummary], folder: Path, places: Mapping[int, tuple[float, float]]
) -> Path:
    """Write ``report.md``, ``report.json`` and the plots; return the first.

    Args:
        results: of the study, as far as they are there.
        jobs: of the study.
        folder: of the study.
        places: m, x and y of the first object of the spatial map's task, by seed.
    """
    plots = list(_plots(results, folder, places))
    atomic_write(folder / "report.json", (json.dumps(_to_dict(results, jobs), indent=2) + "\n").encode())
    file = folder / "report.md"
    atomic_write(file, "\n".join(_markdown(results, jobs, plots)).encode())
    return file


def _markdown(results: StudyResults, jobs: Sequence[JobSummary], plots: Sequence[str]) -> Iterator[str]:
    study = results.study
    policies, reference = list(study.policies), study.compared_with
    yield f"# {study.title}\n"
    if missing := results.missing():
        yield f"**Not complete: {missing} episodes are missing.**\n"
    if stopped := [f"{job.name} ({job.stopped})" for job in jobs if job.stopped]:
        yield f"**Shortened by a time limit: {', '.join(stopped)}.**\n"
    yield f"Success of {study.episodes} episodes a task with Wilson's 95% interval; equal seeds for all policies.\n"
    yield _row("task", *map(study.label, policies))
    yield _row(*["---"] * (len(policies) + 1))
    for task in study.tasks:
        yield _row(task, *(_success(results.success(policy, [task])) for policy in policies))
    yield _row("average", *(_success(results.success(policy, study.tasks)) for policy in policies))
    yield ""
    if SUCCESS_PLOT in plots:
        yield f"![success]({SUCCESS_PLOT})\n"
    yield from _comparison(results, reference)
    if study.perturbations:
        yield from _perturbations(results)
        if PERTURBATION_PLOT in plots:
            yield f"![perturbations]({PERTURBATION_PLOT})\n"
    for plot, title in ((AXIS_PLOT, study.axis), (MAP_PLOT, f"Places of {study.spatial_map}")):
        if plot in plots:
            yield f"## {title}\n\n![{title}]({plot})\n"
    yield from _commands(jobs)


def _comparison(results: StudyResults, reference: str) -> Iterator[str]:
    study = results.study
    pairs = {name: results.compare(name, reference) for name in study.policies if name != reference}
    pairs = {name: pair for name, pair in pairs.items() if pair.n}
    if not pairs:
        return
    p_values = adjust_for_number({name: pair.mcnemar() for name, pair in pairs.items()})
    yield f"## Compared with {study.label(reference)}\n"
    yield "Paired episodes of all tasks; exact McNemar test, adjusted for the number of comparisons (Holm).\n"
    yield _row("policy", "pairs", "only it", f"only {study.label(reference)}", "difference", "p")
    yield _row(*["---"] * 6)
    for name, pair in pairs.items():
        yield _row(study.label(name), pair.n, pair.only_a, pair.only_b, pair.difference, f"{p_values[name]:.2g}")
    yield ""


def _perturbations(results: StudyResults) -> Iterator[str]:
    study = results.study
    assert study.perturbations
    policies = list(study.policies)
    yield "## Perturbations\n"
    yield (
        f"Success of {study.perturbations.episodes} episodes a task, and below it the difference to the unperturbed "
        "twins of the same seeds, with its 95% interval.\n"
    )
    yield _row("perturbation", *map(study.label, policies))
    yield _row(*["---"] * (len(policies) + 1))
    for condition in study.perturbations.conditions:
        cells = []
        for policy in policies:
            pair = results.drop(policy, condition)
            success = results.success(policy, study.tasks, condition)
            cells.append(f"{_success(success)}<br>{pair.difference}" if pair.n else "")
        yield _row(condition, *cells)
    yield ""
    for (task, condition), reason in results.exclusions.items():
        yield f"- {task} has no episodes with {condition}: {reason}"
    if results.exclusions:
        yield ""


def _commands(jobs: Sequence[JobSummary]) -> Iterator[str]:
    yield "## How it was made\n"
    for job in jobs:
        if not is_evaluation(job.name):
            took = "not done" if job.hours is None else f"{job.hours:.2f} h on {job.machine}"
            yield f"{job.name} ({took}):\n"
            yield from _code(job.commands)
    evaluations = [job for job in jobs if is_evaluation(job.name)]
    if not evaluations:
        return
    hours = sum(job.hours or 0 for job in evaluations)
    yield f"{len(evaluations)} evaluations ({hours:.2f} h), such as:\n"
    yield from _code(evaluations[0].commands)


def _code(commands: Sequence[str]) -> Iterator[str]:
    yield "\n".join(["```", *(f"./genima {command}" for command in commands), "```\n"])


def _row(*cells: Any) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _success(success: Success) -> str:
    if not success.episodes:
        return ""
    low, high = success.interval()
    return f"{success.rate:.0%} ({low:.0%} to {high:.0%})"


def _to_dict(results: StudyResults, jobs: Sequence[JobSummary]) -> dict[str, Any]:
    """Return plain JSON types: each cell's successes by seed, and each job's hours."""
    cells = [
        {
            "policy": policy, "task": task, "condition": condition, "episodes": len(outcomes),
            "successes": sum(outcomes.values()),
            "succeeded": [[checkpoint, seed] for (checkpoint, seed), done in outcomes.items() if done],
        }
        for (policy, task, condition), outcomes in results.cells.items()
    ]  # fmt: skip
    return {
        "study": results.study.model_dump(),
        "cells": cells,
        "jobs": [{name: value for name, value in vars(job).items() if name != "commands"} for job in jobs],
    }


# ------------------------------------------------------------------------------------------------------------- plots


def _plots(results: StudyResults, folder: Path, places: Mapping[int, tuple[float, float]]) -> Iterator[str]:
    """Draw the plots for which there are results; yield their names."""
    from matplotlib.figure import Figure

    study = results.study
    if not any(results.cells.values()):
        return
    figure = Figure((1.5 + 1.6 * (len(study.tasks) + 1), 3.6), layout="constrained")
    groups = {**{task: [task] for task in study.tasks}, "average": study.tasks}
    bars = {
        policy: {label: results.success(policy, tasks) for label, tasks in groups.items()} for policy in study.policies
    }
    _bars(figure, study, bars)
    figure.savefig(folder / SUCCESS_PLOT, dpi=110)
    yield SUCCESS_PLOT
    if study.perturbations:
        figure = Figure((1.5 + 1.6 * len(study.conditions), 3.6), layout="constrained")
        bars = {
            policy: {each: results.success(policy, study.tasks, each) for each in study.conditions}
            for policy in study.policies
        }
        _bars(figure, study, bars)
        figure.savefig(folder / PERTURBATION_PLOT, dpi=110)
        yield PERTURBATION_PLOT
    if study.axis:
        _axis_plot(results, folder / AXIS_PLOT)
        yield AXIS_PLOT
    if study.spatial_map and places:
        _map_plot(results, folder / MAP_PLOT, places)
        yield MAP_PLOT


def _bars(figure: Any, study: Study, bars: Mapping[str, Mapping[str, Success]]) -> None:
    """Draw a group of bars for each label, one bar a policy."""
    axes, width = figure.subplots(), 0.8 / len(bars)
    for i, (policy, successes) in enumerate(bars.items()):
        there = {k: success for k, success in enumerate(successes.values()) if success.episodes}
        at = [k + (i - (len(bars) - 1) / 2) * width for k in there]
        axes.bar(at, [100 * each.rate for each in there.values()], width, label=study.label(policy))
        axes.errorbar(at, [100 * each.rate for each in there.values()], _errors(list(there.values())), **_WHISKERS)
    labels = list(next(iter(bars.values())))
    axes.set_xticks(range(len(labels)), [label.replace("_", "\n") for label in labels], fontsize=8)
    axes.set(ylim=(0, 100), ylabel="success [%]")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=min(6, len(bars)), frameon=False, fontsize=8)


_WHISKERS: dict[str, Any] = {"fmt": "none", "ecolor": "black", "elinewidth": 0.8, "capsize": 1.5}


def _errors(successes: Sequence[Success]) -> list[list[float]]:
    """Return the distances, in percent, from the rates down and up to the ends of their intervals."""
    ends = [(each.rate, *each.interval()) for each in successes]
    return [[100 * (rate - low) for rate, low, _ in ends], [100 * (high - rate) for rate, _, high in ends]]


def _axis_plot(results: StudyResults, file: Path) -> None:
    from matplotlib.figure import Figure

    study = results.study
    figure = Figure((4.5, 3.4), layout="constrained")
    axes = figure.subplots()
    points = sorted((policy.x, name) for name, policy in study.policies.items() if policy.x is not None)
    lines: dict[str, list[str]] = {"average": study.tasks, **{task: [task] for task in study.tasks}}
    for label, tasks in lines.items():
        there = [(x, results.success(name, tasks)) for x, name in points]
        there = [(x, success) for x, success in there if success.episodes]
        if not there:
            continue
        xs, successes = [x for x, _ in there], [success for _, success in there]
        strong = label == "average"
        axes.errorbar(
            xs, [100 * each.rate for each in successes], _errors(successes) if strong else None, marker="o",
            linewidth=2 if strong else 0.8, markersize=4, capsize=2, color="black" if strong else None, label=label,
        )  # fmt: skip
    axes.set(xlabel=study.axis, ylabel="success [%]", ylim=(0, 100))
    axes.legend(frameon=False, fontsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=110)


def _map_plot(results: StudyResults, file: Path, places: Mapping[int, tuple[float, float]]) -> None:
    """Draw each episode at the place of its object, seen from above with the robot below."""
    from matplotlib.figure import Figure

    study = results.study
    assert study.spatial_map
    figure = Figure((2.6 * len(study.policies), 3.0), layout="constrained")
    for axes, policy in zip(figure.subplots(1, len(study.policies), squeeze=False)[0], study.policies, strict=True):
        for succeeded, colour, marker in ((True, "tab:green", "o"), (False, "tab:red", "x")):
            cell = results.cell(policy, study.spatial_map)
            at = [places[seed] for (_, seed), done in cell.items() if done is succeeded and seed in places]
            axes.scatter([-y for _, y in at], [x for x, _ in at], c=colour, marker=marker, s=18)
        axes.set(title=study.label(policy), xlabel="-y [m]", ylabel="x [m]", aspect="equal")
    figure.savefig(file, dpi=110)
