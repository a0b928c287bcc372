"""Base of the SDK's read-only records: what a `typing.NamedTuple` is, at a fifth of its cost at import.

Owns: `Frozen`. Place: leftmost, beside `errors`. Pure.

A class made by `typing.NamedTuple` costs an import 0.07 ms, a frozen dataclass with slots 0.5 ms, one of these 0.014;
there are some forty (`python -m tests.bench.bench_footprint`; decision 0009).
"""

from __future__ import annotations

from operator import itemgetter
from typing import Any, ClassVar, Self, dataclass_transform

# A field is its place in the tuple, whatever the record: one property for each, shared by all.
_PLACES: list[property] = []


@dataclass_transform(frozen_default=True)
class Frozen(tuple[Any, ...]):
    """A tuple with named fields: ``class Point(Frozen)`` with annotated fields in order, those with a default last.

    Made with values by position or by name; equal, ordered, hashed and taken apart as a tuple. Every annotation is a
    field: no class variables.

    Raises:
        TypeError: a field without a value, a value without a field, or a subclass of such a class.
        AttributeError: an attribute is set.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _field_defaults: ClassVar[dict[str, Any]] = {}

    def __init_subclass__(cls) -> None:
        if cls.__bases__ != (Frozen,):
            raise TypeError(f"{cls.__name__}: a record is made of Frozen alone, or its fields would not be all there")
        fields = tuple(cls.__annotations__)
        cls._fields = fields
        type.__setattr__(cls, "__match_args__", fields)
        cls._field_defaults = {name: cls.__dict__[name] for name in fields if name in cls.__dict__}
        while len(_PLACES) < len(fields):
            _PLACES.append(property(itemgetter(len(_PLACES))))
        for name, place in zip(fields, _PLACES, strict=False):
            setattr(cls, name, place)

    def __new__(cls, *values: Any, **named: Any) -> Self:
        if named or len(values) != len(cls._fields):
            values = cls._complete(values, named)
        return tuple.__new__(cls, values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__}.{name}: a record does not change; use _replace")

    @classmethod
    def _complete(cls, values: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        rest = cls._fields[len(values) :]
        given = {**cls._field_defaults, **named}
        if len(values) + len(rest) > len(cls._fields) or not named.keys() <= set(rest) or not given.keys() >= set(rest):
            raise TypeError(f"{cls.__name__} has the fields {cls._fields}, not {values} and {named}")
        return (*values, *[given[name] for name in rest])

    def _replace(self, **named: Any) -> Self:
        """Return a copy with other values in some fields."""
        return type(self)(**{**dict(zip(self._fields, self, strict=True)), **named})

    def __getnewargs__(self) -> tuple[Any, ...]:
        return tuple(self)

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in zip(self._fields, self, strict=True))
        return f"{type(self).__name__}({fields})"
