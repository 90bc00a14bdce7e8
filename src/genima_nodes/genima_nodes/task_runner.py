"""Node: the RunTask action. Puts a task in force, lets the controller move the arm, and says how it ended."""

from __future__ import annotations

import sys

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String

from genima.guard import Reason
from genima_interfaces.action import RunTask
from genima_interfaces.msg import SceneStatus
from genima_interfaces.srv import SelectSource
from genima_nodes import messages, qos
from genima_nodes.command_guard import NOBODY
from genima_nodes.health import Health, values
from genima_nodes.running import run

_TICK = 0.05  # s
_FEEDBACK_EVERY = 4  # ticks
_PATIENCE = 5.0  # s to wait for the command guard, or for a fault to go away
_NEEDED = ("command_guard", "controller", "diffusion_agent")  # without these, nothing moves


class TaskRunnerNode(Node):
    """Runs one task at a time, all in the executor's one thread: waiting is awaiting the next tick."""

    def __init__(self) -> None:
        super().__init__("task_runner")
        self._running = False
        self._scene: SceneStatus | None = None
        self._stop_requested = False
        self._chunks = 0
        self._faults: dict[str, tuple[float, str]] = {}  # by node: since when, and what
        self._tick: Future = Future()
        self._health = Health(self)
        self._health.value("running", lambda: self._running)
        self._outcomes = self._health.meter("tasks")
        self._task = self.create_publisher(String, "task", qos.TASK)
        self._task.publish(String(data=""))
        self._select = self.create_client(SelectSource, "command_guard/select")
        self.create_subscription(SceneStatus, "sim/status", self._on_scene, qos.STATUS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)
        self.create_timer(_TICK, self._on_tick)
        self._server = ActionServer(
            self,
            RunTask,
            "run_task",
            self._execute,
            goal_callback=self._on_goal,
            cancel_callback=lambda goal: CancelResponse.ACCEPT,
        )

    def close(self) -> None:
        """Take the task out of force."""
        self._running = False
        if self.context.ok():  # not while a task that was under way is cleared away with the process
            self._task.publish(String(data=""))

    def _on_scene(self, message: SceneStatus) -> None:
        self._scene = message

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name in _NEEDED and status.level == DiagnosticStatus.OK:
                self._faults.pop(status.name, None)
            elif status.name in _NEEDED:
                since, _ = self._faults.get(status.name, (messages.now(self), ""))
                self._faults[status.name] = since, status.message
            if status.name == "command_guard":
                self._stop_requested = values(status).get("reason") == Reason.REQUESTED.value
            elif status.name == "controller":
                self._chunks = int(values(status).get("chunks total", "0"))

    def _on_tick(self) -> None:
        ended, self._tick = self._tick, Future()
        ended.set_result(None)

    def _on_goal(self, goal: RunTask.Goal) -> GoalResponse:
        problem = None
        if not goal.instruction.strip():
            problem = "there is no instruction"
        elif not goal.time_limit >= 0:
            problem = f"the time limit is {goal.time_limit} s"
        elif self._running:
            problem = "another task is running; cancel it first"
        if problem:
            self.get_logger().error(f"task refused: {problem}")
            return GoalResponse.REJECT
        self._running = True
        return GoalResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> RunTask.Result:
        start = messages.now(self)
        self._stop_requested = False
        try:
            outcome, reason = await self._run(handle, start)
        finally:
            self.close()
        await self._hand_over(NOBODY)
        if handle.is_cancel_requested:
            handle.canceled()
        elif outcome in (RunTask.Result.SUCCEEDED, RunTask.Result.FINISHED):
            handle.succeed()
        else:
            handle.abort()
        self._outcomes.tick()
        self.get_logger().info(f"{handle.request.instruction!r}: {outcome} ({reason})")
        return RunTask.Result(outcome=outcome, reason=reason, elapsed=messages.now(self) - start)

    async def _run(self, handle: ServerGoalHandle, start: float) -> tuple[str, str]:
        """The outcome and the reason for it."""
        goal: RunTask.Goal = handle.request
        if problem := await self._hand_over("controller"):
            return RunTask.Result.STOPPED, problem
        self._task.publish(String(data=goal.instruction.strip()))
        chunks, tick = self._chunks, 0
        while True:
            elapsed = messages.now(self) - start
            if handle.is_cancel_requested:
                return RunTask.Result.STOPPED, "cancelled"
            if self._stop_requested:
                return RunTask.Result.STOPPED, "the command guard was told to stop"
            if problem := self._lasting_fault(start):
                return RunTask.Result.STOPPED, problem
            if self._judged_success(goal.instruction, start):
                return RunTask.Result.SUCCEEDED, "the simulator says so"
            if goal.time_limit and elapsed > goal.time_limit:
                return RunTask.Result.TIMEOUT, f"not done after {goal.time_limit:.0f} s"
            if tick % _FEEDBACK_EVERY == 0:
                followed = max(0, self._chunks - chunks)
                phase = "running" if followed else "waiting"
                handle.publish_feedback(RunTask.Feedback(phase=phase, elapsed=elapsed, steps=followed))
            tick += 1
            await self._tick

    def _judged_success(self, instruction: str, start: float) -> bool:
        """Whether the simulator says so, of this task and since it began."""
        scene = self._scene
        if scene is None or not scene.success or messages.seconds(scene.header.stamp) <= start:
            return False
        return str(scene.instruction) == instruction.strip()

    def _lasting_fault(self, start: float) -> str:
        """What has been wrong for so long that the arm would be held for ever; empty if nothing."""
        now = messages.now(self)
        lasting = [
            f"{name}: {line}" for name, (since, line) in self._faults.items() if now - max(since, start) > _PATIENCE
        ]
        return "; ".join(lasting)

    async def _hand_over(self, source: str) -> str:
        """Let ``source`` move the arm; what is wrong, or an empty string."""
        deadline = messages.now(self) + _PATIENCE
        while not self._select.service_is_ready():
            if messages.now(self) > deadline:
                return "the command guard does not answer"
            await self._tick
        answer = self._select.call_async(SelectSource.Request(source=source))
        while not answer.done():
            if messages.now(self) > deadline:
                self._select.remove_pending_request(answer)
                return "the command guard does not answer"
            await self._tick
        response = answer.result()
        return "" if response.success else response.message


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    return run(TaskRunnerNode, args, executor=SingleThreadedExecutor)  # the other cannot await before rclpy 7.1.9


if __name__ == "__main__":
    sys.exit(main())
