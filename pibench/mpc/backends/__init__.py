"""How secret words are held and worked on: one file a backend, all of which do the same word for word."""
