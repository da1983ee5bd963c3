"""A client's way to the object stores of its cluster: reads, writes, and names for contents. It blocks, and says so."""
