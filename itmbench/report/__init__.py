"""Results as tables, plots, one HTML page, and the helpers of the notebooks."""
