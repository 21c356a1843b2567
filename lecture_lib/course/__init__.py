"""The roof: what runs the course. Command line, execution, promotion, stored notebooks, plots, ladder.

It may import chapters; no chapter's module imports it.
"""
