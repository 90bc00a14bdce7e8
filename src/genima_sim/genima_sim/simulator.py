"""Interface of simulators: an environment in lock-step for evaluation, a ROS node for real time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from genima.errors import GenimaError

if TYPE_CHECKING:  # options name simulators: a help page must not load one
    from genima.cell import Cell
    from genima.evaluation.episodes import DemoEnvironment, Environment
    from genima.policy.spec import PolicySpec
    from genima_sim.scene_node import SceneNode

Value: TypeAlias = "str | int | float | bool | list[str]"


class Simulator(ABC):
    """One simulator. Its name is that of its module: see :mod:`genima_sim.simulators`."""

    name: ClassVar[str]
    time_limit: ClassVar[float] = 20.0
    """s of an episode, unless the user sets it."""
    node: ClassVar[str] = ""
    """Executable of its ROS node in this package, such as simulator_node, which runs :meth:`create_node`; empty: it
    runs in lock-step only."""
    has_experts: ClassVar[bool] = False
    """Its tasks are those of :mod:`genima_sim.tasks`, whose experts can record demos."""
    has_perturbations: ClassVar[bool] = False
    """Its tasks are those of :mod:`genima_sim.tasks`, and their scenes take :mod:`genima_sim.perturbations`: its
    environments are :class:`genima_sim.perturbation.PerturbedEnvironment`, its ROS node has the parameter
    ``perturbations``, a list of names."""

    has_depth: ClassVar[bool] = False
    """A cell may set ``depth``: its environments render depth images for a policy that requires them, and its ROS node
    publishes them."""
    stores_states: ClassVar[bool] = False
    """Its demo environments return states, from which :mod:`genima_sim.demo_images` renders images."""

    def __init_subclass__(cls) -> None:
        cls.name = cls.__module__.rpartition(".")[2]

    def check_cell(self, cell: Cell) -> None:  # noqa: B027
        """Raise a GenimaError for a cell whose files do not fit; load nothing slow."""

    @abstractmethod
    def require_task(self, task: str, cell: Cell) -> None:
        """Raise a GenimaError for an unknown task; load nothing slow."""

    @abstractmethod
    def environment(self, cell: Cell, spec: PolicySpec, host: str, port: int) -> Environment:
        """Start the simulator in lock-step, with images as the policy takes them.

        Raises:
            GenimaError: when it is not installed or does not answer, and when its scene does not fit the cell.
        """

    def demo_environment(self, cell: Cell, images: bool = True) -> DemoEnvironment:
        """Start the simulator to record demos of experts; overridden where ``has_experts``.

        Without ``images``, which only simulators with ``stores_states`` allow, observations have none.

        Raises:
            GenimaError: when it is not installed, and when its scene does not fit the cell.
        """
        raise GenimaError(f"simulator {self.name}: has_experts is set, but demo_environment is missing; add it")

    def create_node(self) -> SceneNode:
        """Create the ROS node, whose name is ``simulator_node``; overridden where ``node`` is that.

        Raises:
            GenimaError: for a parameter that is not valid, and when the simulator does not answer.
        """
        raise GenimaError(f"simulator {self.name}: node is simulator_node, but create_node is missing; add it")

    def node_parameters(self, host: Value, port: Value) -> dict[str, Value]:
        """Return the parameters of the ROS node in addition to the cell."""
        return {}
