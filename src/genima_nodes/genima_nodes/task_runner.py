"""Node: run tasks for the action RunTask. Publish the task, give the arm to the controller, report the outcome.

A new task replaces the running one. The simulator judges the success of a task, or the user by `run_task/judge`.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.action.server import ServerGoalHandle
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import SetBool

from genima.types import TaskOutcome
from genima_interfaces.action import RunTask
from genima_interfaces.msg import GuardStatus, NodeStatus, SceneStatus
from genima_interfaces.srv import SelectSource
from genima_nodes.ros import qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater, measurements
from genima_nodes.ros.node_process import node_main
from genima_nodes.ros.paced_thread import STEADY

_TICK = 0.05  # s
_FEEDBACK_EVERY = 4  # ticks
_TIMEOUT = 5.0  # s for the command guard to respond, and for a fault to disappear
_LOADING_TIMEOUT = 900.0  # s for the first status of a node, which loads its model
_OWNER_TIMEOUT = 1.0  # s after which the guard's owner must be the controller
_SOLVED_TIME = 2.0  # s for which a scene is solved from the start of a task on: it was not reset
_REPLACED = "replaced by a new task"
_NEEDED = ("command_guard", "controller")  # nodes that a task needs, besides one of the policies
_POLICIES = ("diffusion_agent", "policy")


@dataclass
class _NodeReport:
    """Last status of a node; times are monotonic seconds."""

    received: float
    faulty_since: float | None = None
    message: str = ""


class TaskRunnerNode(Node):
    """Server of one task at a time. Single-threaded: to wait is to await the next tick."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node."""
        super().__init__("task_runner", **options)
        self._running = False
        self._turn = 0  # number of requested tasks
        self._scene: tuple[str, float, float] = "", 0.0, 0.0  # instruction; monotonic s, last unsolved and last solved
        self._verdict: bool | None = None  # of the user on the running task
        self._stop_requested = False
        self._owner, self._owner_time = "", 0.0  # of the arm; monotonic s of the guard's status
        self._chunks = 0
        self._nodes: dict[str, _NodeReport] = {}
        self._tick: Future = Future()
        self._diagnostics = DiagnosticUpdater(self)
        self._diagnostics.add_value("running", lambda: self._running)
        self._outcomes = self._diagnostics.add_topic("tasks")
        self._task = self.create_publisher(String, "task", qos.TASK)
        self._task.publish(String(data=""))
        self._select = self.create_client(SelectSource, "command_guard/select")
        self.create_subscription(SceneStatus, "sim/status", self._on_scene, qos.STATUS)
        self.create_subscription(NodeStatus, "node_status", self._on_node_status, qos.NODE_STATUS)
        self.create_subscription(GuardStatus, "command_guard/status", self._on_guard_status, qos.GUARD_STATUS)
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
        """End the task."""
        self._end()

    def _end(self) -> None:
        if self.context.ok():  # False when a running task is destroyed with the process
            self._task.publish(String(data=""))

    def _on_scene(self, message: SceneStatus) -> None:
        instruction, unsolved, solved = self._scene
        if message.instruction != instruction:
            unsolved = solved = 0.0
        now = time.monotonic()
        unsolved, solved = (unsolved, now) if message.success else (now, solved)
        self._scene = str(message.instruction), unsolved, solved

    def _on_node_status(self, message: NodeStatus) -> None:
        if message.node not in (*_NEEDED, *_POLICIES):
            return
        now = time.monotonic()
        if message.state == NodeStatus.OK:
            self._nodes[message.node] = _NodeReport(now)
        else:
            last = self._nodes.get(message.node, _NodeReport(now))
            since = now if last.faulty_since is None else last.faulty_since
            self._nodes[message.node] = _NodeReport(now, since, message.message)
        if message.node == "controller":
            self._chunks = int(measurements(message).get("chunks total", 0))

    def _on_guard_status(self, message: GuardStatus) -> None:
        self._stop_requested = message.reason == GuardStatus.STOP_REQUESTED
        self._owner, self._owner_time = message.owner, time.monotonic()

    def _on_judge(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        response.success = self._running
        if self._running:
            self._verdict, response.message = request.data, "the task ends"
        else:
            response.message = "no task is running"
        return response

    def _on_tick(self) -> None:
        tick, self._tick = self._tick, Future()
        tick.set_result(None)

    def _on_goal(self, goal: RunTask.Goal) -> GoalResponse:
        problem = None
        if not goal.instruction.strip():
            problem = "no instruction"
        elif not goal.time_limit >= 0:
            problem = f"time limit out of range ({goal.time_limit} s)"
        if problem:
            self.get_logger().error(f"task refused: {problem}")
            return GoalResponse.REJECT
        return GoalResponse.ACCEPT

    async def _execute(self, handle: ServerGoalHandle) -> RunTask.Result:
        self._turn += 1
        turn, start = self._turn, time.monotonic()
        while self._running and turn == self._turn:  # the previous task ends first, with the arm at rest
            await self._tick
        outcome, reason = TaskOutcome.STOPPED, _REPLACED
        if turn == self._turn:
            self._running, self._stop_requested, self._verdict = True, False, None
            try:
                outcome, reason = await self._run(handle, turn)
            finally:
                self._end()
            await self._select_owner(SelectSource.Request.NONE)
            self._running = False
        if handle.is_cancel_requested:
            handle.canceled()
        elif outcome in (TaskOutcome.SUCCEEDED, TaskOutcome.FINISHED):
            handle.succeed()
        else:
            handle.abort()
        self._outcomes.tick()
        self.get_logger().info(f"{handle.request.instruction!r}: {outcome.name} ({reason})")
        return RunTask.Result(outcome=outcome.value, reason=reason, elapsed=time.monotonic() - start)

    async def _run(self, handle: ServerGoalHandle, turn: int) -> tuple[TaskOutcome, str]:
        """Run the task to its end; return the outcome and its reason."""
        goal: RunTask.Goal = handle.request
        if problem := await self._wait_until_loaded(handle, turn):
            return TaskOutcome.STOPPED, problem
        start = time.monotonic()
        if problem := await self._select_owner(SelectSource.Request.CONTROLLER):
            return TaskOutcome.STOPPED, problem
        self._task.publish(String(data=goal.instruction.strip()))
        chunks, tick = self._chunks, 0
        while True:
            elapsed = time.monotonic() - start
            if handle.is_cancel_requested:
                return TaskOutcome.STOPPED, "cancelled by the user"
            if turn != self._turn:
                return TaskOutcome.STOPPED, _REPLACED
            if problem := self._problem(start):
                return TaskOutcome.STOPPED, problem
            if self._verdict is not None:
                return (TaskOutcome.SUCCEEDED if self._verdict else TaskOutcome.FINISHED), "judged by the user"
            instruction, unsolved, solved = self._scene
            if instruction == goal.instruction.strip() and solved > start:
                if unsolved > start:
                    return TaskOutcome.SUCCEEDED, "judged by the simulator"
                if solved > start + _SOLVED_TIME:
                    return TaskOutcome.STOPPED, "the scene is solved already; reset it"
            if goal.time_limit and elapsed > goal.time_limit:
                return TaskOutcome.TIMEOUT, f"not done after {goal.time_limit:.0f} s"
            if tick % _FEEDBACK_EVERY == 0:
                followed = max(0, self._chunks - chunks)
                phase = RunTask.Feedback.RUNNING if followed else RunTask.Feedback.WAITING
                handle.publish_feedback(RunTask.Feedback(phase=phase, elapsed=elapsed, steps=followed))
            tick += 1
            await self._tick

    async def _wait_until_loaded(self, handle: ServerGoalHandle, turn: int) -> str:
        """Wait for loading nodes, with feedback; return the reason if the task ends meanwhile, else ""."""
        begin, ticks = time.monotonic(), 0
        while loading := self._loading():
            elapsed = time.monotonic() - begin
            if handle.is_cancel_requested:
                return "cancelled by the user"
            if turn != self._turn:
                return _REPLACED
            if elapsed > _LOADING_TIMEOUT:
                return f"not ready after {_LOADING_TIMEOUT:.0f} s: {', '.join(loading)}"
            if ticks % _FEEDBACK_EVERY == 0:
                text = f"loading: {', '.join(loading)}"
                handle.publish_feedback(RunTask.Feedback(phase=RunTask.Feedback.LOADING, text=text, elapsed=elapsed))
                if ticks == 0:
                    self.get_logger().info(text)
            ticks += 1
            await self._tick
        return ""

    def _loading(self) -> list[str]:
        """Return the required nodes that are in the graph but have not published a status yet."""
        own = self.get_namespace()
        present = {name for name, namespace in self.get_node_names_and_namespaces() if namespace == own}
        return [name for name in self._needed(present) if name in present and name not in self._nodes]

    def _needed(self, present: Collection[str] = ()) -> tuple[str, ...]:
        """Return the required nodes, with the policy node of the newest status, else one of ``present``."""
        reporting = [name for name in _POLICIES if name in self._nodes]
        if reporting:
            policy = max(reporting, key=lambda name: self._nodes[name].received)
        else:
            policy = next((name for name in _POLICIES if name in present), _POLICIES[0])
        return (*_NEEDED, policy)

    def _problem(self, start: float) -> str:
        """Return the lasting fault for which the arm does not move; empty without one."""
        if self._stop_requested:
            return "stop requested at the command guard"
        now = time.monotonic()
        if self._owner != SelectSource.Request.CONTROLLER and self._owner_time > start + _OWNER_TIMEOUT:
            return f"owner of the arm: {self._owner or SelectSource.Request.NONE}"
        nodes = {name: self._nodes.get(name, _NodeReport(start)) for name in self._needed()}
        lasting = []
        for name, node in nodes.items():
            if node.faulty_since is not None and now - max(node.faulty_since, start) > _TIMEOUT:
                lasting.append(f"{name}: {node.message}")
            elif now - max(node.received, start) > _TIMEOUT:
                lasting.append(f"{name}: no status for {_TIMEOUT:.0f} s")
        return "; ".join(lasting)

    async def _select_owner(self, source: str) -> str:
        """Make ``source`` the arm's owner; return the problem, or an empty string."""
        deadline = time.monotonic() + _TIMEOUT
        while not self._select.service_is_ready():
            if time.monotonic() > deadline:
                return "command_guard/select: no response"
            await self._tick
        future = self._select.call_async(SelectSource.Request(source=source))
        while not future.done():
            if time.monotonic() > deadline:
                self._select.remove_pending_request(future)
                return "command_guard/select: no response"
            await self._tick
        response = future.result()
        return "" if response.success else response.message


# the other executor cannot await before rclpy 7.1.9
main = node_main(TaskRunnerNode, executor=SingleThreadedExecutor, role="task_runner")
