"""Which ready task goes to which worker, what is taken back from workers, and what is known of those that die.

It imports from `tasks` only, which knows it by a protocol (`tasks.placer`).
"""
