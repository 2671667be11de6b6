"""The processor of this process, and settings that let Paddle use it well: matrix products, threads, memory.

Nothing here imports Paddle, because some settings must be made before that; `import ppcls` makes them.
"""
