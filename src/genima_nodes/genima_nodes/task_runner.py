"""Node: the RunTask action. Puts a task in force, lets the controller move the arm, and says how it ended.

A new task takes the place of the one that runs. Whether a task has succeeded, the simulator says, or a user by
`run_task/judge`.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import SetBool

from genima.control.guard_status import GuardReason
from genima_interfaces.action import RunTask
from genima_interfaces.msg import SceneStatus
from genima_interfaces.srv import SelectSource
from genima_nodes.command_guard import NOBODY
from genima_nodes.ros import qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater, own_name, values
from genima_nodes.ros.node_process import run
from genima_nodes.ros.paced_thread import STEADY

_TICK = 0.05  # s
_FEEDBACK_EVERY = 4  # ticks
_PATIENCE = 5.0  # s to wait for the command guard, or for a fault to go away
_LOADING = 900.0  # s to wait for a node that is there but has not reported yet: it loads its model
_TAKEN_OVER = 1.0  # s after which the guard's word counts on who moves the arm
_REPLACED = "a new task takes its place"
_NEEDED = ("command_guard", "controller", "diffusion_agent")  # without these, nothing moves


@dataclass
class GuardReport:
    """What a node says about itself; times are monotonic seconds."""

    heard: float
    wrong_since: float | None = None
    line: str = ""


class TaskRunnerNode(Node):
    """Runs one task at a time, all in the executor's one thread: waiting is awaiting the next tick."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node."""
        super().__init__("task_runner", **options)
        self._running = False
        self._turn = 0  # tasks asked for
        self._success: tuple[str, float] = "", 0.0  # the instruction that the simulator says is done, and when it did
        self._verdict: bool | None = None  # a user's, on the task that runs
        self._stop_requested = False
        self._owner, self._owner_heard = "", 0.0  # as the guard said last, and when
        self._chunks = 0
        self._nodes: dict[str, GuardReport] = {}
        self._tick: Future = Future()
        self._health = DiagnosticUpdater(self)
        self._health.value("running", lambda: self._running)
        self._outcomes = self._health.meter("tasks")
        self._task = self.create_publisher(String, "task", qos.TASK)
        self._task.publish(String(data=""))
        self._select = self.create_client(SelectSource, "command_guard/select")
        self.create_subscription(SceneStatus, "sim/status", self._on_scene, qos.STATUS)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.STATUS)
        self.create_service(SetBool, "run_task/judge", self._on_judge)
        self.create_timer(_TICK, self._on_tick, clock=STEADY)
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
        self._end()

    def _end(self) -> None:
        if self.context.ok():  # not while a task that was under way is cleared away with the process
            self._task.publish(String(data=""))

    def _on_scene(self, message: SceneStatus) -> None:
        if message.success:
            self._success = str(message.instruction), time.monotonic()

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if (name := own_name(self, status)) in _NEEDED:
                self._on_status(name, status)

    def _on_status(self, name: str, status: DiagnosticStatus) -> None:
        now = time.monotonic()
        if status.level == DiagnosticStatus.OK:
            self._nodes[name] = GuardReport(now)
        else:
            last = self._nodes.get(name, GuardReport(now))
            since = now if last.wrong_since is None else last.wrong_since
            self._nodes[name] = GuardReport(now, since, status.message)
        if name == "command_guard":
            said = values(status)
            self._stop_requested = said.get("reason") == GuardReason.REQUESTED.value
            self._owner, self._owner_heard = said.get("owner", ""), now
        elif name == "controller":
            self._chunks = int(values(status).get("chunks total", "0"))

    def _on_judge(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = self._running
        if self._running:
            self._verdict, response.message = request.data, "the task ends"
        else:
            response.message = "no task is running"
        return response

    def _on_tick(self) -> None:
        ended, self._tick = self._tick, Future()
        ended.set_result(None)

    def _on_goal(self, goal: RunTask.Goal) -> GoalResponse:
        problem = None
        if not goal.instruction.strip():
            problem = "there is no instruction"
        elif not goal.time_limit >= 0:
            problem = f"the time limit is {goal.time_limit} s"
        if problem:
            self.get_logger().error(f"task refused: {problem}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> RunTask.Result:
        self._turn += 1
        turn, start = self._turn, time.monotonic()
        while self._running and turn == self._turn:  # the task before this one ends first, and leaves the arm at rest
            await self._tick
        outcome, reason = RunTask.Result.STOPPED, _REPLACED
        if turn == self._turn:
            self._running, self._stop_requested, self._verdict = True, False, None
            try:
                outcome, reason = await self._run(handle, turn)
            finally:
                self._end()
            await self._hand_over(NOBODY)
            self._running = False
        if handle.is_cancel_requested:
            handle.canceled()
        elif outcome in (RunTask.Result.SUCCEEDED, RunTask.Result.FINISHED):
            handle.succeed()
        else:
            handle.abort()
        self._outcomes.tick()
        self.get_logger().info(f"{handle.request.instruction!r}: {outcome} ({reason})")
        return RunTask.Result(outcome=outcome, reason=reason, elapsed=time.monotonic() - start)

    async def _run(self, handle: ServerGoalHandle, turn: int) -> tuple[str, str]:
        """The outcome and the reason for it."""
        goal: RunTask.Goal = handle.request
        result = RunTask.Result
        if problem := await self._wait_until_loaded(handle, turn):
            return result.STOPPED, problem
        start = time.monotonic()
        if problem := await self._hand_over("controller"):
            return result.STOPPED, problem
        self._task.publish(String(data=goal.instruction.strip()))
        chunks, tick = self._chunks, 0
        while True:
            elapsed = time.monotonic() - start
            if handle.is_cancel_requested:
                return result.STOPPED, "cancelled"
            if turn != self._turn:
                return result.STOPPED, _REPLACED
            if problem := self._problem(start):
                return result.STOPPED, problem
            if self._verdict is not None:
                return (result.SUCCEEDED, "a user says so") if self._verdict else (result.FINISHED, "a user ended it")
            if self._success[0] == goal.instruction.strip() and self._success[1] > start:
                return result.SUCCEEDED, "the simulator says so"
            if goal.time_limit and elapsed > goal.time_limit:
                return result.TIMEOUT, f"not done after {goal.time_limit:.0f} s"
            if tick % _FEEDBACK_EVERY == 0:
                followed = max(0, self._chunks - chunks)
                phase = "running" if followed else "waiting"
                handle.publish_feedback(RunTask.Feedback(phase=phase, elapsed=elapsed, steps=followed))
            tick += 1
            await self._tick

    async def _wait_until_loaded(self, handle: ServerGoalHandle, turn: int) -> str:
        """Wait for nodes that are still loading, and say so; return why the task ends before, or an empty string."""
        begin, ticks = time.monotonic(), 0
        while loading := self._loading():
            elapsed = time.monotonic() - begin
            if handle.is_cancel_requested:
                return "cancelled"
            if turn != self._turn:
                return _REPLACED
            if elapsed > _LOADING:
                return f"not ready after {_LOADING:.0f} s: {', '.join(loading)}"
            if ticks % _FEEDBACK_EVERY == 0:
                phase = f"waiting until {', '.join(loading)} {'is' if len(loading) == 1 else 'are'} ready"
                handle.publish_feedback(RunTask.Feedback(phase=phase, elapsed=elapsed))
                if ticks == 0:
                    self.get_logger().info(phase)
            ticks += 1
            await self._tick
        return ""

    def _loading(self) -> list[str]:
        """Return the needed nodes that are in the graph but have not reported yet."""
        there = {name for name, namespace in self.get_node_names_and_namespaces() if namespace == self.get_namespace()}
        return [name for name in _NEEDED if name in there and name not in self._nodes]

    def _problem(self, start: float) -> str:
        """Why the arm does not move for this task, and will not by itself; empty if nothing is wrong."""
        if self._stop_requested:
            return "the command guard was told to stop"
        now = time.monotonic()
        if self._owner != "controller" and self._owner_heard > start + _TAKEN_OVER:
            return f"the command guard lets {self._owner or NOBODY} move the arm"
        nodes = {name: self._nodes.get(name, GuardReport(start)) for name in _NEEDED}
        lasting = []
        for name, node in nodes.items():
            if node.wrong_since is not None and now - max(node.wrong_since, start) > _PATIENCE:
                lasting.append(f"{name}: {node.line}")
            elif now - max(node.heard, start) > _PATIENCE:
                lasting.append(f"{name} is silent")
        return "; ".join(lasting)

    async def _hand_over(self, source: str) -> str:
        """Let ``source`` move the arm; what is wrong, or an empty string."""
        deadline = time.monotonic() + _PATIENCE
        while not self._select.service_is_ready():
            if time.monotonic() > deadline:
                return "the command guard does not answer"
            await self._tick
        answer = self._select.call_async(SelectSource.Request(source=source))
        while not answer.done():
            if time.monotonic() > deadline:
                self._select.remove_pending_request(answer)
                return "the command guard does not answer"
            await self._tick
        response = answer.result()
        return "" if response.success else response.message


def main(args: list[str] | None = None) -> int:
    """Entry point of the process."""
    # the other executor cannot await before rclpy 7.1.9
    return run(TaskRunnerNode, args, executor=SingleThreadedExecutor, role="task_runner")


if __name__ == "__main__":
    sys.exit(main())
