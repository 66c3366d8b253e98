"""Code of the user's that runs in a writer: how a configuration names it, carries it, compares it, and finds it again.

What can be imported is carried as ``"package.module:name"``. A lambda, a closure, or what stands in the program's own
file can not be; dill pickles it by value. Two pickles of the same function differ from process to process (the order
of a set, the sharing of strings), so what is compared is a fingerprint of what the function does: its code, and the
values that it refers to.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

from redislogkit.config_values import Code
from redislogkit.errors import ConfigError

#: Entry points under this name are user-made writers and filters.
GROUP: Final = "redislogkit.writers"

#: What a fingerprint looks at: levels of references, and values in all.
_DEEPEST: Final = 12
_MOST_PARTS: Final = 100_000


def carry(target: Callable[..., object]) -> str | Code:
    """Return what stands for ``target`` in a configuration. Raises ``ValueError`` with the reason where nothing can."""
    if name := _import_name(target):
        return name
    try:
        pickled = _pickle(target)
    except Exception as error:  # whatever its parts raise
        raise ValueError(f"{type(error).__name__}: {error}".partition("\n")[0]) from None
    return Code(_shown(target), fingerprint(target), pickled)


def _pickle(target: object) -> bytes:
    import dill

    class Pickler(dill.Pickler):  # type: ignore[misc]
        """Leaves modules where they are; dill would take along the content of those that are not installed."""

        def reducer_override(self, value: object) -> Any:
            if isinstance(value, types.ModuleType) and value.__name__ != "__main__":
                return importlib.import_module, (value.__name__,)
            return NotImplemented

    file = io.BytesIO()
    Pickler(file, recurse=True).dump(target)
    return file.getvalue()


def find(reference: str | Code, key: str) -> Any:
    """Return the object that ``reference``, the value of ``key``, stands for. Raises ``ConfigError``."""
    shown = reference.name if isinstance(reference, Code) else repr(reference)
    try:
        found = _find(reference)
    except Exception as error:  # the user's module runs
        problem = (
            f"{key} must be something that can be loaded here, got {shown}: {type(error).__name__}: {error}"
        )
        raise ConfigError([f"{problem}; {_what_to_do(reference, error)}"]) from error
    if not callable(found):
        raise ConfigError(
            [f"{key} must be a function, a class or another callable, got {shown}, a {type(found)}"]
        )
    return found


def _find(reference: str | Code) -> Any:
    if isinstance(reference, Code):
        import dill

        return dill.loads(reference.pickled)  # noqa: S301 - it came from the program that launched us
    module, colon, name = reference.partition(":")
    if not colon:
        return _entry_point(reference)
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def _entry_point(name: str) -> Any:
    from importlib.metadata import entry_points

    known = entry_points(group=GROUP)
    for entry_point in known:
        if entry_point.name == name:
            return entry_point.load()
    raise LookupError(
        f"no installed package has an entry point of that name; known: {sorted(known.names) or 'none'}"
    )


def _what_to_do(reference: str | Code, error: Exception) -> str:
    if isinstance(reference, Code):
        return "what it uses must be importable in the supervisor's process, too"
    if ":" not in reference:
        return f'install the package, or write "package.module:name"; the group of entry points is {GROUP}'
    if isinstance(error, ImportError):
        return "install the package, set PYTHONPATH, or put the module beside the configuration"
    return "mend the module, or name something else"


def extend_path(folders: Iterable[str]) -> None:
    """Append what is missing to ``sys.path``."""
    sys.path += [folder for folder in dict.fromkeys(folders) if folder not in sys.path]


def _import_name(target: object) -> str:
    """Return ``"module:name"`` where importing that gives ``target``; else an empty text."""
    module, name = getattr(target, "__module__", None), getattr(target, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module in ("__main__", "__mp_main__"):
        return ""
    found: object = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is target and found is not None else ""


def _shown(target: object) -> str:
    kind = target if hasattr(target, "__qualname__") else type(target)
    return f"{getattr(kind, '__module__', '')}.{getattr(kind, '__qualname__', '')}"[:200]


# --- fingerprints ------------------------------------------------------------------------------------------


def fingerprint(target: object) -> str:
    """Return 64 hexadecimal digits that are equal for callables of equal code that refer to equal values.

    Where the code stands (file, line) does not count. Of objects that are no plain data, their type and attributes do.
    """
    digest = hashlib.sha256()
    for part in islice(_parts(target, frozenset(), 0), _MOST_PARTS):
        digest.update(part.encode("utf-8", "backslashreplace") + b"\0")
    return digest.hexdigest()


def _parts(value: Any, above: frozenset[int], depth: int) -> Iterator[str]:
    """Yield texts that say what ``value`` is."""
    kind = type(value)
    yield f"{kind.__module__}.{kind.__qualname__}"
    if value is None or kind in (bool, int, float, complex, str, bytes):
        yield repr(value)
        return
    if depth > _DEEPEST or id(value) in above:
        return
    if name := _import_name(value):
        yield name
        return
    below = above | {id(value)}
    for part in _content(value):
        yield from _parts(part, below, depth + 1)
    if kind in (set, frozenset):
        yield from sorted("\0".join(_parts(item, below, depth + 1)) for item in value)


def _content(value: Any) -> Iterable[Any]:
    """Return what a value that is no scalar consists of, in an order that is the same in every process."""
    if isinstance(value, types.FunctionType):
        return (value.__code__, value.__defaults__, value.__kwdefaults__, _cells(value), _globals(value))
    if isinstance(value, types.CodeType):
        return (
            value.co_code, value.co_consts, value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars,
            value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags,
        )  # fmt: skip
    if isinstance(value, types.ModuleType):
        return (value.__name__,)
    if isinstance(value, types.MethodType):
        return (value.__func__, value.__self__)
    if isinstance(value, functools.partial):
        return (value.func, value.args, value.keywords)
    if isinstance(value, type):
        members = {name: member for name, member in vars(value).items() if name not in _NOT_MEMBERS}
        return (value.__qualname__, value.__bases__, members)
    if isinstance(value, dict):
        return [part for name in sorted(value, key=repr) for part in (name, value[name])]
    if isinstance(value, (list, tuple)):
        return value
    if isinstance(value, (staticmethod, classmethod)):
        return (value.__func__,)
    if isinstance(value, property):
        return (value.fget, value.fset, value.fdel)
    return (getattr(value, "__dict__", None),)


_NOT_MEMBERS: Final = frozenset(
    ["__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__"]
)


def _cells(function: types.FunctionType) -> list[Any]:
    found = []
    for cell in function.__closure__ or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:  # not set yet
            found.append(None)
    return found


def _globals(function: types.FunctionType) -> dict[str, Any]:
    """Return the globals that the function refers to, also from within functions inside of it."""
    names: set[str] = set()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    found = function.__globals__
    return {name: found[name] for name in sorted(names) if name in found}
