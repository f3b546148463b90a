"""Free variables of templates and their kinds; places of syntax errors."""

import time

import pytest

from playground.core import templates
from playground.core.template_faults import Fault, fault, fault_at
from playground.core.template_variables import Variable, value_of, variables

SWITCH = ("switch", (), "")


def found(text: str) -> dict:
    return {v.name: (v.kind, v.choices, v.default_text) for v in variables(text)}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("{% if x %}a{% endif %}", SWITCH),
        ("{% if not x %}a{% endif %}", SWITCH),
        ("{{ 'a' if x else 'b' }}", SWITCH),
        ("{% if tools and not x %}a{% endif %}", SWITCH),
        ("{% if x is defined and x is false %}a{% endif %}", SWITCH),
        ("{% if x is true %}a{% endif %}{{ x }}", SWITCH),
        ("{% if x == true %}a{% endif %}", SWITCH),
        ("{% if x is sameas false %}a{% endif %}", SWITCH),
        ("{% if x | default(true) %}a{% endif %}", ("switch", (), "true")),
        ("{% if x is not defined %}{% set x = false %}{% endif %}{% if x %}a{% endif %}", ("switch", (), "false")),
        ("{% set x = x if x is defined else true %}{% if x %}a{% endif %}", ("switch", (), "true")),
        ("{% set y = x | default(false) %}{% if y %}a{% endif %}", ("switch", (), "false")),
        ("{% set y = x %}{% if y == 'a' %}1{% endif %}", ("choice", ("a",), "")),
        ("{% if x == 'low' %}a{% elif x == 'high' %}b{% endif %}", ("choice", ("low", "high"), "")),
        ("{% if x in ['low', 'high'] %}{{ x }}{% endif %}", ("choice", ("low", "high"), "")),
        ("{% if 'low' != x | lower %}{% endif %}", ("choice", ("low",), "")),
        ("{% if x.lower() == 'low' %}{% endif %}", ("choice", ("low",), "")),
        ("{% if x is equalto 'low' %}{% endif %}", ("choice", ("low",), "")),
        ("{% set x = x | default('mid') %}{% if x == 'low' %}{% endif %}", ("choice", ("low", "mid"), "mid")),
        ("{{ x }}", ("text", (), "")),
        ("{% if x %}{{ x }}{% endif %}", ("text", (), "")),
        ("{% if x != '' %}{{ x }}{% endif %}", ("text", (), "")),
        ("{% if 'a' in x %}b{% endif %}", ("text", (), "")),
        ("{% for y in x %}{{ y }}{% endfor %}", ("text", (), "")),
        ("{{ x | default('26 Jul 2024') }}", ("text", (), "26 Jul 2024")),
        ("{{ x or 'nobody' }}", ("text", (), "nobody")),
    ],
)
def test_the_kind_of_a_variable(text, kind):
    assert found(text) == {"x": kind}


@pytest.mark.parametrize(
    "text",
    [
        "{{ messages[0].content }}{{ tools }}{{ documents }}{{ bos_token }}{{ image_token }}{{ strftime_now('%Y') }}",
        "{% if add_generation_prompt %}{{ raise_exception('no') }}{% endif %}{{ continue_final_message }}",
        "{% for m in messages %}{{ loop.index }}{{ m.role }}{% endfor %}{{ range(3) }}{{ namespace(a=1).a }}",
        "{% if messages %}{% set x = 1 %}{% endif %}{{ x }}",
        "{% set x %}text{% endset %}{{ x }}{% set x = 1 %}",
        "{% macro f(x, y=2) %}{{ x }}{{ y }}{{ z }}{{ varargs }}{% endmacro %}{% set z = 1 %}{{ f(1) }}",
        "{% with x = 1 %}{{ x }}{% endwith %}",
        "{% generation %}{{ messages }}{% endgeneration %}",
        "{% if x %}",
        "{{ " + "(" * 3000,
        "{% if x %}" + " " * 200_001 + "{% endif %}",
        "",
    ],
)
def test_what_is_given_or_set_by_the_template_or_cannot_be_parsed_is_none(text):
    assert variables(text) == []


def test_names_are_free_where_they_are_read_before_they_are_set_and_in_order():
    text = "{{ b }}{{ a }}{% with c = c %}{{ c }}{% endwith %}{{ d }}{% set d = 1 %}{% for e in e %}{% endfor %}"
    assert list(found(text)) == ["b", "a", "c", "d", "e"]
    assert list(found("{% set n = namespace(a=1) %}{% set n.a = x %}{% macro f() %}{{ y }}{% endmacro %}")) == [
        "x",
        "y",
    ]


def test_the_built_in_templates_ask_for_nothing_that_is_given():
    asked = {v.name for name in templates.names() for v in variables(templates.load(name).text)}
    assert asked & {"messages", "tools", "bos_token", "eos_token", "loop", "namespace"} == set()


def test_a_constant_that_takes_forever_is_not_computed():
    began = time.monotonic()
    assert (found("{{ 9**9**9**9 }}{{ x }}"), fault("{{ 9**9**9**9 }}")) == ({"x": ("text", (), "")}, None)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize(
    ("text", "given", "value"),
    [
        ("{% if x %}{% endif %}", "on", True),
        ("{% if x %}{% endif %}", "off", False),
        ("{% if x == '1' %}{% endif %}", "1", "1"),
        ("{{ x }}", "2024", "2024"),
        ("{{ x }}", '["browser"]', ["browser"]),
        ("{{ x }}", '["browser"', '["browser"'),
        ("{% if x > 5 %}{% endif %}", "7", 7),
        ("{% if x == 0 %}{% endif %}", "many", "many"),
        ("{{ x | default(64) }}", "1.5", 1.5),
    ],
)
def test_the_value_of_what_is_typed(text, given, value):
    [variable] = variables(text)
    got = value_of(variable, given)
    assert (got, type(got)) == (value, type(value))


def test_a_variable_is_a_plain_value():
    assert variables("{{ x }}") == [Variable("x", "text")]


# Faults ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "column", "message"),
    [
        ("a\n{% for m in messages %}\n{{ m. }}\n{% endfor %}", 3, 7, "expected name or number"),
        ("one\n  {{ a $ b }}", 2, 8, "unexpected char '$'"),
        ("{{ 'abc }}", 1, 4, "unexpected char"),
        ("{{ (a] }}", 1, 6, "unexpected ']', expected ')'"),
        ("{{ a b }}", 1, 6, "expected token 'end of print statement', got 'b'"),
        ("x\r\n\r\n{% set a b %}", 3, 10, "got 'b'"),
        ("a\n  {% endif %}", 2, 6, "unknown tag 'endif'"),
        ("{% if a %}\n{% for b in c %}\n{% endif %}", 3, 4, "'endfor'"),
        ("a\n  {% if x %}\nb\n\nc", 2, 6, "the tag 'if' is opened here and never closed: {% endif %} is missing"),
        ("{% generation %}x", 1, 4, "{% endgeneration %} is missing"),
        ("a {{ b }}\n c {{ x", 2, 4, "{{ is opened here and never ended: }} is missing"),
        ("a\n{% if x\n", 2, 1, "{% is opened here and never ended: %} is missing"),
        ("{%- if x -%}\n\n  {{- '}' }}\n {{ y z }}{% endif %}", 4, 7, "got 'z'"),
        ("{% raw %}{{ {% endraw %}{{ 1 + }}", 1, 32, "unexpected 'end of print statement'"),
        ("{# c #}\n{{ a | nope }}", 2, 8, "there is no filter named 'nope'"),
        ("{{ a is nope }}", 1, 9, "there is no test named 'nope'"),
        ("ab {# never", 1, 4, "Missing end of comment tag"),
        ("{{ " + "(" * 3000, 1, 1, "nested too deeply"),
        ("x" * 200_001, 1, 1, "longer than 200,000 characters"),
    ],
)
def test_faults_have_a_place(text, line, column, message):
    found = fault(text)
    assert (found.line, found.column) == (line, column), found
    assert message in found.message
    if len(text) < 200_000:
        assert found.text == text.splitlines()[line - 1]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "{{ a }}\n",
        "{% if a is nope %}{{ b | nope }}{% endif %}",
        "{% for a in b %}{% break %}{% endfor %}",
    ],
)
def test_what_can_be_read_has_no_fault(text):
    assert fault(text) is None


def test_the_built_in_templates_have_no_fault():
    assert [name for name in templates.names() if fault(templates.load(name).text)] == []


def test_the_place_of_an_error_that_names_its_line_is_the_word_it_quotes():
    text = "one\n  {{ messages[0].content + foo }}"
    assert fault_at(text, 2, "'foo' is undefined") == Fault(2, 28, "'foo' is undefined", text.splitlines()[1])
    assert fault_at(text, 2, "no such thing").column == 3
    assert fault_at(text, 99, "x").line == 2
