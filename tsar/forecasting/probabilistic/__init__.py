"""What forecasts say beside one number per step: quantiles, samples, and calibrated intervals."""
