"""Output for people: tables, pictures and descriptions of data, networks and evaluations."""
