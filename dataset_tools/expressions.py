"""SQL expressions over the columns of a row, as a user writes them in an option or a mapping."""

from __future__ import annotations

import polars as pl

from dataset_tools.errors import DataToolError

_REFUSED = (pl.exceptions.PolarsError, pl.exceptions.PanicException)


class RowExpression:
    """An SQL expression as Polars knows them, over one row at a time.

    Args:
        text: the expression. place: where it stands, for messages: an option, a field of the mapping.

    Raises:
        DataToolError: it is no SQL expression; when it is used, that it cannot be evaluated, or hangs on other rows.
    """

    def __init__(self, text: str, place: str) -> None:
        self._name = f"{place}: {text!r}"
        self._rowwise = False  # known once several rows were seen together
        try:
            self._expression = pl.sql_expr(text)
        except _REFUSED as error:
            raise DataToolError(f"{self._name} is not an SQL expression: {_first_line(error)}") from error
        self.columns = list(dict.fromkeys(self._expression.meta.root_names()))

    def values(self, rows: pl.DataFrame) -> pl.Series:
        """One value per row."""
        if not self._rowwise and rows.height > 1:
            self._demand_rowwise(rows)
            self._rowwise = True
        return self._evaluate(rows)

    def accepts(self, rows: pl.DataFrame) -> pl.Series:
        """Whether it is true (or a number that is not 0), for each row; null counts as no."""
        found = self.values(rows)
        if found.dtype.is_numeric():
            found = found != 0
        if found.dtype != pl.Boolean:
            raise DataToolError(f"{self._name} is not a condition")
        return found.fill_null(False)

    def _evaluate(self, rows: pl.DataFrame) -> pl.Series:
        try:
            value = rows.select(self._expression.alias("value")).to_series()
        except _REFUSED as error:
            texts = [name for name in self.columns if rows.schema.get(name) == pl.String]
            hint = f"; {', '.join(texts)} holds text: CAST({texts[0]} AS DOUBLE) makes numbers of it" if texts else ""
            raise DataToolError(f"{self._name} cannot be evaluated: {_first_line(error)}{hint}") from error
        if isinstance(value.dtype, pl.Decimal):  # of a whole number and a fraction
            value = value.cast(pl.Float64)
        if len(value) == rows.height:
            return value
        if self.columns:
            raise self._needs_others()
        return value.new_from_index(0, rows.height)

    def _demand_rowwise(self, rows: pl.DataFrame) -> None:
        """Refuse what a block would decide, an average or a rank: parts of the rows then give other values than all."""
        half = rows.height // 2
        bounds = [(0, half), (half, rows.height), *((row, row + 1) for row in range(min(half, 32)))]
        whole = self._evaluate(rows)
        for first, end in bounds:
            alone, among = self._evaluate(rows.slice(first, end - first)), whole.slice(first, end - first)
            if (
                alone.dtype.is_float()
            ):  # Polars divides one row and many rows by a constant differently, in the last digit
                alone, among = (column.round_sig_figs(9) for column in (alone, among))
            if not alone.equals(among):
                raise self._needs_others()

    def _needs_others(self) -> DataToolError:
        return DataToolError(f"{self._name} needs more than one row at a time; use the columns of a row only")


def _first_line(error: BaseException) -> str:
    return str(error).splitlines()[0].rstrip(";")
