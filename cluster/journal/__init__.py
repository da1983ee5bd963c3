"""The journal: what the scheduler has decided, on disk, so that another scheduler can go on from there.

From bottom to top:

==================  =============================================================================================
`batches`           how records lie in a file: batches with checksums, and what is left of a damaged file
`directory`         the state directory: which cluster it is of, which scheduler has it, which files are in it
`records`           what a record says, and the functions that make records
`tables`            what all records together come to
`writer`            the end that the scheduler writes to
`group_sync`        one sync of the disk for all that wait for one
`recovery`          reads a state directory, and sets aside what it can't read
`compaction`        writes down the tables in the place of the records that led to them
`inspection`        what a state directory is like, for people
==================  =============================================================================================

Nothing here knows the scheduler, its state machine or its parts. `tables` knows that tasks depend on tasks and that
holders keep them; everything else is entries of named tables.
"""
