"""A file of sales as shops have it, made from a seed: daily, by product, and messy.

Run with ``python examples/sales_file.py``: writes ``sales.csv`` and ``plan.csv``. Days are
written dd/mm/yyyy, 1 % of them are missing, some rows are there twice, some products started
late and some stopped; prices and promotions are known ahead.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd

__all__ = ["make_sales", "write_sales"]

STYLE = "%d/%m/%Y"


def make_sales(
    n_products: int = 200, n_days: int = 800, horizon: int = 28, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the sales of products, and the plan: price and promotion of the days after."""
    draw = np.random.default_rng(seed)
    days = pd.date_range("2023-09-01", periods=n_days + horizon, freq="D")
    week = 1 + 0.6 * (days.day_of_week >= 5)
    year = 1 + 0.3 * np.cos(2 * np.pi * (days.day_of_year - 350) / 365.25)
    december = np.where((days.month == 12) & (days.day > 10) & (days.day < 24), 1.5, 1.0)
    history, plan = [], []
    for number in range(n_products):
        # A promotion takes a week, and every ninth week has one or so.
        weeks = draw.random(len(days) // 7 + 1) < 0.11
        promotion = np.repeat(weeks, 7)[: len(days)]
        full = round(draw.uniform(1, 20), 2)
        price = np.where(promotion, round(0.8 * full, 2), full)
        level = np.exp(draw.normal(2.0, 0.9)) * (
            1 + draw.normal(0, 0.2) * np.arange(len(days)) / 800
        )
        expected = level * week * year * december * np.where(promotion, 1.9, 1.0)
        sold = draw.negative_binomial(8, 8 / (8 + np.maximum(expected, 0.1)))
        rows = pd.DataFrame(
            {
                "product": f"P{number:03d}",
                "day": days.strftime(STYLE),
                "sold": sold,
                "price": price,
                "promotion": promotion.astype(int),
            }
        )
        kept = rows.iloc[:n_days]
        fate = draw.random()
        if fate < 0.08:
            kept = kept.iloc[draw.integers(n_days // 3, n_days - 60) :]
        elif fate < 0.14:
            kept = kept.iloc[: draw.integers(n_days // 2, n_days - 30)]
        history.append(kept[draw.random(len(kept)) > 0.01])
        plan.append(rows.iloc[n_days:].drop(columns="sold"))
    sales = pd.concat(history, ignore_index=True)
    # Some days were booked in two rows.
    doubled = sales.sample(max(n_products // 8, 1), random_state=seed)
    sales = pd.concat([sales, doubled.assign(sold=draw.poisson(2, len(doubled)))])
    return sales.sort_values("product", kind="stable", ignore_index=True), pd.concat(plan)


def write_sales(folder: Path, **options: int) -> tuple[Path, Path]:
    """Write both, and return where."""
    sales, plan = make_sales(**options)
    paths = folder / "sales.csv", folder / "plan.csv"
    sales.to_csv(paths[0], index=False)
    plan.to_csv(paths[1], index=False)
    return paths


if __name__ == "__main__":
    written = write_sales(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
    print(*written, sep="\n")
