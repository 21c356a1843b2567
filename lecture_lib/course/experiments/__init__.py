"""Long measurements of the course's models, each recorded in data/recorded: races, ablations, benchmark."""
