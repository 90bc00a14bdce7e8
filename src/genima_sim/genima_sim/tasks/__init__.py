"""Simulated tasks, one module each.

To add a task, put a module with one subclass of :class:`genima_sim.task.Task` here, or in ``tasks/`` of a folder in
``GENIMA_PATH`` (:mod:`genima.system.registry`). The task has the module's name; ``name@N`` is its variation N.
"""

from __future__ import annotations

from collections.abc import Sequence

from genima.errors import GenimaError
from genima.system.registry import Registry, subclass_factory
from genima_sim.task import SceneObject, Task

DEMO_HZ = 20  # observations and commands per second of simulated demos
DEMO_SEED = 100_000  # of the first demo: evaluations count from 0, and never share a seed with demos
ALL = "all"
BUNDLED_TASKS = ("push_button", "take_lid_off_saucepan")  # what the models in models/tiny do

TASKS = Registry("task", __name__, "tasks", subclass_factory("task", Task))  # type: ignore[type-abstract]


def get_task(name: str) -> Task:
    """Return the task of that name, such as ``open_drawer`` or ``open_drawer@1`` for its variation 1.

    Raises:
        GenimaError: for an unknown task, naming the nearest, for an unknown variation, and for an incomplete task.
    """
    module, at, variation = name.partition("@")
    task = TASKS.find(module)
    if not at:
        return task
    if not variation.isdecimal():
        raise GenimaError(f"task {name}: unknown variation ({variation!r}); use 0 to {len(task.variations) - 1}")
    return type(task)(int(variation))


def task_names(names: Sequence[str]) -> list[str]:
    """Return names of tasks, with all tasks in place of ``all``."""
    return list(TASKS) if list(names) == [ALL] else list(names)


def variation_names(names: Sequence[str] = ()) -> list[str]:
    """Return the names of variations: all of each task that is named without one, of every task if none is named.

    Raises:
        GenimaError: for an unknown task or variation.
    """
    chosen: list[str] = []
    for name in names or TASKS:
        count = len(get_task(name).variations)
        chosen += [name] if "@" in name else [name, *(f"{name}@{v}" for v in range(1, count))]
    return chosen


def find_task(instruction: str) -> Task | None:
    """Return the task and variation that have an instruction, or None."""
    for task in TASKS.values():
        for variation in range(len(task.variations)):
            if instruction in (each := type(task)(variation)).sentences:
                return each
    return None


def scene_objects(task: Task) -> tuple[SceneObject, ...]:
    """Return the objects of a task's scene, each once.

    Raises:
        GenimaError: for a scene with an unknown task.
    """
    tasks = [get_task(name) for name in task.scene_tasks] or [task]
    return tuple({o.name: o for each in tasks for o in each.objects}.values())
