"""The processor this process runs on, and what lets Paddle use it well: products, threads, memory.

Nothing here imports Paddle: some of it has to come first, and `import ppcls` does that.
"""
