"""What a type checker makes of code that uses tsar: it is never run.

A line with an ``ignore`` is a mistake that has to be found: both checkers are asked to report an
``ignore`` that is not needed.
"""

import pandas as pd

import tsar
from tsar.evaluation import backtest, mae
from tsar.training import AdamW, Cosine

frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
series = frame["a"]

model = tsar.PatchTST(
    context_length=48, horizon=12, optimizer=AdamW(weight_decay=0.1), early_stopping=0.1
)
fitted: tsar.PatchTST = model.fit(frame)
forecast: pd.DataFrame = fitted.predict(horizon=6, level=[80, 95])
again: pd.DataFrame = tsar.Naive().fit(series).predict(frame, 6)
error: float = mae(frame, forecast)
table = backtest(model, frame, horizon=12, windows=3)
linear = tsar.NLinear(learning_rate_schedule=Cosine(warmup_steps=10), early_stopping=False)

linear.pretrain(frame)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
tsar.PatchTST(context_lenght=48)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
tsar.PatchTST(horizon="12")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
tsar.NLinear(optimizer="adan")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
fitted.predict(horizn=6)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
fitted.predict(levels=80)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
fitted.predict(horizon="6")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
fitted.fit("sales.csv")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
backtest(model, frame, horizons=12)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
