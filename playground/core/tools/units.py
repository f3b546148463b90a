"""Units: length, mass, volume, temperature, speed, time, area and data, by name, plural or symbol.

Factors are exact by definition (inch 0.0254 m, pound 0.45359237 kg, US gallon 231 cubic inches, NIST SP 811). A month
and a year are the Gregorian calendar's mean ones. Cups, pints, quarts, gallons and fluid ounces are the United
States'; "imperial" before them makes them British. Kilo is 1000 with bytes too; a kibibyte is 1024 bytes.
"""

import difflib
import math

from playground.core.tools import schema
from playground.core.tools.tool import Tool, ToolError

NAME = "convert_units"

# kind → {unit: (how many of the kind's first unit, other names)}; plurals in -s are added.
UNITS: dict[str, dict[str, tuple[float, str]]] = {
    "length": {
        "meter": (1, "m metre"),
        "kilometer": (1000, "km kilometre"),
        "decimeter": (0.1, "dm decimetre"),
        "centimeter": (0.01, "cm centimetre"),
        "millimeter": (0.001, "mm millimetre"),
        "micrometer": (1e-6, "µm um micrometre micron"),
        "nanometer": (1e-9, "nm nanometre"),
        "inch": (0.0254, 'in inches " ″'),
        "foot": (0.3048, "ft feet ' ′"),
        "yard": (0.9144, "yd"),
        "mile": (1609.344, "mi"),
        "nautical mile": (1852, "nmi nautical_mile"),
        "light-year": (9460730472580800, "ly lightyear light_year"),
        "astronomical unit": (149597870700, "au"),
    },
    "mass": {
        "kilogram": (1, "kg kilo kilogramme"),
        "gram": (0.001, "g gramme"),
        "milligram": (1e-6, "mg milligramme"),
        "microgram": (1e-9, "µg ug mcg"),
        "tonne": (1000, "t metric_ton"),
        "pound": (0.45359237, "lb lbs"),
        "ounce": (0.028349523125, "oz"),
        "stone": (6.35029318, "st"),
        "short ton": (907.18474, "us_ton short_ton"),
        "long ton": (1016.0469088, "imperial_ton long_ton"),
        "carat": (0.0002, "ct"),
    },
    "volume": {
        "liter": (1, "l litre"),
        "milliliter": (0.001, "ml millilitre cc"),
        "centiliter": (0.01, "cl centilitre"),
        "deciliter": (0.1, "dl decilitre"),
        "hectoliter": (100, "hl hectolitre"),
        "cubic meter": (1000, "m³ m3 m^3 cubic_metre"),
        "cubic centimeter": (0.001, "cm³ cm3 cm^3 cubic_centimetre"),
        "cubic inch": (0.016387064, "in³ in3 in^3 cubic_inches cu_in"),
        "cubic foot": (28.316846592, "ft³ ft3 ft^3 cubic_feet cu_ft"),
        "gallon": (3.785411784, "gal us_gallon"),
        "quart": (0.946352946, "qt us_quart"),
        "pint": (0.473176473, "pt us_pint"),
        "cup": (0.2365882365, "us_cup"),
        "fluid ounce": (0.0295735295625, "fl_oz floz us_fluid_ounce"),
        "tablespoon": (0.01478676478125, "tbsp"),
        "teaspoon": (0.00492892159375, "tsp"),
        "imperial gallon": (4.54609, "uk_gallon imp_gal"),
        "imperial pint": (0.56826125, "uk_pint"),
        "imperial fluid ounce": (0.0284130625, "uk_fluid_ounce imperial_fl_oz"),
        "barrel of oil": (158.987294928, "bbl barrel"),
    },
    "temperature": {
        "degree Celsius": (1, "c °c celsius degrees_celsius degree_c degrees_c centigrade"),
        "degree Fahrenheit": (1, "f °f fahrenheit degrees_fahrenheit degree_f degrees_f"),
        "kelvin": (1, "k °k"),
        "degree Rankine": (1, "°r rankine degrees_rankine"),
    },
    "speed": {
        "meter per second": (1, "m/s mps metre_per_second meters_per_second metres_per_second"),
        "kilometer per hour": (
            1 / 3.6,
            "km/h kmh kph kilometre_per_hour kilometers_per_hour kilometres_per_hour",
        ),
        "mile per hour": (0.44704, "mph mi/h miles_per_hour"),
        "foot per second": (0.3048, "ft/s fps feet_per_second"),
        "knot": (1852 / 3600, "kn kt"),
    },
    "time": {
        "second": (1, "s sec"),
        "millisecond": (0.001, "ms"),
        "microsecond": (1e-6, "µs us"),
        "nanosecond": (1e-9, "ns"),
        "minute": (60, "min"),
        "hour": (3600, "h hr"),
        "day": (86400, "d"),
        "week": (604800, "wk"),
        "fortnight": (1209600, ""),
        "month": (2629746, ""),
        "year": (31556952, "yr y a"),
        "decade": (315569520, ""),
        "century": (3155695200, "centuries"),
    },
    "area": {
        "square meter": (1, "m² m2 m^2 sqm square_metre"),
        "square kilometer": (1e6, "km² km2 km^2 square_kilometre sq_km"),
        "square centimeter": (1e-4, "cm² cm2 cm^2 square_centimetre"),
        "square millimeter": (1e-6, "mm² mm2 mm^2 square_millimetre"),
        "hectare": (10000, "ha"),
        "are": (100, ""),
        "acre": (4046.8564224, "ac"),
        "square foot": (0.09290304, "ft² ft2 ft^2 square_feet sq_ft sqft"),
        "square inch": (0.00064516, "in² in2 in^2 square_inches sq_in"),
        "square yard": (0.83612736, "yd² yd2 yd^2 sq_yd"),
        "square mile": (2589988.110336, "mi² mi2 mi^2 sq_mi"),
    },
    "data": {
        "byte": (1, "B"),
        "kilobyte": (1e3, "kB KB"),
        "megabyte": (1e6, "MB"),
        "gigabyte": (1e9, "GB gig"),
        "terabyte": (1e12, "TB"),
        "petabyte": (1e15, "PB"),
        "kibibyte": (2**10, "KiB"),
        "mebibyte": (2**20, "MiB"),
        "gibibyte": (2**30, "GiB"),
        "tebibyte": (2**40, "TiB"),
        "bit": (0.125, ""),
        "kilobit": (125, "kbit"),
        "megabit": (125e3, "Mb Mbit"),
        "gigabit": (125e6, "Gb Gbit"),
    },
}
_TO_KELVIN = {
    "degree Celsius": lambda t: t + 273.15,
    "degree Fahrenheit": lambda t: (t + 459.67) * 5 / 9,
    "kelvin": lambda t: t,
    "degree Rankine": lambda t: t * 5 / 9,
}
_FROM_KELVIN = {
    "degree Celsius": lambda t: t - 273.15,
    "degree Fahrenheit": lambda t: t * 9 / 5 - 459.67,
    "kelvin": lambda t: t,
    "degree Rankine": lambda t: t * 9 / 5,
}


def _names() -> tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]:
    """As written → (kind, unit), and the same without case: "Mb" is a megabit, "mb" a megabyte as "MB" is."""
    exact: dict[str, tuple[str, str]] = {}
    for kind, units in UNITS.items():
        for unit, (_, others) in units.items():
            for name in (unit, *(other.replace("_", " ") for other in others.split())):
                exact[name] = (kind, unit)
                if len(name) > 2:
                    exact[f"{name}s"] = (kind, unit)
    folded: dict[str, tuple[str, str]] = {}
    for name, found in exact.items():
        if name not in ("Mb", "Gb"):
            folded.setdefault(name.casefold(), found)
    return exact, folded


_EXACT, _FOLDED = _names()


def make() -> Tool:
    return schema.tool(convert_units)


def convert_units(value: float, from_unit: str, to_unit: str) -> dict:
    """Convert a value from one unit to another"""
    kind, source = find(from_unit)
    other, target = find(to_unit)
    if kind != other:
        raise ToolError(f"{source} measures {kind} and {target} measures {other}; only units of one kind convert.")
    value = finite(value, "value")
    return {"value": rounded(value, 15), "from": source, "to": target, "result": _result(kind, value, source, target)}


def _result(kind: str, value: float, source: str, target: str) -> int | float:
    if kind != "temperature":
        return rounded(value * UNITS[kind][source][0] / UNITS[kind][target][0])
    kelvin = _TO_KELVIN[source](value)
    if kelvin < -1e-9:
        raise ToolError(f"{value:g} {source} is below absolute zero, -273.15 degrees Celsius.")
    return rounded(round(_FROM_KELVIN[target](max(kelvin, 0.0)), 9))


def find(text: str) -> tuple[str, str]:
    """(kind, unit) by any of its names."""
    name = " ".join(str(text).replace("_", " ").split()).strip(".")
    for names, key in ((_EXACT, name), (_FOLDED, name.casefold()), (_FOLDED, name.casefold().replace(" per ", "/"))):
        if key in names:
            return names[key]
    if name.casefold() in ("ton", "tons"):
        raise ToolError("A ton can be a tonne (1000 kg), a short ton (US) or a long ton (UK); say which.")
    close = difflib.get_close_matches(name.casefold(), _FOLDED, n=3, cutoff=0.75)
    units = list(dict.fromkeys(_FOLDED[match][1] for match in close))
    hint = f"did you mean {' or '.join(units)}?" if units else f"kinds are {', '.join(UNITS)}."
    raise ToolError(f"There is no unit {name[:40]!r}; {hint}")


def finite(value: float, name: str) -> float:
    """The value as a float; a model may write a whole number of any length, or NaN."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ToolError(f"{name} must be a finite number below 1e308, got {str(value)[:40]}.")
    return number


def rounded(value: float, digits: int = 10) -> int | float:
    """To significant digits; an int where it is whole."""
    if not math.isfinite(value):
        raise ToolError("The result is too large for a number.")
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() and abs(short) < 1e15 else short
