"""Is the engine as good as the baseline? Pure functions over answers."""
