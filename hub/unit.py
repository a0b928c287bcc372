"""Units: from the code that devices and stores use to what people write, and back.

Owns: the one table behind the page, the command line and REST (``unit`` is the code, ``unit_shown`` the text), and the
way back for devices that say what people write. Place: leftmost in `hub`. Pure. A code that is not here is shown as it
is.
"""

from collections.abc import Mapping

# UCUM and SenML (RFC 8428) codes that are not already what people write.
SHOWN: Mapping[str, str] = {
    "Cel": "°C", "degC": "°C", "[degF]": "°F", "degF": "°F", "%RH": "%", "%EL": "%", "/": "", "1": "", "{count}": "",
    "count": "", "[ppm]": "ppm", "[ppb]": "ppb", "ug/m3": "µg/m³", "mg/m3": "mg/m³", "m2": "m²", "m3": "m³",
    "m3/s": "m³/s", "m/s2": "m/s²", "l": "L", "deg": "°", "By": "B", "byte": "B", "By/s": "B/s", "kW.h": "kWh",
    "W.h": "Wh", "W/m2": "W/m²", "Ohm": "Ω", "uV": "µV", "us": "µs", "um": "µm", "beat/min": "bpm", "1/min": "rpm",
    "mm[Hg]": "mmHg",
}  # fmt: skip


def unit_shown(code: str | None) -> str | None:
    """Return the unit as people write it: ``Cel`` → ``°C``; None for none."""
    return None if code is None else SHOWN.get(code, code)


# Of a unit that several codes show, the first; what is shown without a unit, or as %, could be several things.
_CODES: Mapping[str, str] = {text: code for code, text in reversed(tuple(SHOWN.items())) if text not in ("", "%")} | {
    "ºC": "Cel", "ºF": "[degF]", "ohm": "Ohm", "mcg/m³": "ug/m3", "liter": "l", "lux": "lx",
}  # fmt: skip

# Codes of what is shown as %, by what it is of.
PERCENT: Mapping[str, str] = {"humidity": "%RH", "battery": "%EL"}


def unit_code(shown: str) -> str | None:
    """Return the code of a unit as people and devices write it: ``°C`` → ``Cel``; what is not known stays as it is."""
    # Two letters look like the sign for a millionth: Greek mu, and the micro sign.
    text = shown.strip().replace("\u03bc", "\u00b5")
    return _CODES.get(text, text) or None
