"""Conversations that teach a model to call tools of any schemas.

    specs = schemas.read(path)
    made = writer.rows(specs, 10_000, seed=0, languages=("en", "de"))
    lines = layouts.lines(made.rows, "hermes")

Rows have one call, several at once, a question that lacks something (the assistant asks back), a question for a tool
that is not on offer, or talk. Every argument stands in the question: `proof` reads it there, or the row is not kept.
Training and testing share no phrase; their words and numbers differ where a schema leaves a choice.
"""
