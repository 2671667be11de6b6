"""The checks of a recipe, one file per topic; `recipe.py` calls them in order.

Each takes the checked sections and a :class:`~ppcls.config.mistakes.Findings`, to which it adds
mistakes; it never raises an error. `sections.py` and `components.py` check a single section or component, the
others check what must fit together. A new check is a function in the file of its topic, called from
`recipe.py`.
"""
