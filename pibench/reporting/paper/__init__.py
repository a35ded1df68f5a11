"""Reports for papers and other tools: LaTeX, CSV, exports."""
