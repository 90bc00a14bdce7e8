"""`./genima trial`: dialogue with the operator, blinding, safe switching, resuming, one error line for bad input."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rclpy.task import Future

from genima.errors import GenimaError
from genima.evaluation.blinded_policy import BlindedPolicy
from genima.evaluation.trials import TrialFile, load_protocol
from genima.types import TaskOutcome
from genima_cli import trial
from genima_interfaces.msg import SceneDifference
from genima_interfaces.srv import SelectSource

pytestmark = pytest.mark.usefixtures("signal_handlers")

PROTOCOL = """
instruction: push down the maroon button
setup: put the button back
variants: {near: the button is near}
success: pressed
trials: 2
task: push_button
"""


class StandInDriver:
    """Graph whose tasks end at once; refuses a policy that is switched while the controller owns the arm."""

    def __init__(self) -> None:
        self.owner = SelectSource.Request.NONE
        self.guard: SimpleNamespace | None = None  # newest status
        self.seeds: list[int] = []
        self.selected: list[str] = []  # side of each task
        self.side = ""
        self.outcome = TaskOutcome.TIMEOUT
        self.interrupt_at = -1  # number of a task
        self.ended = 0

    def wait_ready(self, *_: Any) -> None: ...

    def problem(self, name: str) -> str:
        return ""

    def reset(self, task: str, seed: int, alive: Callable[[], None]) -> str:
        self.seeds.append(seed)
        return "push down the maroon button"

    def begin_task(self, instruction: str, time_limit: float, alive: Callable[[], None]) -> Future:
        self.selected.append(self.side)
        self.owner = SelectSource.Request.CONTROLLER
        if len(self.selected) == self.interrupt_at:
            raise KeyboardInterrupt
        future = Future()
        result = SimpleNamespace(outcome=self.outcome.value, reason="not done after 60 s", elapsed=60.0)
        future.set_result(SimpleNamespace(result=result))
        self.owner = SelectSource.Request.NONE
        return future

    def end_task(self) -> bool:
        self.ended += 1
        self.owner = SelectSource.Request.NONE
        return True

    def spin_until(self, done: Callable[[], bool], timeout: float, alive: Callable[[], None]) -> bool:
        self.guard = SimpleNamespace(owner=self.owner)
        return done()

    def wait_for(self, future: Future, *_: Any) -> Any:
        return future.result()


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandInDriver:
    driver = StandInDriver()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENIMA_POLICY_TOKEN", raising=False)
    (tmp_path / "mine.yaml").write_text(PROTOCOL, encoding="utf-8")
    monkeypatch.setattr(trial, "_graph", lambda *_: contextlib.nullcontext((driver, lambda: None)))

    def select(self: BlindedPolicy, side: str) -> None:
        assert driver.owner != SelectSource.Request.CONTROLLER
        driver.side = side

    monkeypatch.setattr(BlindedPolicy, "select", select)
    return driver


def answer(monkeypatch: pytest.MonkeyPatch, verdict: Callable[[], str]) -> list[str]:
    """Answer questions: verdicts by the function, others by Enter; return all that was asked."""
    asked: list[str] = []

    def read(prompt: str) -> str:
        asked.append(prompt)
        return verdict() if prompt.startswith("success (s)") else ""

    monkeypatch.setattr("builtins.input", read)
    return asked


COMMAND = ["mine.yaml", "--policy", "expert", "expert", "--port", "0"]


def test_pairs_share_their_scene_and_the_order_is_hidden(
    driver: StandInDriver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = iter(["s it was quick", "?", "f", "n camera fell", "s", "f"])
    asked = answer(monkeypatch, lambda: next(answers))
    assert trial.main([*COMMAND, "--seed", "3"]) == 0
    out = capsys.readouterr().out
    assert driver.seeds == [3, 3, 4, 4, 4] and sorted(driver.selected[:2]) == ["a", "b"]
    assert driver.selected[2] == driver.selected[3] != driver.selected[4]  # the trial that did not count is repeated
    before, _, report = out.partition("A: expert")
    assert "trial 4 of 4" in before and "expert" not in before and "no difference found" in report
    assert not any("expert" in question for question in asked)
    result = json.loads(Path("runs/trials/mine.json").read_text(encoding="utf-8"))
    assert [each["verdict"] for each in result["trials"]] == ["success", "failure", "not counted", "success", "failure"]
    assert result["trials"][0]["note"] == "it was quick" and len(result["pairs"]) == 2
    assert "TIMEOUT" in result["trials"][0]["ended"]


def test_interrupted_task_ends_and_the_same_command_resumes(
    driver: StandInDriver, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(monkeypatch, lambda: "s")
    driver.interrupt_at = 2
    assert trial.main(COMMAND) == 130
    assert driver.ended == 1 and driver.owner == SelectSource.Request.NONE
    assert "1 of 4 trials are in runs/trials/mine.json" in capsys.readouterr().out
    assert trial.main(COMMAND) == 0
    assert driver.selected[1] == driver.selected[2] != driver.selected[0] and len(driver.selected) == 5
    asked = answer(monkeypatch, lambda: "s")
    assert trial.main(COMMAND) == 0 and not asked  # complete: prints the report again
    with pytest.raises(GenimaError, match="of another run .seed: 0, not 1"):
        trial.main([*COMMAND, "--seed", "1"])


def test_policy_is_not_switched_while_another_task_runs(driver: StandInDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, lambda: "s")
    driver.owner = SelectSource.Request.CONTROLLER
    with pytest.raises(GenimaError, match="controller owns the arm; end its task with ./genima call stop"):
        trial.main(COMMAND)
    assert driver.selected == []


def test_scene_is_compared_with_its_demo_before_the_arm_moves(
    driver: StandInDriver, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = load_protocol("mine.yaml")
    statuses = [  # the operator corrects the scene of the first trial, and starts the second one all the same
        SceneDifference(views=["front", "wrist"], differences=[0.041, 0.0]),
        SceneDifference(views=["front", "wrist"], differences=[0.0, 0.0], matches=True),
        SceneDifference(problem="wrist: no image yet"),
    ] + [SceneDifference(matches=True)] * 2
    shown: list[str] = []

    def call(kind: type, name: str, request: Any, alive: Callable[[], None]) -> Any:
        shown.append(Path(request.folder).name)
        return SimpleNamespace(success=True)

    def create_subscription(kind: type, topic: str, callback: Callable[[Any], None], profile: Any) -> None:
        callback(statuses.pop(0))

    monkeypatch.setattr(driver, "call", call, raising=False)
    monkeypatch.setattr(driver, "create_subscription", create_subscription, raising=False)
    monkeypatch.setattr(driver, "destroy_subscription", lambda _: None, raising=False)
    asked: list[str] = []

    def read(prompt: str) -> str:
        asked.append(prompt)
        return "f" if prompt.startswith("success (s)") else "y" if "no image yet" in prompt else ""

    monkeypatch.setattr("builtins.input", read)
    options = trial.TrialOptions("mine.yaml", ("expert", "expert"))
    results = TrialFile(protocol, 0, False, {}, tmp_path / "result.json")
    blinded = SimpleNamespace(select=lambda side: None)
    demos = [Path("demo-0"), Path("demo-1")]
    trial._Session(options, protocol, blinded, results, driver, lambda: None, demos, False).run()  # type: ignore[arg-type]
    assert shown == ["demo-0", "demo-0", "demo-1", "demo-1"] and not statuses and results.next_trial() is None
    questions = [question for question in asked if "differs" in question]
    assert "front 4.1%, wrist 0.0%" in questions[0] and "wrist: no image yet" in questions[1] and len(questions) == 2
    assert driver.seeds == [] and "setup: put the button back" in capsys.readouterr().out


def test_unconfirmed_end_of_a_task_is_an_error(driver: StandInDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, lambda: "s")
    driver.end_task = lambda: False  # type: ignore[method-assign]
    driver.interrupt_at = 1
    with pytest.raises(GenimaError, match="end of the task not confirmed; stop the arm with ./genima call stop"):
        trial.main(COMMAND)


def test_end_of_input_interrupts(driver: StandInDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr("builtins.input", read)
    assert trial.main(COMMAND) == 130 and driver.selected == []


@pytest.mark.parametrize(("arguments", "named"), [
    (["lid_of", "--policy", "expert", "expert"], "lid_of.yaml not found"),
    (["lid_off", "--policy", "expert", "expert"], "no task of simulated cell sim_panda"),
    (["mine.yaml", "--policy", "expert", "expret"], "mean expert"),
    (["mine.yaml", "--policy", "expert", "genima", "--cell", "sim_fr3"], "was trained for joints"),
    ([*COMMAND, "--out", "result.txt"], ".json"),
    ([*COMMAND, "--starts", "."], "resets the scenes of sim_panda"),
    ([*COMMAND, "--cell", "nowhere"], "nowhere.yaml not found"),
])  # fmt: skip
def test_bad_input_is_rejected_in_one_line(driver: StandInDriver, arguments: list[str], named: str) -> None:
    with pytest.raises(GenimaError) as caught:
        trial.main(arguments)
    assert named in str(caught.value) and "\n" not in str(caught.value)
    assert not Path("runs").exists()


def test_each_pair_needs_a_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genima.data.episodes.folders.find_episodes", lambda folder: [Path("demo")])
    assert trial._starts(None, 2) == [] and trial._starts(Path("demos"), 1) == [Path("demo")]
    with pytest.raises(GenimaError, match="--starts demos: 1 demos for 2 pairs of trials; record more"):
        trial._starts(Path("demos"), 2)
