"""Simulated tasks, one module each.

To add a task, put a module with one subclass of :class:`genima_sim.task.Task` here, or in ``tasks/`` of a folder in
``GENIMA_PATH`` (:mod:`genima.system.registry`). The task has the module's name.
"""

from __future__ import annotations

from genima.system.registry import Registry, subclass_factory
from genima_sim.task import SceneObject, Task

DEMO_HZ = 20  # observations and commands per second of simulated demos
DEMO_SEED = 100_000  # of the first demo: evaluations count from 0, and never share a seed with demos

TASKS = Registry("task", __name__, "tasks", subclass_factory("task", Task))  # type: ignore[type-abstract]


def get_task(name: str) -> Task:
    """Return the task of that name.

    Raises:
        GenimaError: for an unknown task, naming the nearest, and for an incomplete one.
    """
    return TASKS.find(name)


def scene_objects(task: Task) -> tuple[SceneObject, ...]:
    """Return the objects of a task's scene, each once.

    Raises:
        GenimaError: for a scene with an unknown task.
    """
    tasks = [get_task(name) for name in task.scene_tasks] or [task]
    return tuple({o.name: o for each in tasks for o in each.objects}.values())
