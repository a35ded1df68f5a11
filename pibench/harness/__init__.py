"""Sessions, records, statistics and verdicts."""
