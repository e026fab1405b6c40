"""Forecast a bundled series, choose a parameter by search, and measure the choice.

Run with ``python examples/quickstart.py``; it needs nothing but tsar and takes seconds.
"""

from sklearn.model_selection import GridSearchCV, TimeSeriesSplit

import tsar
from tsar.evaluation import mae, mase

sea = tsar.load_dataset("elnino")  # monthly sea temperature, 1950 to 2010
history, future = sea.iloc[:-12], sea.iloc[-12:]

model = tsar.NLinear(horizon=12, max_epochs=20, random_state=0)
search = GridSearchCV(model, {"context_length": [24, 48, 96]}, cv=TimeSeriesSplit(3))
search.fit(history)
print("chosen:", search.best_params_)

for candidate in (search.best_estimator_, tsar.SeasonalNaive(horizon=12).fit(history)):
    forecast = candidate.predict()
    assert forecast.index.equals(future.index)
    error = mae(future, forecast)
    scaled = mase(future, forecast, history, season_length=12)
    print(f"{type(candidate).__name__:14} MAE {error:.2f} degrees, MASE {scaled:.2f}")
