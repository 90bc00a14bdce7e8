"""Node: repeat the checks of `./genima doctor --live` and publish them on /diagnostics."""

from __future__ import annotations

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from genima.doctor import Finding, Status
from genima_nodes.ros import parameters, qos
from genima_nodes.ros.node_process import MONITOR_NICENESS, node_main
from genima_nodes.ros.paced_thread import STEADY
from genima_nodes.ros.topic_listener import CHECKUP, TopicListener

_LEVELS = {
    Status.OK: DiagnosticStatus.OK,
    Status.WARN: DiagnosticStatus.WARN,
    Status.FAIL: DiagnosticStatus.ERROR,
    Status.SKIPPED: DiagnosticStatus.STALE,
}


class CheckupNode(TopicListener):
    """Check of each period's messages."""

    def __init__(self) -> None:
        """Raises:
        GenimaError: for files that are missing or malformed, and a period out of range.
        """
        super().__init__(CHECKUP)
        cell = parameters.cell(self)
        period = parameters.number(self, "period", 5.0, 1.0)  # s
        self.expect(cell.views, cell.camera_devices, cell.load_cameras() if cell.calibrated else {}, cell.robot)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", qos.STATUS)
        self.create_timer(period, self._check, clock=STEADY)

    def _check(self) -> None:
        findings = [(group.title, each) for group in self.check() for each in group.findings]
        message = DiagnosticArray(status=[self._status(f"{title}: {each.what}", each) for title, each in findings])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)
        self.clear()

    def _status(self, name: str, finding: Finding) -> DiagnosticStatus:
        own = self.get_fully_qualified_name().removeprefix("/")
        text = finding.found + (f" -> {finding.remedy}" if finding.remedy else "")
        return DiagnosticStatus(level=_LEVELS[finding.status], name=f"{own}: {name}", message=text)


main = node_main(CheckupNode, MONITOR_NICENESS)
