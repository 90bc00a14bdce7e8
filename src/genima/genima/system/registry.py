"""Registries of tasks, policies, simulators and perturbations: one module each, in a package or a user's folder.

The environment variable ``GENIMA_PATH`` names the user's folders, separated as in PATH. Each is laid out like this:
``tasks/``, ``policies/``, ``simulators/`` and ``perturbations/`` with Python files, ``config/`` and ``calibration/`` as
in the source tree.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from genima.errors import GenimaError
from genima.io.files import describe_error, shorten
from genima.io.paths import user_folders

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Entries by name, one module each. Names are known without importing the modules."""

    def __init__(
        self,
        what: str,
        package: str,
        folder: str,
        create: Callable[[str, ModuleType], T],
        *,
        defines: Callable[[Path], bool] = lambda file: True,
        others: Mapping[str, str] | None = None,
    ) -> None:
        """Args:
        what: kind of the entries, for messages.
        package: the package that the project's own modules lie in.
        folder: name of the folder with modules in each of the user's folders.
        create: returns the entry of a module by name; raises a GenimaError for an incomplete one.
        defines: returns whether a module of the package is an entry, from its file.
        others: modules elsewhere, by name.
        """
        self._what, self._package, self._folder, self._create = what, package, folder, create
        self._defines, self._others = defines, dict(others or {})
        self._found: dict[str, tuple[str, T]] = {}  # module's file, entry
        self._added: list[str] = []  # the user's folders in the package's path

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules())

    def __len__(self) -> int:
        return len(self._modules())

    def __contains__(self, name: object) -> bool:
        """Return whether an entry has that name, without importing its module."""
        return name in self._modules()

    def __getitem__(self, name: str) -> T:
        """Raises:
        KeyError: for an unknown name.
        GenimaError: for a module that cannot be imported, and for an incomplete entry.
        """
        return self._entry(name, self._modules()[name])

    def find(self, name: str) -> T:
        """Return the entry of that name.

        Raises:
            GenimaError: for an unknown name, with the nearest known one; for a module that cannot be imported; and for
                an incomplete entry.
        """
        modules = self._modules()
        if name not in modules:
            guess = difflib.get_close_matches(name, modules, n=1)
            hint = f"; did you mean {guess[0]}?" if guess else ""
            known = f"known: {', '.join(modules)}"
            raise GenimaError(f"{self._what} {shorten(repr(name))}: unknown; {known}{hint}")
        return self._entry(name, modules[name])

    def file(self, name: str) -> str:
        """Return the file of an entry that has been loaded."""
        return self._found[name][0]

    def _modules(self) -> dict[str, str]:
        """Modules by name: the package's, those elsewhere, and the user's, which become modules of the package."""
        path = importlib.import_module(self._package).__path__
        folders = [str(folder / self._folder) for folder in user_folders() if (folder / self._folder).is_dir()]
        for folder in set(self._added) - set(folders):  # GENIMA_PATH has changed
            self._remove(folder)
        found = {name: file for name, file in _files(set(path) - set(folders)).items() if self._defines(file)}
        for folder in folders:
            for name, file in _files([folder]).items():
                if other := found.get(name) or self._others.get(name):
                    raise GenimaError(f"{self._what} {name}: the name is taken ({other}); rename {file}")
                found[name] = file
            if folder not in path:
                path.append(folder)
                self._added.append(folder)
                importlib.invalidate_caches()
        return dict(sorted({**{name: f"{self._package}.{name}" for name in found}, **self._others}.items()))

    def _remove(self, folder: str) -> None:
        self._added.remove(folder)
        importlib.import_module(self._package).__path__.remove(folder)
        for name in _files([folder]):
            self._found.pop(name, None)
            sys.modules.pop(f"{self._package}.{name}", None)

    def _entry(self, name: str, module: str) -> T:
        if name not in self._found:
            self._found[name] = self._load(name, module)
        return self._found[name][1]

    def _load(self, name: str, module_name: str) -> tuple[str, T]:
        try:
            module = importlib.import_module(module_name)
        except GenimaError:
            raise
        except Exception as error:  # a user's file may raise anything
            spec = importlib.util.find_spec(module_name)
            where = spec.origin if spec else name
            raise GenimaError(
                f"{self._what} {name}: the module cannot be imported ({describe_error(error)}); correct {where}"
            ) from None
        return str(module.__file__), self._create(name, module)


def subclass_factory(what: str, base: type[T]) -> Callable[[str, ModuleType], T]:
    """Return a function that creates the one subclass of ``base`` that a module defines."""

    def create(name: str, module: ModuleType) -> T:
        classes = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module.__name__
        ]
        if len(classes) != 1:
            found = ", ".join(cls.__name__ for cls in classes) or "none"
            raise GenimaError(
                f"{what} {name}: the module must define one subclass of {base.__name__} (it has {found}); "
                f"correct {module.__file__}"
            )
        cls = classes[0]
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if not missing:
            try:
                entry = cls()
            except Exception as error:
                raise GenimaError(
                    f"{what} {name}: class {cls.__name__} cannot be created ({describe_error(error)}); "
                    f"correct {module.__file__}"
                ) from None
            missing = _unset(entry)
        if missing:
            raise GenimaError(
                f"{what} {name}: class {cls.__name__} lacks {', '.join(missing)}; add them in {module.__file__}"
            )
        return entry

    return create


def _files(folders: Iterable[str]) -> dict[str, Path]:
    """Return the modules of folders, by name."""
    found = {}
    for folder in map(Path, folders):
        for module in pkgutil.iter_modules([str(folder)]):
            if not module.name.startswith("_"):
                file = folder / module.name / "__init__.py" if module.ispkg else folder / f"{module.name}.py"
                found[module.name] = file
    return found


def _unset(entry: object) -> list[str]:
    """Return public attributes that a class of the entry declares, and that are not set."""
    declared = {name for base in type(entry).__mro__ for name in vars(base).get("__annotations__", {})}
    return sorted(name for name in declared if not (name.startswith("_") or hasattr(entry, name)))
