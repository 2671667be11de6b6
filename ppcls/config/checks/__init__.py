"""The checks of a recipe, one file per topic; `recipe.py` calls them in order.

Each takes the checked sections and a :class:`~ppcls.config.mistakes.Findings`, to which it adds what it
finds; it never raises. `sections.py` and `components.py` look at one section or one named node by itself, the
others at what must fit together. A new check is a function in the file of its topic, called from `recipe.py`.
"""
