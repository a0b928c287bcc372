"""`Frozen`: a named tuple that is cheap to declare."""

import copy
import pickle
import typing

import pytest

from device_sdk.frozen import Frozen


class Point(Frozen):
    """A record with a default."""

    x: int
    y: int
    label: str | None = None


class _Named(typing.NamedTuple):
    x: int
    y: int
    label: str | None = None


def test_it_is_a_named_tuple_in_all_that_matters() -> None:
    """Fields by name and by position, equality, hash, order and unpacking are as `typing.NamedTuple` has them."""
    ours, theirs = Point(1, y=2), _Named(1, y=2)
    assert (ours.x, ours.y, ours.label) == (1, 2, None)
    assert tuple(ours) == tuple(theirs)
    assert hash(ours) == hash(theirs)
    assert Point._fields == _Named._fields
    assert Point._field_defaults == _Named._field_defaults
    assert repr(ours) == "Point(x=1, y=2, label=None)"
    assert tuple(Point(1, 2, "a")._replace(y=9)) == (1, 9, "a")
    assert Point(1, 3) > Point(1, 2)


def test_match_takes_it_apart() -> None:
    """A ``case`` may name its fields by position."""
    match Point(1, 2, "here"):
        case Point(x, _, label):
            assert (x, label) == (1, "here")
        case _:
            pytest.fail("no match")


def test_fields_are_read_only() -> None:
    """A record that is handed on stays what it was."""
    for name in ("x", "other"):
        with pytest.raises(AttributeError):
            setattr(Point(1, 2), name, 3)


def test_a_record_has_no_subclass() -> None:
    """Its fields would take each other's places."""
    with pytest.raises(TypeError, match="made of Frozen alone"):
        type("Named", (Point,), {"__annotations__": {"z": int}})


def test_copies_are_equal() -> None:
    """It crosses processes and deep copies."""
    point = Point(1, 2, "a")
    for same in (pickle.loads(pickle.dumps(point)), copy.deepcopy(point)):
        assert type(same) is Point
        assert same == point


@pytest.mark.parametrize(
    ("values", "named"),
    [((1,), {}), ((1, 2, "a", 4), {}), ((1, 2), {"z": 3}), ((1, 2), {"x": 3}), ((), {"y": 1})],
    ids=["too few", "too many", "unknown", "twice", "one missing"],
)
def test_wrong_values_are_refused(values: tuple[object, ...], named: dict[str, object]) -> None:
    """A field without a value, or a value without a field, is an error that names the fields."""
    with pytest.raises(TypeError, match=r"Point has the fields .*'x', 'y', 'label'"):
        Point(*values, **named)  # type: ignore[arg-type]


def test_a_default_may_be_none_of_the_values() -> None:
    """A value that was given wins over the default, also a false one."""
    assert Point(1, 2, label="").label == ""
