"""Classes found by their modules: one class a module, named after the module."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import os
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Generic, TypeVar

from genima.errors import GenimaError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Instances by name. Names are known without importing their modules; a class is created when it is looked up."""

    def __init__(self, what: str, package: str, base: type[T], variable: str) -> None:
        """Args:
        what: what the classes are, for messages.
        package: the package that the modules lie in.
        base: base class of each.
        variable: environment variable with further folders of modules, separated as in PATH.
        """
        self._what, self._package, self._base, self._variable = what, package, base, variable
        self._found: dict[str, T] = {}

    def __iter__(self) -> Iterator[str]:
        self._add_user_folders()
        path = importlib.import_module(self._package).__path__
        return iter(sorted({m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_")}))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __getitem__(self, name: str) -> T:
        """Raises:
        KeyError: for an unknown name.
        GenimaError: for a module that cannot be imported, and for a class that is incomplete.
        """
        if name not in self._found:
            if name not in list(self):
                raise KeyError(name)
            self._found[name] = self._create(name)
        return self._found[name]

    def get_or_refuse(self, name: str) -> T:
        """Return the instance of that name.

        Raises:
            GenimaError: for an unknown name, with the nearest known one; for a module that cannot be imported; and for
                a class that is incomplete.
        """
        names = list(self)
        if name not in names:
            guess = difflib.get_close_matches(name, names, n=1)
            hint = f"; did you mean {guess[0]}?" if guess else ""
            raise GenimaError(f"unknown {self._what} {name!r}; known {self._what}s: {', '.join(names)}{hint}")
        return self[name]

    def _add_user_folders(self) -> None:
        """Let modules in the folders of the environment variable be modules of the package."""
        path = importlib.import_module(self._package).__path__
        for folder in filter(None, os.environ.get(self._variable, "").split(os.pathsep)):
            if not Path(folder).is_dir():
                raise GenimaError(f"{self._variable}: no such folder ({folder}); set it to folders of {self._what}s")
            if (folder := str(Path(folder).absolute())) not in path:
                path.append(folder)
                importlib.invalidate_caches()

    def _create(self, name: str) -> T:
        try:
            module = importlib.import_module(f"{self._package}.{name}")
        except GenimaError:
            raise
        except Exception as error:  # a user's file may raise anything
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            spec = importlib.util.find_spec(f"{self._package}.{name}")
            where = spec.origin if spec else name
            raise GenimaError(
                f"{self._what} {name}: the module cannot be imported ({reason}); correct {where}"
            ) from None
        cls = self._only_class(name, module)
        if missing := sorted(getattr(cls, "__abstractmethods__", ())) + _unset(cls):
            raise GenimaError(
                f"{self._what} {name}: class {cls.__name__} lacks {', '.join(missing)}; add them in {module.__file__}"
            )
        return cls()

    def _only_class(self, name: str, module: ModuleType) -> type[T]:
        own = [
            value
            for value in vars(module).values()
            if inspect.isclass(value) and issubclass(value, self._base) and value.__module__ == module.__name__
        ]
        if len(own) != 1:
            found = ", ".join(cls.__name__ for cls in own) or "none"
            raise GenimaError(
                f"{self._what} {name}: the module must define one subclass of {self._base.__name__} (it has {found}); "
                f"correct {module.__file__}"
            )
        return own[0]


def _unset(cls: type) -> list[str]:
    """Class attributes that a base class declares without a value, and nobody has set."""
    declared = {
        name
        for base in cls.__mro__
        for name, kind in vars(base).get("__annotations__", {}).items()
        if "ClassVar" in str(kind)
    }
    return sorted(name for name in declared if not hasattr(cls, name))
