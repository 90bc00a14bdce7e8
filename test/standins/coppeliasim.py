"""Stand-in for CoppeliaSim: ZeroMQ remote API over our simulated workcell, with RLBench's names.

The protocol is that of CoppeliaSim's add-on "ZMQ remote API server" (version 2): CBOR over REQ/REP. As there, a step
is answered with a request to wait, a stop takes effect with the next request and ends stepping, images have their
bottom row first, a vision sensor's z is forward and its y up, and a joint's frame rotates about its z, with its origin
anywhere on the axis. The world frame is not the robot's base. ::

    python test/standins/coppeliasim.py --port 23000
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable
from typing import Any

import cbor2
import numpy as np
import zmq
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from genima.robot.body import GRIPPER
from genima_sim.rendering import SceneRenderer
from genima_sim.simulation import Simulation

Array = NDArray[np.float64]
FINGER_OPEN = 0.04  # m
SCRIPT = "/genima"
_SENSORS = {
    "/cam_front": "front", "/cam_wrist": "wrist", "/cam_over_shoulder_left": "left_shoulder",
    "/cam_over_shoulder_right": "right_shoulder",
}  # fmt: skip
_BODIES = {f"/{name}": name for name in ("button", "saucepan", "lid")}
_CONSTANTS = {
    "handle_world": -1, "simulation_stopped": 0, "simulation_advancing_running": 17,
    "sceneobject_joint": 1, "sceneobject_visionsensor": 9, "sceneobject_dummy": 4,
    "floatparam_simulation_time_step": 1, "boolparam_realtime_simulation": 25,
    "jointintparam_dynctrlmode": 2030, "jointdynctrl_position": 4,
    "visionintparam_resolution_x": 1002, "visionintparam_resolution_y": 1003,
    "visionintparam_perspective_operation": 1018, "visionfloatparam_perspective_angle": 1004,
}  # fmt: skip
_WAIT, _EXECUTED = "_*wait*_", "_*executed*_"


class RemoteApiError(Exception):
    """Error in the reply to the client."""


class StandIn(threading.Thread):
    """Server in a thread; attributes may be set while it runs."""

    def __init__(self, port: int = 0, missing: tuple[str, ...] = (), simulation: Simulation | None = None) -> None:
        """Args:
        port: 0 chooses a free one.
        missing: objects that the scene does not have.
        simulation: the workcell, for exclusive use; None builds one.
        """
        super().__init__(name="CoppeliaSim", daemon=True)
        self.unresponsive = False  # receives requests, but does not reply
        self.requests: list[str] = []  # called functions
        self.perspective = 1
        self.T_world_base = np.eye(4)
        self.T_world_base[:3, :3] = Rotation.from_euler("z", 0.4).as_matrix()
        self.T_world_base[:3, 3] = -0.31, 0.02, 0.75
        self._socket = zmq.Context.instance().socket(zmq.REP)
        self._socket.setsockopt(zmq.LINGER, 0)
        address = f"tcp://127.0.0.1:{port or '*'}"
        self._socket.bind(address)
        self.port = int(self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rsplit(":", 1)[1])
        self.simulation = simulation or Simulation()
        self._views = self.simulation.cameras
        joints = [f"/Panda_joint{i}" for i in range(1, 8)]
        self.fingers = ["/Panda_gripper_joint1", "/Panda_gripper_joint2"]
        paths = ["/Panda", *joints, *self.fingers, *_SENSORS, *_BODIES, SCRIPT]
        self._paths = {10 + i: path for i, path in enumerate(paths) if path not in missing}
        self._handles = {path: handle for handle, path in self._paths.items()}
        self._joints = joints
        self._clients: dict[str, dict[str, Any]] = {}  # by uuid
        self._running = self._stopping = self._stepping = False
        self._time_step, self._free_until = 0.05, 0.0
        self._resolution = {path: [128, 128] for path in _SENSORS}
        self._renderer: SceneRenderer | None = None
        self._explicit: set[str] = set()
        self._images: dict[str, NDArray[np.uint8]] = {}
        self._ending = False
        functions = {f"sim.{name[4:]}": getattr(self, name) for name in dir(self) if name.startswith("sim_")}
        self._functions = functions | {"zmqRemoteApi.require": lambda name: None, "zmqRemoteApi.info": self._info}
        self._restore_scene()

    def close(self) -> None:
        """End the server as a crash does."""
        self._ending = True
        self.join()

    def run(self) -> None:
        while not self._ending:
            if self._socket.poll(5):
                raw = self._socket.recv()
                while self.unresponsive and not self._ending:
                    time.sleep(0.01)
                self._socket.send(cbor2.dumps(self._reply(cbor2.loads(raw))))
            self._run_freely()
        self._socket.close(0)
        self._end_rendering()

    def _end_rendering(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
        self._renderer = None

    # The protocol.

    def _reply(self, request: dict[str, Any]) -> dict[str, Any]:
        client = self._clients.get(request["uuid"])
        if client is None:
            if request.get("ver") != 2:
                return {"success": False, "error": "The client ZeroMQ remote API version does not match"}
            client = self._clients[request["uuid"]] = {"waits": False}
        function, arguments = request["func"], request["args"]
        if request["argsL"] != len(arguments):
            return {"err": "argsL is wrong"}
        if function == _EXECUTED:
            assert client["waits"], "no wait is pending"
            client["waits"] = False
            if self._running and self._stepping:
                self._advance(self._time_step)
            return {"ret": []}
        self.requests.append(function)
        if function == "sim.step":
            client["waits"] = True
            return {"func": _WAIT, "args": []}
        handler: Callable[..., Any] | None = self._functions.get(function)
        if handler is None:
            return {"err": f"No such function: {function}"}
        try:
            value = handler(*arguments)
        except RemoteApiError as error:
            return {"err": str(error)}
        return {"ret": [] if value is None else list(value) if isinstance(value, tuple) else [value]}

    def _info(self, name: str) -> dict[str, Any]:
        functions = {key.removeprefix("sim."): {"func": {}} for key in self._functions if key.startswith("sim.")}
        return functions | {"step": {"func": {}}} | {key: {"const": value} for key, value in _CONSTANTS.items()}

    # The simulation.

    def _restore_scene(self) -> None:
        """Restore the saved scene."""
        self.simulation.reset("push_button", 0)
        joints = self.simulation.joints()
        self._targets = dict(zip([*self._joints, *self.fingers], [*joints.positions, 0.04, 0.04], strict=True))

    def _advance(self, seconds: float) -> None:
        open_fraction = np.mean([self._targets[finger] for finger in self.fingers]) / FINGER_OPEN
        self.simulation.command(np.array([self._targets[joint] for joint in self._joints]), float(open_fraction))
        self.simulation.step(seconds)

    def _run_freely(self) -> None:
        now = time.monotonic()
        if self._running and not self._stepping and now > self._free_until:
            self._advance(self._time_step)
            self._free_until = max(self._free_until + self._time_step, now - 1.0)

    def _path(self, handle: int) -> str:
        if handle not in self._paths:
            raise RemoteApiError("Object does not exist. (in function 'sim.getObject')")
        return self._paths[handle]

    def sim_startSimulation(self) -> None:
        self._running, self._free_until = True, time.monotonic()

    def sim_stopSimulation(self, wait: bool = False) -> None:
        self._stopping, self._stepping = self._running, False

    def sim_getSimulationState(self) -> int:
        state = _CONSTANTS["simulation_advancing_running" if self._running else "simulation_stopped"]
        if self._stopping:
            self._running = self._stopping = False
            self._restore_scene()
        return state

    def sim_setStepping(self, enable: bool) -> int:
        self._stepping, before = enable, self._stepping
        return int(before)

    def sim_getSimulationTime(self) -> float:
        return self.simulation.time

    def sim_getSimulationTimeStep(self) -> float:
        return self._time_step

    def sim_setFloatParam(self, parameter: int, value: float) -> None:
        self._require_stopped()
        if parameter == _CONSTANTS["floatparam_simulation_time_step"]:
            self._time_step = value

    def sim_setBoolParam(self, parameter: int, value: bool) -> None:
        pass

    def _require_stopped(self) -> None:
        if self._running:
            raise RemoteApiError("Simulation is running.")

    # Objects.

    def sim_getObject(self, path: str, options: dict[str, Any] | None = None) -> int:
        if path not in self._handles and not (options or {}).get("noError"):
            raise RemoteApiError("Object does not exist. (in function 'sim.getObject')")
        return self._handles.get(path, -1)

    def sim_getObjectType(self, handle: int) -> int:
        path = self._path(handle)
        kind = "joint" if path in self._targets else "visionsensor" if path in _SENSORS else "dummy"
        return _CONSTANTS[f"sceneobject_{kind}"]

    def sim_getObjectParent(self, handle: int) -> int:
        path = self._path(handle)
        if path in (*self._joints[1:], "/cam_wrist"):
            return self._handles["/Panda_joint7" if path == "/cam_wrist" else f"/Panda_joint{int(path[-1]) - 1}"]
        return -1

    def sim_getObjectPose(self, handle: int, relative_to: int = -1) -> list[float]:
        T = self.T_world_base @ self._pose(self._path(handle))
        return [*T[:3, 3].tolist(), *Rotation.from_matrix(T[:3, :3]).as_quat().tolist()]

    def _pose(self, path: str) -> Array:
        """Return poses in the base frame, from the physics."""
        data, model = self.simulation.data, self.simulation.model
        T = np.eye(4)
        if path in self._joints:
            joint = model.joint(f"panda_joint{path[-1]}").id
            z = data.xaxis[joint]
            x = np.cross(z, [0.3, 0.5, 0.81])
            x /= np.linalg.norm(x)
            T[:3, :3] = np.column_stack([x, np.cross(z, x), z])
            T[:3, 3] = data.xanchor[joint] + 0.05 * z
        elif path in _SENSORS:
            camera = data.camera(_SENSORS[path])
            T[:3, :3] = camera.xmat.reshape(3, 3) @ np.diag([-1.0, 1.0, -1.0])  # MuJoCo looks along -z, y up
            T[:3, 3] = camera.xpos
        elif path in _BODIES:
            T = self.simulation.bodies()[_BODIES[path]]
        return T

    def sim_getObjectInt32Param(self, handle: int, parameter: int) -> int:
        path = self._path(handle)
        if parameter == _CONSTANTS["visionintparam_perspective_operation"]:
            return self.perspective
        return self._resolution[path][parameter - _CONSTANTS["visionintparam_resolution_x"]]

    def sim_setObjectInt32Param(self, handle: int, parameter: int, value: int) -> None:
        self._require_stopped()
        path = self._path(handle)
        if path in _SENSORS:
            self._resolution[path][parameter - _CONSTANTS["visionintparam_resolution_x"]] = value
            self._end_rendering()

    def sim_getObjectFloatParam(self, handle: int, parameter: int) -> float:
        view = _SENSORS[self._path(handle)]
        width, height = self._resolution[self._path(handle)]
        half = np.tan(np.radians(self.simulation.model.camera(view).fovy[0]) / 2)  # of the height
        return float(2 * np.arctan(half * max(width, height) / height))

    # Joints.

    def sim_getJointPosition(self, handle: int) -> float:
        path, data = self._path(handle), self.simulation.data
        if path in self.fingers:
            return FINGER_OPEN * self.simulation.robot.open_fraction(data.joint(GRIPPER + "finger_joint").qpos[0])
        return float(data.joint(f"panda_joint{path[-1]}").qpos[0])

    def sim_setJointTargetPosition(self, handle: int, target: float) -> None:
        path = self._path(handle)
        if path not in self._targets:
            raise RemoteApiError("Object is not a joint. (in function 'sim.setJointTargetPosition')")
        self._targets[path] = target

    # Vision sensors.

    def sim_setExplicitHandling(self, handle: int, flags: int) -> None:
        self._explicit.add(self._path(handle))

    def sim_handleVisionSensor(self, handle: int) -> int:
        if self._path(handle) not in self._explicit:
            raise RemoteApiError("Object is not tagged for explicit handling. (in function 'sim.handleVisionSensor')")
        path = self._path(handle)
        if self._renderer is None:
            sizes = {view: self._resolution[path] for path, view in _SENSORS.items()}
            cameras = {view: camera.scale(*sizes[view]) for view, camera in self._views.items()}
            self._renderer = SceneRenderer(self.simulation.model, cameras)
        self._images |= self._renderer.render(self.simulation.qpos(), self.simulation.model, [_SENSORS[path]])
        return 0

    def sim_getVisionSensorImg(self, handle: int) -> tuple[bytes, list[int]]:
        path = self._path(handle)
        width, height = self._resolution[path]
        image = self._images.get(_SENSORS[path], np.zeros((height, width, 3), np.uint8))
        return image[::-1].tobytes(), [width, height]

    # The scene's script.

    def sim_callScriptFunction(self, function: str, script: int, *arguments: Any) -> Any:
        assert self._path(script) == SCRIPT
        if function == "success":
            return self.simulation.success
        self.simulation.reset(*arguments)
        joints = self.simulation.joints()
        self._targets = dict(zip([*self._joints, *self.fingers], [*joints.positions, 0.04, 0.04], strict=True))
        return self.simulation.instruction


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=23000)
    server = StandIn(parser.parse_args().port)
    server.start()
    print(f"ready at port {server.port}", flush=True)
    server.join()


if __name__ == "__main__":
    main()
