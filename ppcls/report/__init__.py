"""What is shown to people: tables, pictures and descriptions of data, networks and evaluations."""
