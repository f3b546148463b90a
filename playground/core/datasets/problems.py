"""What is wrong with a row, as a sentence."""


class Problem(str):
    """One sentence that names the file, the row and the column; the parts are its attributes.

    `row` counts from 1 (a JSONL file's lines, a CSV file's rows below the header); `column` is a column's name, or
    the number of the character where the text of the row is broken. Either is None where it does not apply.
    """

    __slots__ = ("column", "file", "reason", "row")

    def __new__(cls, file: str, row: int | None, column: str | int | None, reason: str):
        where = [file]
        if row is not None:
            where.append(f"row {row:,}")
        if column is not None:
            where.append(f"column {column}")
        self = super().__new__(cls, f"{', '.join(where)}: {reason}")
        self.file, self.row, self.column, self.reason = file, row, column, reason
        return self

    def __getnewargs__(self):
        return self.file, self.row, self.column, self.reason
