"""Reports as a page and as figures."""
