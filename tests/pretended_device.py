"""A device that is not there: tensors that say they are on it, computed on the CPU.

Operations that mix devices fail as they do with a GPU, so that a machine without one can test that everything is moved
where it must be. Once `pretend()` was called torch is another one for the rest of the process.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

aten = torch.ops.aten
MIXES = {aten._to_copy.default, aten.copy_.default, aten.to.other, aten.type_as.default}
"""What may take tensors of two devices, beside indexing."""
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""A tensor on a GPU may be indexed by tensors on the CPU, not the other way round."""


class Pretended(torch.Tensor):
    """A tensor whose numbers are on the CPU and whose device is `pretended:0`."""

    _held: torch.Tensor

    @staticmethod
    def __new__(cls, real: torch.Tensor) -> Pretended:
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            real.shape,
            strides=real.stride(),
            storage_offset=real.storage_offset(),
            dtype=real.dtype,
            layout=real.layout,
            requires_grad=real.requires_grad,
            device="pretended:0",
        )
        made._held = real
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def tolist(self) -> Any:
        """As of any tensor; torch refuses it to subclasses."""
        return self._held.tolist()

    def new_tensor(self, data: Any, **kwargs: Any) -> torch.Tensor:
        """As of any tensor; torch makes it where no mode sees it."""
        return Pretended(self._held.new_tensor(data, **kwargs))

    def __getitem__(self, key: Any) -> torch.Tensor:
        """As of any tensor; torch moves a list where no mode sees it."""
        parts = key if isinstance(key, tuple) else (key,)
        made = tuple(torch.tensor(part) if isinstance(part, list) else part for part in parts)
        return super().__getitem__(made if isinstance(key, tuple) else made[0])

    def __repr__(self) -> str:
        return f"Pretended({self._held})"


class Backend(_DummyBackendModule):
    """What torch asks of a backend."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """For autocast."""
        return [torch.bfloat16]


class Pretending(TorchDispatchMode):
    """Makes new tensors on the device, which no argument announces."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """One operation, on the CPU; its results are where they would be."""
    leaves = tree_flatten((args, kwargs))[0]
    flat = [value for value in leaves if isinstance(value, torch.Tensor)]
    there = [value for value in flat if isinstance(value, Pretended)]
    here = [value for value in flat if not isinstance(value, Pretended) and value.ndim]
    lenient = func in MIXES or (func in INDEXED and isinstance(args[0], Pretended))
    if there and here and not lenient:
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, found pretended:0 and cpu")
    asked = [value for value in leaves if isinstance(value, torch.device)]
    on_it = bool(there) if not asked else asked[0].type == "pretended"
    if func is aten.copy_.default:
        on_it = isinstance(args[0], Pretended)

    def real(value: Any) -> Any:
        if isinstance(value, torch.device):
            return torch.device("cpu")
        return value._held if isinstance(value, Pretended) else value

    out = func(*tree_map(real, args), **tree_map(real, kwargs))
    itself = {id(value._held): value for value in there} | {id(value): value for value in here}

    def placed(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        known = itself.get(id(value))
        if known is None:
            return Pretended(value) if on_it else value
        if isinstance(known, Pretended) == on_it:
            return known
        # Moved: on the CPU it was a move to where it is.
        return Pretended(value.clone()) if on_it else value.clone()

    return tree_map(placed, out)


def pretend() -> None:
    """From now on this process has the device `pretended`."""
    made = torch.tensor

    def tensor(data: Any, *, device: Any = None, **kwargs: Any) -> torch.Tensor:
        return made(data, **kwargs) if device is None else made(data, **kwargs).to(device)

    torch.tensor = tensor
    _setup_privateuseone_for_python_backend("pretended", Backend())
    Pretending().__enter__()
