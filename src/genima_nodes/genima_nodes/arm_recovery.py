"""Node: stop the guard when franka_ros2's robot has stopped, and recover the robot on request.

After a reflex, franka_ros2 deactivates its hardware component and all controllers. `robot/recover` clears the robot's
error, activates the component, and switches the controllers on again, the one that moves the arm last.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from action_msgs.msg import GoalStatus
from lifecycle_msgs.msg import State
from rclpy.action import ActionClient
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.task import Future
from std_srvs.srv import Trigger

from genima.cell import ROS_DRIVER
from genima.errors import GenimaError
from genima.robot.backend import ArmBackend
from genima_nodes.ros import parameters, qos
from genima_nodes.ros.diagnostics import DiagnosticUpdater
from genima_nodes.ros.node_process import node_main
from genima_nodes.ros.optional_messages import message_type
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.services import call_command

_TICK_PERIOD = 0.05  # s
_POLL = 0.5  # s between requests for the controllers' states
_TIMEOUT = 3.0  # s for a response of the controller manager
_RECOVERY_TIMEOUT = 15.0  # s for the robot: it may have to lock and open its brakes
_SETTLING_TIME = 0.3  # s until joint states are published, and arm_adapter has commanded the controller to hold there
_STRICT = 2  # SwitchController's constant


class ArmRecoveryNode(Node):
    """Monitor of franka_ros2's controllers. Single-threaded: to wait is to await the next tick."""

    def __init__(self, **options: Any) -> None:
        """``options`` are those of a node.

        Raises:
            GenimaError: for a backend without recovery, or whose messages are not installed.
        """
        super().__init__("arm_recovery", **options)
        cell = parameters.cell(self, ROS_DRIVER)
        backend = ArmBackend.load(parameters.text(self, "backend", cell.require_driver().arm or ""))
        if backend.recovery is None:
            raise GenimaError(f"backend {backend.name}: no recovery; do not start arm_recovery")
        self._controller, self._settings = backend.controller, backend.recovery
        manager = backend.recovery.manager

        def client(kind: str, name: str) -> Any:
            return self.create_client(message_type(f"controller_manager_msgs/srv/{kind}"), f"{manager}/{name}")

        self._list = client("ListControllers", "list_controllers")
        self._set_hardware = client("SetHardwareComponentState", "set_hardware_component_state")
        self._switch = client("SwitchController", "switch_controller")
        self._recovery_kind = message_type("franka_msgs/action/ErrorRecovery")
        self._recover = ActionClient(self, self._recovery_kind, self._settings.action)
        self._state_kind = message_type("franka_msgs/msg/FrankaRobotState")
        self._guard = self.create_client(Trigger, "command_guard/stop")
        self._tick: Future = Future()
        self._problem = ""  # reason why the robot cannot move
        self._was_active = False  # False while the driver starts: the guard is not stopped then
        self._recovering = False
        self._request: Future | None = None  # for the controllers' states
        self._sent_at = self._polled_at = float("-inf")  # monotonic s
        self._stopping: Future | None = None
        self._state_subscription: Subscription | None = None  # 1 kHz, only during a fault
        self._errors = ""  # error flags of the robot

        self._diagnostics = DiagnosticUpdater(self)
        self._diagnostics.add_value("controller", lambda: self._controller)
        self._diagnostics.add_value("recovering", lambda: self._recovering)
        self._diagnostics.add_value("last error", lambda: self._errors or "none")
        self._recoveries = self._diagnostics.add_topic("recoveries")
        group = ReentrantCallbackGroup()  # the recovery awaits other callbacks
        self.create_service(Trigger, "robot/recover", self._on_recover, callback_group=group)
        self.create_timer(_TICK_PERIOD, self._on_tick, clock=STEADY)

    def close(self) -> None:
        """Do nothing: the node has no threads."""

    def _on_tick(self) -> None:
        tick, self._tick = self._tick, Future()
        tick.set_result(None)
        now = time.monotonic()
        if self._request is not None and not self._request.done() and now - self._sent_at > _TIMEOUT:
            self._list.remove_pending_request(self._request)
            self._request = None
            self._update(f"{self._list.srv_name}: no response within {_TIMEOUT:.0f} s")
        elif self._request is None and now - self._polled_at > _POLL:
            self._polled_at = now
            if self._list.service_is_ready():
                self._request, self._sent_at = self._list.call_async(self._list.srv_type.Request()), now
                self._request.add_done_callback(self._on_controllers)
            else:
                self._update(f"{self._list.srv_name}: service not available; start the driver in this namespace")
        self._stop_guard()

    # Monitoring

    def _on_controllers(self, response: Future) -> None:
        if response is self._request:
            self._request = None
            states = {controller.name: controller.state for controller in response.result().controller}
            state = states.get(self._controller, "not loaded")
            self._update("" if state == "active" else f"controller {self._controller}: {state}")

    def _update(self, problem: str) -> None:
        if self._recovering:
            return  # updated at the end of the recovery
        if problem and not self._problem:
            self._stopping, self._errors = None, ""
        self._problem = problem
        self._was_active = self._was_active or not problem
        if problem:
            self._subscribe()
            errors = f" ({self._errors})" if self._errors else ""
            hint = f", by a reflex, the emergency stop or a lost connection; resume with {call_command(self, 'resume')}"
            self._diagnostics.set_fault("robot", f"{problem}{errors}{hint if self._was_active else ''}")
        else:
            self._diagnostics.clear_fault("robot")
            self._unsubscribe()

    def _stop_guard(self) -> None:
        """Request a stop of the guard after a stop of the robot, until the guard has confirmed it."""
        if not self._problem or not self._was_active or self._recovering or self._stopping is not None:
            return
        if self._guard.service_is_ready():
            self._stopping = self._guard.call_async(Trigger.Request())

    def _subscribe(self) -> None:
        if self._state_subscription is None:
            topic = self._settings.state
            self._state_subscription = self.create_subscription(
                self._state_kind, topic, self._on_state, qos.DRIVER_STATES
            )

    def _unsubscribe(self) -> None:
        if self._state_subscription is not None:
            self.destroy_subscription(self._state_subscription)
            self._state_subscription = None

    def _on_state(self, message: Any) -> None:
        modes = {
            self._state_kind.ROBOT_MODE_REFLEX: "reflex",
            self._state_kind.ROBOT_MODE_USER_STOPPED: "stopped by the user",
            self._state_kind.ROBOT_MODE_GUIDING: "guided by hand",
            self._state_kind.ROBOT_MODE_AUTOMATIC_ERROR_RECOVERY: "recovering",
        }
        errors = _active_flags(message.current_errors) or _active_flags(message.last_motion_errors)
        mode = [modes[message.robot_mode]] if message.robot_mode in modes else []
        self._errors = ": ".join([*mode, *([", ".join(errors)] if errors else [])]) or self._errors

    # Recovery

    async def _on_recover(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self._recovering:
            response.success, response.message = False, "robot/recover: already in progress"
            return response
        self._recovering = True
        try:
            response.message, response.success = await self._recover_robot(), True
        except GenimaError as error:
            response.success, response.message = False, str(error)
        finally:
            self._recovering = False
        if response.success:
            self._recoveries.tick()
            self._was_active = True
            self._update("")
        self.get_logger().info(response.message)
        return response

    async def _recover_robot(self) -> str:
        """Recover the robot; return the result as text."""
        if await self._is_active():
            return "robot: already active"
        self._subscribe()
        await self._clear_error()
        hardware = self._settings.hardware
        state = State(id=State.PRIMARY_STATE_ACTIVE, label="active")
        response = await self._call(self._set_hardware, name=hardware, target_state=state)
        if not response.ok:
            raise GenimaError(
                f"hardware component {hardware}: not activated ({response.state.label or 'no state'}); check its name, "
                "activate the robot's FCI and open its brakes"
            )
        await self._activate(self._settings.broadcasters)
        await self._wait_until(lambda: False, _SETTLING_TIME)
        await self._activate((self._controller,))
        if not await self._is_active():
            reason = self._errors or "see the log of its driver"
            raise GenimaError(f"controller {self._controller}: deactivated again ({reason})")
        return f"robot: recovered (it had stopped: {self._errors or 'unknown reason'})"

    async def _clear_error(self) -> None:
        if not self._recover.server_is_ready():
            raise GenimaError(f"action {self._settings.action}: not available; start the driver")
        name = "the robot's error recovery"
        handle = await self._await_response(self._recover.send_goal_async(self._recovery_kind.Goal()), _TIMEOUT, name)
        if not handle.accepted:
            raise GenimaError(f"{name}: rejected")
        result = await self._await_response(handle.get_result_async(), _RECOVERY_TIMEOUT, name)
        if result.status != GoalStatus.STATUS_SUCCEEDED:
            raise GenimaError(
                f"{name}: failed{f' ({self._errors})' if self._errors else ''}; release the emergency stop, move the "
                "arm by hand if it touches something or is beyond a limit, and resume again"
            )

    async def _activate(self, controllers: tuple[str, ...]) -> None:
        known = await self._states()
        if missing := [name for name in controllers if name not in known]:
            others = ", ".join(known) or "none"
            raise GenimaError(f"controller manager: no controller {', '.join(missing)}; it has {others}")
        inactive = [name for name in controllers if known[name] != "active"]
        if not inactive:
            return
        response = await self._call(self._switch, activate_controllers=inactive, strictness=_STRICT)
        if not response.ok:
            raise GenimaError(f"controller manager: {', '.join(inactive)} not activated; see the log of the driver")

    async def _is_active(self) -> bool:
        return (await self._states()).get(self._controller) == "active"

    async def _states(self) -> dict[str, str]:
        response = await self._call(self._list)
        return {controller.name: controller.state for controller in response.controller}

    async def _call(self, client: Any, **fields: object) -> Any:
        if not client.service_is_ready():
            raise GenimaError(f"{client.srv_name}: service not available; start the driver")
        future = client.call_async(client.srv_type.Request(**fields))
        try:
            return await self._await_response(future, _TIMEOUT, client.srv_name)
        finally:
            client.remove_pending_request(future)

    async def _await_response(self, future: Future, seconds: float, name: str) -> Any:
        if not await self._wait_until(future.done, seconds):
            raise GenimaError(f"{name}: no response within {seconds:.0f} s")
        return future.result()

    async def _wait_until(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait for a condition; return False if it was not true in time."""
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                return False
            await self._tick
        return True


def _active_flags(errors: Any) -> list[str]:
    """Return the names of the active errors, such as ``joint_velocity_violation``."""
    return [name for name in errors.get_fields_and_field_types() if getattr(errors, name)]


main = node_main(ArmRecoveryNode, executor=SingleThreadedExecutor)  # the other cannot await before rclpy 7.1.9
