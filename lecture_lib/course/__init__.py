"""What runs the course rather than teaches it: corpus, promotion, execution, checks, plots, command line."""
