"""Replies as models really write them, and what is easily read wrong in them; rows as in `tool_format_rows`."""


def indented(value: str) -> str:
    return f"<tool_call>\n  <function=f>\n    <parameter=a>\n{value}\n    </parameter>\n  </function>\n</tool_call>"


def lfm2(calls: str) -> str:
    return f"<|tool_call_start|>[{calls}]<|tool_call_end|>"


def kimi(*calls: str) -> str:
    written = (f"<|tool_call_begin|>functions.{c}<|tool_call_end|>" for c in calls)
    return f"<|tool_calls_section_begin|>{''.join(written)}<|tool_calls_section_end|>"


GET, SET = 'get:0<|tool_call_argument_begin|>{"a": 1}', "set:1<|tool_call_argument_begin|>{}"
F = [("f", {"a": 1})]
ECHO = "[f(a=[{'b': '2'}])]<|tool_call_end|>"
HARMONY = '<|start|> assistant to=functions.f<|channel|> commentary <|constrain|>  json<|message|> {"a": 1}'

ROWS = [
    # indented tags: the blanks around a value are layout, those inside of it are not
    ("qwen3_coder", indented("      John Doe"), "", "", [("f", {"a": "John Doe"})]),
    ("qwen3_coder", indented("      -42"), "", "", [("f", {"a": -42})]),
    ("qwen3_coder", indented("def g():\n    return 1"), "", "", [("f", {"a": "def g():\n    return 1"})]),
    ("qwen3_coder", indented("x\n\ty\n    z"), "", "", [("f", {"a": "x\n\ty\n    z"})]),
    ("qwen3_coder", indented("      "), "", "", [("f", {"a": ""})]),
    ("qwen3_coder", indented("      <r><i>v</i></r>"), "", "", [("f", {"a": "<r><i>v</i></r>"})]),
    (
        "qwen3_coder",
        "<tool_call><function=f><parameter=a>\n  kept\n  \n</parameter></function></tool_call>",
        "",
        "",
        [("f", {"a": "  kept\n  "})],
    ),
    (
        "qwen3_coder",
        "Go.\n<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n"
        "</function>\n</tool_call>",
        "Go.",
        "",
        [*F, ("now", {})],
    ),
    ("qwen3_coder", "<tool_call><function=></function></tool_call>", "", "", ["malformed"]),
    # a call in the middle of thoughts, and thoughts that go on behind it
    ("kimi_k2", f"<think>one{kimi(GET)}", "", "one", [("get", {"a": 1})]),
    ("kimi_k2", f"<think>one{kimi(GET, SET)}two</think>Hi", "Hi", "one\ntwo", [("get", {"a": 1}), ("set", {})]),
    ("kimi_k2", f"<think>one</think>A{kimi(SET)}B", "AB", "one", [("set", {})]),
    ("kimi_k2", f"one</think>{kimi(SET)}B</think>", "B</think>", "one", [("set", {})]),
    (
        "kimi_k2",
        f"<think>one<|tool_call_begin|>functions.{GET}<|tool_call_begin|>functions.{SET}",
        "",
        "one",
        [("get", {"a": 1}), ("set", {})],
    ),
    # said again behind itself, quotes inside of quotes, and lists that are no calls
    ("lfm2", f"<|tool_call_start|>{ECHO}{ECHO}", "", "", [("f", {"a": [{"b": "2"}]})]),
    ("lfm2", f"{lfm2('f(a=1)')}[1] says so.", "[1] says so.", "", F),
    ("lfm2", f"{lfm2('f(a=1)')}{lfm2('f(a=1)')}", "", "", F + F),
    ("lfm2", lfm2("f(a=1), g(x=b'z')"), "", "", [*F, "malformed"]),
    (
        "lfm2",
        lfm2("sh(c='python3 -c \"from x import y\nprint(y(3*x, s='\\,'))\"')"),
        "",
        "",
        [("sh", {"c": "python3 -c \"from x import y\nprint(y(3*x, s='\\,'))\""})],
    ),
    ("lfm2", "Say <|tool_call_started|>", "Say <|tool_call_started|>", "", []),
    ("pythonic", "[f(a=1), g(a='x 'y', b='z')]", "", "", [*F, "malformed"]),
    (
        "functiongemma",
        "<start_function_call>call:f{a:<escape>x<escape>b:1}<end_function_call>",
        "",
        "",
        [("f", {"a": "x", "b": 1})],
    ),
    ("functiongemma", "Hello <start world", "Hello <start world", "", []),
    (
        "glm4",
        "<tool_call>f<arg_key>a<1></arg_key><arg_value>see </think> < that</arg_value>\n<arg_key>b&c</arg_key>"
        "<arg_value></arg_value></tool_call>",
        "",
        "",
        [("f", {"a<1>": "see </think> < that", "b&c": ""})],
    ),
    ("glm4", "<think>one</think>A\n<think>two</think>B<tool_call>now</tool_call>", "A\nB", "one\ntwo", [("now", {})]),
    ("gpt_oss", f"<|channel|> analysis<|message|> hm<|end|>{HARMONY}<|end|>{HARMONY}", "", "hm", F + F),
    (
        "llama3_json",
        '{"name": "f", "parameters": {"a": 1}}\nI used {f} and {"a": 1}.',
        'I used {f} and {"a": 1}.',
        "",
        F,
    ),
    ("llama3_json", '{"name": "f"} and {"parameters": {}}', '{"name": "f"} and {"parameters": {}}', "", []),
    (
        "mistral",
        'hi{hi[TOOL_CALLS]f{"a": "[TOOL_CALLS] }"}[TOOL_CALLS] [{"name": "now", "arguments": {}}] x',
        "hi{hi x",
        "",
        [("f", {"a": "[TOOL_CALLS] }"}), ("now", {})],
    ),
    ("hermes", '<tool_call>{"name": "f", "arguments": "hello"}</tool_call>', "", "", ["malformed"]),
    # what closes thoughts that the prompt opened is not what a call's arguments hold
    (
        "hermes",
        '<tool_call>{"name": "f", "arguments": {"a": "</think>"}}</tool_call>',
        "",
        "",
        [("f", {"a": "</think>"})],
    ),
    (
        "glm4",
        "I could <tool_call> it.</think>Hi<tool_call>now</tool_call>",
        "Hi",
        "I could <tool_call> it.",
        [("now", {})],
    ),
    ("hermes", "I could <tool_call> it.</think>Hi", "Hi", "I could <tool_call> it.", []),
    ("hermes", "I could <tool_call>f</tool_call> it.</think>Hi", "Hi", "I could <tool_call>f</tool_call> it.", []),
    ("deepseek_v3", "A <｜tool▁output▁begin｜><｜tool▁output▁end｜> B", "A  B", "", []),
]
