"""What a run leaves and what it means: records, statistics, comparisons, verdicts."""
