"""Parameter, buffers and Module: state, masks, and the pairing of forward with backward."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Self

import numpy as np
from numpy.typing import DTypeLike

from ..arrays import Array, as_float_array, parameter_dtype
from ..errors import ArgumentError, ContextError, ShapeError, StateDictError
from ..workspace import Workspace
from .masks import Mask, masked
from .state import entry, inside


class Parameter:
    """An array that training changes, and its gradient.

    Attributes:
        data: the value, float32 or float64.
        grad: gradient of the sum of losses with respect to `data`; `backward` adds to it, None = none yet.
            It is this rank's share: `train` sums it over ranks.
    """

    def __init__(self, data: object, dtype: DTypeLike = np.float32) -> None:
        self.data: Array = np.array(data, dtype=parameter_dtype(dtype))
        self.grad: Array | None = None
        self._workspace = Workspace()

    def add_grad(self, gradient: Array) -> None:
        """Adds a gradient in the parameter's own shape and dtype."""
        total = self._workspace.take(self.data.shape, self.data.dtype)
        if self.grad is None:
            total[...] = gradient
        else:
            np.add(self.grad, gradient, out=total, casting="same_kind")
        self.grad = total

    def __repr__(self) -> str:
        return f"Parameter({self.data.dtype}, {self.data.shape})"


class Module:
    """Base of all layers. A subclass writes `_forward` and `_backward`; what surrounds them is the same for every layer, and here.

    The input must be floats; y and dx have its dtype. Where a position's weight is 0, `_forward` and `_backward` get x and dy as 0,
    whatever stands there, and y and dx are made 0. What `_forward` leaves for `_backward` waits until `backward` asks for the latest:
    so a layer may be used several times in one step, its backward passes in reverse order.

    Attributes:
        training: True: use and update batch statistics; False: use the stored ones.
        channel_axes: the axes of x that share one weight per position; None: told from the weights (`masks.masked`).
    """

    channel_axes: tuple[int, ...] | None = None

    def __init__(self) -> None:
        self.training = True
        self._contexts: list[tuple[tuple[int, ...], tuple[int, ...], np.dtype[Any], Mask | None, Any]] = []
        self._keeps_contexts = True
        self._buffers: list[str] = []
        self._workspace = Workspace()

    def __init_subclass__(cls) -> None:
        """Refuses the name that PyTorch would call."""
        super().__init_subclass__()
        if "forward" in vars(cls):
            expected = "_forward(x, counts), returning y and what _backward(dy, context) needs"
            do = "Write that, or, to work on the output of a layer, __call__(x, weights=None)."
            raise ArgumentError(f"class {cls.__name__}", got="a method forward", expected=expected, do=do)

    if not TYPE_CHECKING:  # which would then take every attribute for one that is there

        def __getattr__(self, name: str) -> NoReturn:
            """Told of what is not there: names the reason where that is all of a module."""
            if "_contexts" not in vars(self) and not name.startswith("__"):
                do = "Call super().__init__() first in the __init__ of that class."
                got = f"{name!r} before Module.__init__ was called"
                raise ArgumentError(f"class {type(self).__name__}", got=got, expected="a module that is set up", do=do)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    def __call__(self, x: Array, weights: object | None = None) -> Array:
        """Runs the forward pass; `weights` are frequency weights, one per position or one per row (0 masks it)."""
        x = as_float_array(x)
        self._check(x)
        counts = mask = None
        if weights is not None:
            counts, mask = masked(x, weights, self.channel_axes)
            x = mask.zeroed(x)
        given = self._forward(x, counts)
        if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[0], np.ndarray)):
            subject, got = f"{type(self).__name__}._forward", f"a {type(given).__name__}"
            do = "Return both: `return y, context`, or `return y, None`."
            raise ArgumentError(subject, got=got, expected="(y, context), an array and what _backward needs", do=do)
        y, context = given
        if y.dtype is not x.dtype:
            y = y.astype(x.dtype, copy=False)
        if mask:
            y = mask.zeroed(y)
        if self._keeps_contexts:
            self._contexts.append((x.shape, y.shape, x.dtype, mask, context))
        return y

    def backward(self, dy: Array) -> Array:
        """Takes d loss / d output of the latest forward pass, adds to the parameters' gradients, returns d loss / d input.

        Raises:
            ContextError: there is no forward pass that has had no backward pass.
            ShapeError: dy does not have the shape of the output.
        """
        dy = as_float_array(dy, "dy")
        if not self._contexts:
            subject, got = f"{type(self).__name__}.backward", "no forward pass to go back through"
            do = "Call the model first, outside nn.no_backward."
            raise ContextError(subject, got=got, expected="one forward for each backward", do=do)
        x_shape, y_shape, dtype, mask, context = self._contexts.pop()
        if dy.shape != y_shape:
            subject, do = f"{type(self).__name__} dy", "Pass the gradient of the latest forward pass."
            raise ShapeError(subject, got=dy.shape, expected=f"{y_shape}, the shape of y", do=do)
        if mask:
            dy = mask.zeroed(dy)
        dx = self._backward(dy, context)
        if np.shape(dx) != x_shape:
            subject, got = f"{type(self).__name__}._backward", f"a {type(dx).__name__} of {np.shape(dx)}"
            expected = f"an array of {x_shape}, the shape of x"
            raise ShapeError(subject, got=got, expected=expected, do="Return d loss / d x.")
        if dx.dtype is not dtype:
            dx = dx.astype(dtype, copy=False)
        return mask.zeroed(dx) if mask else dx

    def _check(self, x: Array) -> None:
        """Refuses an input of a wrong shape."""

    def _forward(self, x: Array, counts: Array | None) -> tuple[Array, Any]:
        """Returns the output for `x`, and what `_backward` needs. `counts` are the frequency weights, checked, for layers that count."""
        raise NotImplementedError(f"{type(self).__name__} has no _forward(x, counts), so it cannot be called")

    def _backward(self, dy: Array, context: Any) -> Array:
        """Takes d loss / d output, adds to the parameters' gradients, returns d loss / d input."""
        raise NotImplementedError(f"{type(self).__name__} has no _backward(dy, context)")

    def __repr__(self) -> str:
        indented = ((name, repr(child).replace("\n", "\n  ")) for name, child in self.named_children())
        children = "".join(f"\n  ({name}): {child}" for name, child in indented)
        own = ", ".join(f"{name} {p.data.shape}" for name, p in vars(self).items() if isinstance(p, Parameter))
        return f"{type(self).__name__}({own}{children}{chr(10) if children else ''})"

    def register_buffer(self, name: str, value: Array | None) -> None:
        """Stores an array that belongs to the state but is not trained (None: absent, as for a layer without statistics)."""
        setattr(self, name, value)
        self._buffers.append(name)

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules held directly by this one, by attribute name."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value

    def replace_child(self, name: str, module: Module) -> None:
        """Puts `module` in the place of the child of this name, one of `named_children`.

        Raises:
            ArgumentError: there is no such child, or that is no module.
        """
        names = [each for each, _ in self.named_children()]
        if name not in names or not isinstance(module, Module):
            subject, got = f"{type(self).__name__}.replace_child", f"{name!r} and a {type(module).__name__}"
            expected = f"a child's name ({', '.join(names) or 'it has none'}) and a module"
            do = "named_children() lists the children; of a dotted name, call it on the child."
            raise ArgumentError(subject, got=got, expected=expected, do=do)
        self._place(name, module)

    def _place(self, name: str, module: Module) -> None:
        setattr(self, name, module)

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module ("") and all below it, by dotted name; a module used twice comes once, under its first name."""
        _check_nothing_hidden(self)
        yield from self._places(prefix, set())

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        return (module for _, module in self._places("", set()))

    def _places(self, prefix: str, seen: set[int] | None) -> Iterator[tuple[str, Module]]:
        """Names and modules from here on, without those seen before; None: each under every name it has."""
        if seen is not None:
            if id(self) in seen:
                return
            seen.add(id(self))
        yield prefix, self
        for name, child in list(self.named_children()):  # whoever walks may change what is walked
            yield from child._places(f"{prefix}.{name}" if prefix else name, seen)

    def parameters(self) -> list[Parameter]:
        """All parameters below this module, each once, in a fixed order.

        Raises:
            ArgumentError: a module or parameter stands in a plain list, tuple or dict, where nobody finds it. (So do `train`,
                `eval`, `named_modules`, `state_dict` and `load_state_dict`.)
        """
        _check_nothing_hidden(self)
        return list({id(parameter): parameter for parameter in self._parameters()}.values())

    def zero_grad(self) -> None:
        """Forgets all gradients."""
        for parameter in self._parameters():
            parameter.grad = None

    def _parameters(self) -> Iterator[Parameter]:
        return (value for module in self.modules() for value in vars(module).values() if isinstance(value, Parameter))

    def train(self, mode: bool = True) -> Self:
        """Training mode for this module and all below it; returns itself."""
        _check_nothing_hidden(self)
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Evaluation mode: stored statistics, no talk; returns itself."""
        return self.train(False)

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by dotted name, PyTorch's names. A shared layer appears under each of its names."""
        return {key: np.array(getattr(owner, name)) for key, owner, name in self._state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Copies the arrays of a state dict into this module, keeping this module's dtypes. Nothing is changed on an error.

        As in PyTorch, an entry without axes may come with one of length 1, and `num_batches_tracked`, which old files do not have, may
        be missing: this module's stays.

        Raises:
            StateDictError: names are missing or unknown, a shape differs, or an entry is not numbers (a count: a whole number >= 0).
        """
        entries = {key: (owner, name) for key, owner, name in self._state()}
        missing = sorted(key for key in entries if key not in state and key.split(".")[-1] != "num_batches_tracked")
        unknown = sorted((key for key in state if key not in entries), key=str)
        if missing or unknown:
            got, expected = f"missing {missing}, unknown {unknown}", f"exactly the names {sorted(entries)}"
            do = "Load it into a model of the same structure."
            raise StateDictError("state_dict", got=got, expected=expected, do=do)
        converted = {key: entry(key, state[key], getattr(*place)) for key, place in entries.items() if key in state}
        for key, array in converted.items():
            setattr(*entries[key], array)

    def _state(self) -> Iterator[tuple[str, Any, str]]:
        """Lists (dotted name, object, its attribute) of the array of every parameter and buffer."""
        _check_nothing_hidden(self)
        for prefix, module in self._places("", None):
            dotted = f"{prefix}." if prefix else ""
            for name, value in list(vars(module).items()):
                if isinstance(value, Parameter):
                    yield dotted + name, value, "data"
                elif name in module._buffers and value is not None:
                    yield dotted + name, module, name


def _check_nothing_hidden(model: Module) -> None:
    """Makes sure that no module or parameter stands in a plain container only: it would not train, be saved or change its mode."""
    known = {id(each) for module in model.modules() for each in (module, *vars(module).values())}
    for module in model.modules():
        for name, value in vars(module).items():
            held = () if name == "_contexts" else inside(value)
            hidden = [each for each in held if isinstance(each, (Module, Parameter)) and id(each) not in known]
            if hidden:
                holder = f"a {type(value).__name__}"
                expected = "modules in an nn.ModuleList or nn.Sequential, or modules and parameters as attributes"
                do = f"Write self.{name} = nn.ModuleList(...), or make each an attribute: in {holder} it is not found."
                subject, got = f"{type(module).__name__}.{name}", f"{holder} that holds a {type(hidden[0]).__name__}"
                raise ArgumentError(subject, got=got, expected=expected, do=do)
