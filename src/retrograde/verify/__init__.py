"""Truth: the scenario retrograde grew from, and comparison with slow oracles."""
