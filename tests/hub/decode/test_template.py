"""A template that picks and scales is read, one that does more is none."""

import pytest

from hub.decode.template import MISSING, parse

DOCUMENT = {"a": {"b": [1, {"c": "21.55"}]}, "on": True, "bad": "x", "none": None, "class": 7}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{{ value_json.a.b[0] }}", 1),
        ("{{value_json['a']['b'][1].c}}", "21.55"),
        ('{{ value_json["a"].b[1].c | float }}', 21.55),
        ("{{ value_json.a.b[1].c|float(0)|round(1) }}", 21.6),
        ("{{ value_json.a.b[1].c | round(1, 'floor') }}", 21.6),
        ("{{ value_json.a.b[1].c | int }}", 21),
        ("{{ value_json.bad | float }}", MISSING),
        ("{{ value_json.bad | float(0) }}", MISSING),
        ("{{ value_json.bad | int(7) }}", MISSING),
        ("{{ value_json.none | float }}", MISSING),
        ("{{ value_json.none }}", None),
        ("{{ value_json.missing | default(3) }}", MISSING),
        ("{{ value_json.missing | d(3) }}", MISSING),
        ("{{ value_json.a.b[0] | default('x') }}", 1),
        ("{{ value_json.missing | is_defined }}", MISSING),
        ("{{ value_json.missing }}", MISSING),
        ("{{ value_json.a.b[9] }}", MISSING),
        ("{{ value_json.a[0] }}", MISSING),
        ("{{- value_json.on -}}", True),
        ("{{ value_json.class }}", 7),
        ("{{ value_json.class * 2 }}", 14),
        ("{{ value_json.class / 2 + 1 - 0.5 }}", 4.0),
        ("{{ float(value_json.a.b[1].c) * 0.5 | is_defined }}", 10.775),
        ("{{ (value_json.a.b[1].c | float / 10) | round(1) }}", 2.2),
        ("{{ ((value_json.class) + 1.26 | round(1)) }}", 8.3),
        ("{{ value_json.class / 0 }}", MISSING),
        ("{{ value_json.a.b[1].c * 2 }}", MISSING),
        ("{{ value_json.missing * 2 }}", MISSING),
    ],
)
def test_template_picks(text: str, value: object) -> None:
    """By names and places, with the filters that make a number, and calculating with one."""
    template = parse(text)

    assert template is not None
    assert template.pick(DOCUMENT) == value


def test_template_of_a_text() -> None:
    """The message itself."""
    template = parse("{{ value | float | round }}")

    assert template is not None
    assert (template.is_json, template.path, template.pick("21.55")) == (False, "", 22)
    assert template.pick("inf") is MISSING


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "{{ value_json.a", "{{ value_json.a + 2 * 10 }}", "{{ (value_json.a }}", "{{ 10 * value_json.a }}",
        "{{ value_json.a * value_json.b }}", "{{ value_json.a > 2 }}", "{{ " + "(" * 9 + "value" + ")" * 9 + " }}",
        "{{ value_json.a | tojson }}", "{{ 'ON' if value }}",
        "{% if value_json.a %}1{% endif %}", "{{ value_json.a }}{{ value_json.b }}", "{{ value.a }}",
        "{{ value_json.a | float(x) }}", "{{ value_json.a | round(x) }}", "{{ value_jsons }}", "{{ value }} W",
        "{{ value_json.a " + "." * 600 + "}}",
    ],
)  # fmt: skip
def test_template_that_does_more_is_none(text: str) -> None:
    """Half of it would give a wrong value."""
    assert parse(text) is None


def test_scaled_value_is_not_the_one_in_the_message() -> None:
    """A family reads that one, so the template's unit is not its unit."""
    scaled = [parse(f"{{{{ value_json.a {rest} }}}}") for rest in ("/ 1000", "| round(1)", "")]

    assert [template is not None and template.is_scaled for template in scaled] == [True, False, False]


def test_path_is_what_a_flat_document_has() -> None:
    """So that a unit reaches the channel of a family."""
    template = parse("{{ value_json['ENERGY'].Power[0] }}")

    assert template is not None
    assert template.path == "ENERGY.Power.0"
