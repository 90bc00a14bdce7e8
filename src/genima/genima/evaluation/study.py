"""Study: which policies are trained on which data, and evaluated on which tasks and perturbations.

Its file holds the commands of ``./genima`` that make datasets and checkpoints, so that each of them can be repeated by
hand; how they are ordered follows from the folders that they name.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Formatter
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from genima.errors import GenimaError
from genima.io.files import Count, FileSchema, NonNegative, Positive, Text, load_yaml
from genima.policy.spec import CONTROLLER, DIFFUSION_AGENT

NONE = "none"  # the unperturbed condition
EVALUATE = "eval"  # first part of the names of jobs that evaluate
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$"
Exclusions = dict[tuple[str, str], str]  # reasons why a task has no episodes of a condition, by both
Name = Annotated[str, Field(pattern=_NAME, max_length=64)]


def is_evaluation(job: str) -> bool:
    """Return whether the job of that name evaluates."""
    return job.startswith(f"{EVALUATE}/")


def _whole_or_part(gpus: float) -> float:
    if gpus > 1 and gpus != int(gpus):
        raise ValueError("must be a whole number, or a part of one GPU")
    return gpus


class Dataset(FileSchema):
    """Folder that a command makes."""

    command: Text
    """Command of ./genima; ``{out}`` is the folder, ``{NAME}`` that of another dataset, ``{tasks}`` all tasks."""
    hours: NonNegative = 0
    """Expected time of one core."""


class StudiedPolicy(FileSchema):
    """Policy, or a variant of one."""

    label: str = ""
    """Name in tables; without: the entry's name."""
    train: list[Text] = []
    """Commands of ./genima, one after the other; placeholders as in :class:`Dataset`."""
    hours: NonNegative = 0
    """Expected time of the training, of one core, or of ``gpus`` GPUs."""
    gpus: Annotated[float, Field(ge=0, le=64), AfterValidator(_whole_or_part)] = 0
    """GPUs of the training, or the part of one; an evaluation shares one where the training has some and ``evaluate``
    names no ``--device``."""
    checkpoint_of: Name | None = None
    """Policy whose checkpoint is evaluated, in place of a training."""
    agent_of: Name | None = None
    """Policy whose diffusion agent it has, beside the controller that ``train`` trains."""
    controller_of: Name | None = None
    """Policy whose controller it has, beside the agent that ``train`` trains."""
    policy: Text | None = None
    """Policy that needs no training, as ``--policy`` of ./genima eval."""
    evaluate: str = ""
    """Further options of ./genima eval."""
    episode_seconds: Positive = 5.0
    """Expected time of an episode on one core, or a GPU."""
    x: float | None = None
    """Position on the horizontal axis of the study's plot of success."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum((bool(self.train), self.checkpoint_of is not None, self.policy is not None)) != 1:
            raise ValueError("needs one of train, checkpoint_of and policy")
        if self.halves and (not self.train or len(self.halves) > 1):
            raise ValueError("agent_of, controller_of: need train, for the other half")
        return self

    @property
    def halves(self) -> dict[str, str]:
        """Policies that lend a half, by its kind."""
        named = {DIFFUSION_AGENT: self.agent_of, CONTROLLER: self.controller_of}
        return {kind: policy for kind, policy in named.items() if policy is not None}


class Perturbations(FileSchema):
    """Conditions beside the unperturbed one."""

    episodes: Count = 25
    """Episodes of each; their seeds are the first ones of the unperturbed condition, which are their twins."""
    conditions: Annotated[dict[Name, list[Text]], Field(min_length=1)]
    """Names of perturbations by condition."""


class Study(FileSchema):
    """Content of a study's file."""

    title: Text
    cell: Text = "sim_panda"
    tasks: Annotated[list[Text], Field(min_length=1)]
    options: dict[Name, Text] = {}
    """Options that several commands share, by the word ``{NAME}`` that stands for them."""
    datasets: dict[Name, Dataset] = {}
    policies: Annotated[dict[Name, StudiedPolicy], Field(min_length=1)]
    reference: Name | None = None
    """Policy that the others are compared with; without: the first."""
    episodes: Count = 50
    first_seed: Annotated[int, Field(ge=0, lt=100_000)] = 0  # demos are recorded with seeds from 100000 on
    checkpoints: Annotated[int, Field(ge=0, le=10)] = 0
    """Number of last checkpoints of each training that are evaluated, as in the paper; 0: the one with the best
    validation."""
    perturbations: Perturbations | None = None
    axis: str = ""
    """Label of the horizontal axis, for policies with ``x``."""
    spatial_map: Text | None = None
    """Task whose success is drawn over the places of its first object."""

    @model_validator(mode="after")
    def _references(self) -> Self:
        names = list(self.policies)
        if self.reference is not None and self.reference not in names:
            raise ValueError(f"reference: no policy {self.reference}")
        for name, policy in self.policies.items():
            source = policy.checkpoint_of
            for half in policy.halves.values():
                if half not in names[: names.index(name)] or not self.policies[half].train:
                    raise ValueError(f"policies.{name}: no trained policy {half} above it")
            if source is not None and (source not in names or not self.policies[source].train):
                raise ValueError(f"policies.{name}.checkpoint_of: no trained policy {source}")
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError("tasks: must be different")
        if self.perturbations and NONE in self.perturbations.conditions:
            raise ValueError(f"perturbations.conditions: {NONE} is the unperturbed one; use another name")
        if self.perturbations and self.perturbations.episodes > self.episodes:
            raise ValueError("perturbations.episodes: more than episodes; each needs its unperturbed twin")
        if self.spatial_map is not None and self.spatial_map not in self.tasks:
            raise ValueError(f"spatial_map: no task {self.spatial_map} in tasks")
        if self.axis and not any(policy.x is not None for policy in self.policies.values()):
            raise ValueError("axis: no policy has x")
        return self

    @property
    def lists(self) -> dict[str, list[str]]:
        """Words of commands by their placeholder."""
        return {"tasks": self.tasks, **{name: shlex.split(text) for name, text in self.options.items()}}

    @classmethod
    def load(cls, file: Path) -> Study:
        """Read a study.

        Raises:
            GenimaError: for a file that is missing, malformed, or refers to what it does not have.
        """
        return load_yaml(cls, file, "study")

    @property
    def compared_with(self) -> str:
        """Name of the policy that the others are compared with."""
        return self.reference or next(iter(self.policies))

    def label(self, policy: str) -> str:
        """Return the name of a policy in tables."""
        return self.policies[policy].label or policy

    @property
    def conditions(self) -> dict[str, list[str]]:
        """Perturbations by condition, the unperturbed one first."""
        return {NONE: [], **(self.perturbations.conditions if self.perturbations else {})}

    def seeds(self, condition: str) -> range:
        """Return the seeds of the episodes of a condition."""
        count = self.episodes if condition == NONE or not self.perturbations else self.perturbations.episodes
        return range(self.first_seed, self.first_seed + count)


def fill_command(
    text: str, folders: Mapping[str, str], lists: Mapping[str, Sequence[str]], where: str
) -> tuple[list[str], set[str]]:
    """Split a command of a study's file, and fill in its placeholders.

    Args:
        text: the command.
        folders: by placeholder.
        lists: words by placeholder, which must be a word of its own.
        where: subject of errors.

    Returns:
        the words, and the placeholders of ``folders`` that were used.

    Raises:
        GenimaError: for an unknown placeholder, and a command that is not one of a shell.
    """
    words: list[str] = []
    used: set[str] = set()
    try:
        for word in shlex.split(text):
            fields = {field for _, field, *_ in Formatter().parse(word) if field is not None}
            if word[1:-1] in lists and fields == {word[1:-1]}:
                words += lists[word[1:-1]]
                continue
            if unknown := sorted(fields - folders.keys()):
                known = ", ".join(f"{{{name}}}" for name in [*lists, *folders])
                raise GenimaError(f"{where}: unknown placeholder {{{unknown[0]}}}; known are {known}")
            used |= fields
            words.append(word.format(**folders))
    except ValueError as error:
        raise GenimaError(f"{where}: malformed command ({error})") from None
    return words, used
