"""A suite from file to record: settings, preparation, sessions, prediction."""
