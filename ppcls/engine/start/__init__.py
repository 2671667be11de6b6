"""From a recipe to a run that is ready to begin: opened, built, compared with other processes, tried out."""
