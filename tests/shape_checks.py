"""Shapes in annotations are checked while tests run: `Float[Tensor, "b 55 3"]` of `geometry`, `body` and `model`.

The package only names them for readers and type checkers; nothing of this runs outside of the tests. Functions whose
annotations name shapes are wrapped as their modules are imported: import this before anything of the package.
"""

from __future__ import annotations

import functools
import importlib.machinery
import re
import sys
import types
from typing import Any

ROOMS = ("wholebody.geometry", "wholebody.body", "wholebody.model")
KINDS = ("Bool", "Float", "Float64", "Int", "Shaped")
_NAMES_SHAPES = re.compile(rf"\b(?:{'|'.join(KINDS)})\[")
checked: dict[str, int] = {}
"""How many functions of each module are wrapped."""


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if not name.startswith(ROOMS):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(importlib.machinery.SourceFileLoader):
    def exec_module(self, module: types.ModuleType) -> None:
        super().exec_module(module)
        checked[module.__name__] = 0
        for name, thing in list(vars(module).items()):
            if getattr(thing, "__module__", None) != module.__name__:
                continue
            if isinstance(thing, types.FunctionType):
                setattr(module, name, _wrap(thing, module))
            elif isinstance(thing, type):
                for key, method in list(vars(thing).items()):
                    if isinstance(method, types.FunctionType):
                        setattr(thing, key, _wrap(method, module))


def _wrap(function: types.FunctionType, module: types.ModuleType) -> Any:
    import beartype
    import jaxtyping
    import torch

    named = {key: text for key, text in function.__annotations__.items() if _NAMES_SHAPES.search(str(text))}
    if not named:
        return function
    scope = {kind: getattr(jaxtyping, kind) for kind in KINDS} | {"Tensor": torch.Tensor} | vars(module)
    shapes = {key: eval(text, scope) for key, text in named.items()}
    copy = types.FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    copy.__kwdefaults__, copy.__annotations__ = function.__kwdefaults__, shapes
    checking = jaxtyping.jaxtyped(copy, typechecker=beartype.beartype)
    checked[module.__name__] += 1

    @functools.wraps(function)
    def run(*arguments: Any, **options: Any) -> Any:
        # What is being compiled, exported or vectorised has no shapes of its own to look at.
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return function(*arguments, **options)
        return checking(*arguments, **options)

    return run


sys.meta_path.insert(0, _Finder())
