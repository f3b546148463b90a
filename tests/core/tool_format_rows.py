"""Replies in the formats of newer models: format, reply, content, reasoning, calls as (name, arguments) or a fault."""

TWO = [("add", {"a": 1}), ("now", {})]
DS = "<｜tool▁call▁begin｜>{}<｜tool▁call▁end｜>"

ROWS = [
    ("gemma4", "<|channel>thought\nhm\n<channel|>A<|tool_call>call:add{a:1}<tool_call|>B", "AB", "hm", TWO[:1]),
    (
        "gemma4",
        '<|tool_call>call:f{s:<|"|>x, {y}: <tool_call|><|"|>,n:{b:true,l:[<|"|>a<|"|>,1.5]}}<tool_call|>'
        "<|tool_call>call:now{}<tool_call|>",
        "",
        "",
        [("f", {"s": "x, {y}: <tool_call|>", "n": {"b": True, "l": ["a", 1.5]}}), ("now", {})],
    ),
    ("gemma4", '<|tool_call>call:f{a:<|"|>x', "", "", ["truncated"]),
    ("gemma4", "<|tool_call>f(1)<tool_call|>", "", "", ["malformed"]),
    (
        "seed_oss",
        "<seed:think>so<seed:cot_budget_reflect>left: 9</seed:cot_budget_reflect></seed:think>I look.\n"
        "<seed:tool_call>\n<function=book>\n<parameter=city>007</parameter>\n<parameter=days>3</parameter>\n"
        "</function>\n</seed:tool_call>\n<seed:tool_call><function=now></function></seed:tool_call>",
        "I look.",
        "so<seed:cot_budget_reflect>left: 9</seed:cot_budget_reflect>",
        [("book", {"city": "007", "days": 3}), ("now", {})],
    ),
    (
        "seed_oss",
        "<seed:tool_call><function=f><parameter=s>a</parameter>b</function></parameter></function></seed:tool_call>",
        "",
        "",
        [("f", {"s": "a</parameter>b</function>"})],
    ),
    ("seed_oss", "<seed:tool_call>\n<function=f>\n<parameter=a>1</par", "", "", ["truncated"]),
    ("seed_oss", "<seed:tool_call>\n<function=f>\n<parameter=a>1</parameter>\n", "", "", ["truncated"]),
    ("seed_oss", "<seed:tool_call>\n<funct", "", "", ["truncated"]),
    ("seed_oss", "<seed:tool_call>now()</seed:tool_call>", "", "", ["malformed"]),
    ("seed_oss", "<seed:tool_call><function=f>oops</function></seed:tool_call>", "", "", ["malformed"]),
    (
        "minimax_m2",
        '<think>hm</think>\nA<minimax:tool_call>\n<invoke name="book">\n<parameter name="city">x < </parameter> y'
        '</parameter>\n<parameter name="who">["a", 1]</parameter>\n</invoke>\n<invoke name="now">\n</invoke>\n'
        "</minimax:tool_call>B",
        "AB",
        "hm",
        [("book", {"city": "x < </parameter> y", "who": ["a", 1]}), ("now", {})],
    ),
    (
        "minimax_m1",
        '<think>hm <tool_calls>no</tool_calls></think>A<tool_calls>\n{"name": "add", "arguments": {"a": 1}}\n'
        '{"name": "now", "arguments": {}}\n</tool_calls>B',
        "AB",
        "hm <tool_calls>no</tool_calls>",
        TWO,
    ),
    (
        "minimax_m1",
        '<tool_calls>\n[{"name": "add", "arguments": {"a": 1}}, {"name": "now", "arguments": {}}]\n</tool_calls>',
        "",
        "",
        TWO,
    ),
    (
        "minimax_m1",
        '<tool_calls>{"name": "f", "arguments": {"s": "</tool_calls>\\n}"}}</tool_calls>',
        "",
        "",
        [("f", {"s": "</tool_calls>\n}"})],
    ),
    (
        "minimax_m1",
        '<tool_calls>\nnow()\n{"name": "now", "arguments": {}}\n</tool_calls>',
        "",
        "",
        ["malformed", ("now", {})],
    ),
    ("minimax_m1", '<tool_calls>\n{"name": "now", "arguments": {}}\n{"name": "ad', "", "", [("now", {}), "truncated"]),
    ("minimax_m1", "<tool_calls>", "", "", ["truncated"]),
    ("minimax_m1", "<tool_calls></tool_calls>", "", "", ["malformed"]),
    ("minimax_m2", '<minimax:tool_call>\n<invoke name="now">\n</invoke>\n<inv', "", "", [("now", {}), "truncated"]),
    ("minimax_m2", '<minimax:tool_call>\n<invoke name="f">\n<parameter name="a">1', "", "", ["truncated"]),
    ("minimax_m2", '<minimax:tool_call>{"name": "f"}</minimax:tool_call>', "", "", ["malformed"]),
    (
        "deepseek_v32",
        'Ok.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">\n<｜DSML｜parameter name="s" string="true">12'
        '</｜DSML｜parameter>\n<｜DSML｜parameter name="n" string="false">{"a": [1]}</｜DSML｜parameter>\n'
        '</｜DSML｜invoke>\n<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>',
        "Ok.",
        "",
        [("f", {"s": "12", "n": {"a": [1]}}), ("now", {})],
    ),
    (
        "deepseek_v32",
        '<think>t<｜DSML｜tool_calls>\n<｜DSML｜invoke name="now">\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>',
        "",
        "t",
        [("now", {})],
    ),
    (
        "deepseek_v32",
        '<｜DSML｜function_calls><｜DSML｜invoke name="f"><｜DSML｜parameter name="n" string="false">many'
        "</｜DSML｜parameter></｜DSML｜invoke></｜DSML｜function_calls>",
        "",
        "",
        ["malformed"],
    ),
    ("deepseek_v32", '<｜DSML｜function_calls>\n<｜DSML｜invoke name="f', "", "", ["truncated"]),
    (
        "deepseek_v31",
        "A<｜tool▁calls▁begin｜>"
        + DS.format('add<｜tool▁sep｜>{"a": 1}')
        + DS.format("now<｜tool▁sep｜>{}")
        + "<｜tool▁calls▁end｜>",
        "A",
        "",
        TWO,
    ),
    ("deepseek_v31", '<｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a', "", "", ["truncated"]),
    ("deepseek_v31", DS.format("function<｜tool▁sep｜>f\n```json\n{}\n```"), "", "", ["malformed"]),
    (
        "cohere",
        "<|START_THINKING|>hm<|END_THINKING|><|START_ACTION|>[\n"
        '    {"tool_call_id": "0", "tool_name": "add", "parameters": {"a": 1}},\n'
        '    {"tool_call_id": "1", "tool_name": "now", "parameters": {}}\n]<|END_ACTION|>',
        "",
        "hm",
        TWO,
    ),
    ("cohere", "<|START_THINKING|>t<|END_THINKING|><|START_RESPONSE|>Hello<|END_RESPONSE|>", "Hello", "t", []),
    ("cohere", "<|START_TEXT|>Hi<|END_TEXT|>", "Hi", "", []),
    ("cohere", '<|START_ACTION|>[{"tool_name": "now", "parameters": {}}, {"tool', "", "", [("now", {}), "truncated"]),
    ("cohere", '<|START_ACTION|>[{"parameters": {}}]<|END_ACTION|>', "", "", ["malformed"]),
    (
        "command_r",
        'I plan.\nAction:\n```json\n[\n    {\n        "tool_name": "add",\n        "parameters": {"a": 1}\n    },\n'
        '    {"tool_name": "now", "parameters": {}}\n]```\n',
        "I plan.",
        "",
        TWO,
    ),
    ("command_r", 'Action: ```json\n[{"tool_name": "directly-answer", "parameters": {}}]\n```Hi', "Hi", "", []),
    ("command_r", "Action: run, then rest.", "Action: run, then rest.", "", []),
    ("command_r", 'Action:\n```json\n[{"tool_name": "f", "par', "", "", ["truncated"]),
    ("command_r", "Action:\n```json\n[1]\n```", "", "", ["malformed"]),
    (
        "apertus",
        '<|inner_prefix|>hm<|inner_suffix|>A<|tools_prefix|>[{"add": {"a": 1}}, {"now": {}}]<|tools_suffix|>B',
        "AB",
        "hm",
        TWO,
    ),
    ("apertus", '<|tools_prefix|>[{"now": {}}, {"add": {"a', "", "", [("now", {}), "truncated"]),
    ("apertus", '<|tools_prefix|>[{"add": 1}, {"a": {}, "b": {}}]<|tools_suffix|>', "", "", ["malformed", "malformed"]),
    (
        "gigachat",
        'A<|message_sep|>\n\nfunction call<|role_sep|>\n{"name": "add", "arguments": {"a": 1}}<|message_sep|>',
        "A",
        "",
        TWO[:1],
    ),
    ("gigachat", 'A<|function_call|>{"name": "now", "arguments": {}}<|message_sep|>', "A", "", [("now", {})]),
    ("gigachat", '<|function_call|>{"name": "now", "argu', "", "", ["truncated"]),
    ("gigachat", "<|function_call|>now()<|message_sep|>", "", "", ["malformed"]),
    ("functionary_v31", 'A<function=add>{"a": 1}</function><function=now>{}</function><|eom_id|>', "A", "", TWO),
    ("functionary_v31", '<function=f>{"a": "</function>"}</function>', "", "", [("f", {"a": "</function>"})]),
    ("functionary_v31", '<function=f>{"a"', "", "", ["truncated"]),
    ("functionary_v31", "<function=f", "", "", ["truncated"]),
    ("functionary_v31", "<function=f>a=1</function>", "", "", ["malformed"]),
    ("functionary_v32", 'all\nI add.\n>>>add\n{"a": 1}>>>now\n{}', "I add.", "", TWO),
    ("functionary_v32", 'add\n{"a": 1}', "", "", TWO[:1]),
    ("functionary_v32", "all\n1 > 0 and 2 >> 1", "1 > 0 and 2 >> 1", "", []),
    ("functionary_v32", '>>>f\n{"a": ">>>all', "", "", ["truncated"]),
    ("functionary_v32", ">>>f\n{'a': 1}", "", "", ["malformed"]),
]
