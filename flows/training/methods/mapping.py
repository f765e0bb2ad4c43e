"""Every training method by its name in a recipe."""

from flows.training.methods.full import Full
from flows.training.methods.protocol import Method
from storage.errors import InvalidRequest

METHODS: dict[str, Method] = {"full": Full()}


def method_named(name: str) -> Method:
    """The method `name`. Raises InvalidRequest naming the known ones."""
    if name not in METHODS:
        raise InvalidRequest({"method": f"'{name}' is unknown; known are: {', '.join(METHODS)}"})
    return METHODS[name]
