"""What the processes of a cluster say to each other: each message is described once, as data (`messages`).

Who takes messages checks them by these tables before anything is done about them, so that what is malformed costs the
peer that sent it, and nobody else (`shapes`).
"""
