"""Tables, plots, pages, exports and systems on paper."""
