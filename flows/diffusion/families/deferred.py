"""A part of a model that is read from its folder when it is first used, if it ever is: a training whose images and
prompts are encoded already needs neither VAE nor text encoders until it draws a sample."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_Use = Callable[[nn.Module], None]
_Uses = tuple[_Use, _Use]
_HOW = "_darkroom_deferred"
"""Where a module that was deferred keeps how it is read."""


class DeferredModule(nn.Module):
    """Holds no weights until somebody uses it, and is the real module from then on: the same object, whoever has it.

    Moving it, freezing it or listing its weights is no use of it.
    """

    def __init__(self, read: Callable[[], nn.Module]) -> None:
        super().__init__()
        self._defer(read, torch.device("cpu"), [])

    def _defer(self, read: Callable[[], nn.Module], place: torch.device, when_read: list[_Uses]) -> None:
        # As the real one is read: who notes the mode, uses the part and puts the mode back must not make it train.
        self.training: bool = False
        self.__dict__["_read"] = read
        self.__dict__["_place"] = place
        self.__dict__["_when_read"] = when_read

    def to(self, *args: Any, **kwargs: Any) -> DeferredModule:
        """Note the device, to which the weights go when they are read."""
        found = [one for one in (*args, *kwargs.values()) if isinstance(one, torch.device | str)]
        if found:
            self.__dict__["_place"] = torch.device(found[0])
        return self

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Read it and call it."""
        # Its class is the real module's by then, which has a forward of its own.
        return read_now(self).forward(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Read it: whoever asks for all weights uses them."""
        return read_now(self).state_dict(*args, **kwargs)

    def activation_checkpointing_enable(self) -> None:
        """Nothing: it does not train."""

    def activation_checkpointing_disable(self) -> None:
        """Nothing: it does not train."""

    def __getattr__(self, name: str) -> Any:
        """Asked for what only the real module has, it is read. Python's own names are not asked for by users."""
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(read_now(self), name)


def when_read(module: nn.Module, use: _Use, before_drop: _Use = lambda _: None) -> None:
    """Call `use` with the module as it is read, before anybody else has it: at once where nothing was deferred; and
    `before_drop` with it before its weights are dropped again.

    Of one that is read later its weights are on the CPU then, also where they go to another device.
    """
    if isinstance(module, DeferredModule):
        vars(module)["_when_read"].append((use, before_drop))
    else:
        use(module)
        if (how := vars(module).get(_HOW)) is not None:
            how[2].append((use, before_drop))


def is_read(module: nn.Module) -> bool:
    """Whether the module holds its weights."""
    return not isinstance(module, DeferredModule)


def read_now(module: nn.Module) -> nn.Module:
    """The module itself, with its weights if they were deferred: on the device that it was moved to."""
    if isinstance(module, DeferredModule):
        own = vars(module)
        how = (own["_read"], own["_place"], own["_when_read"])
        real = own["_read"]()
        for use, _ in own["_when_read"]:
            use(real)
        real = real.to(own["_place"])
        # Everybody who holds the object has the real module from now on: nobody has to be notified.
        own.clear()
        own.update(vars(real), **{_HOW: how})
        module.__class__ = type(real)
    return module


def drop_weights(module: nn.Module) -> None:
    """Drop the weights of a module that was deferred: it is read again when it is used. Any other stays as it is.

    For parts that do not train: what was changed in the weights since they were read is lost.
    """
    how = vars(module).get(_HOW)
    if how is not None:
        for _, before_drop in how[2]:
            before_drop(module)
        vars(module).clear()
        module.__class__ = DeferredModule
        nn.Module.__init__(module)
        assert isinstance(module, DeferredModule)
        module._defer(*how)  # pyright: ignore[reportPrivateUsage] - of this module
