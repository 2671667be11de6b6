"""The checks of a recipe, one file per topic; :mod:`ppcls.config.checks.recipe` calls them in order."""
