"""How much there may be of what travels between the processes of a cluster."""

from __future__ import annotations

#: What has 64 bits wherever it is kept.
MAX_INTEGER = (1 << 63) - 1
#: How long a client may say that it waits; it says nothing to wait for as long as it takes.
LONGEST_WAIT_SECONDS = 1e9
#: The results of futures that a user has pickled are kept so long at most, and so many of them.
MAX_LEASE_SECONDS = 30 * 86_400.0
MAX_PICKLED = 100_000
#: A message lists no more tasks, keys or objects than this: its receiver handles it in one piece.
MAX_ITEMS = 500
#: Encoded results up to this size ride along in the messages that announce them.
INLINE_LIMIT_NBYTES = 2048
#: The exception of a task, pickled, rides along up to this size; a larger one lies in the store of its host.
ERROR_INLINE_NBYTES = 64 << 10
#: What an actor's method takes or gives rides along up to the first size, of calls that are made one at a time. While
#: several are under way it does up to the second one, so that no process keeps much for others.
CALL_INLINE_NBYTES = 128 << 10
CALLS_INLINE_NBYTES = 32 << 10
#: How many calls of one client to one actor may be under way. A client keeps further ones for itself meanwhile.
MAX_CALLS = 1_000
#: The text of an exception is cut to so many characters.
ERROR_TEXT_LENGTH = 1 << 14
#: A key has at most so many bytes, and so deeply nested tuples.
MAX_KEY_NBYTES = 2 << 20
MAX_KEY_DEPTH = 100
#: What belongs together in a message and can't be cut, such as a task with the keys that it depends on.
MAX_ENTRY_NBYTES = 128 << 20
#: No object is larger, so that the sum of many sizes can still be sent.
MAX_OBJECT_NBYTES = 1 << 50
#: A name of something, an address.
MAX_NAME_LENGTH = 1 << 10
#: Why something happened.
MAX_REASON_LENGTH = 1 << 14
#: What the scheduler keeps and passes on without looking into it: a task's arguments, a function, a dataset's recipe.
#: Clients put what is larger into a store, and less than this as well, where there is one.
MAX_PAYLOAD_NBYTES = 1 << 20
#: How many datasets the scheduler keeps, and how much the name of each may take.
MAX_DATASETS = 10_000
MAX_DATASET_NAME_NBYTES = 4 << 10
#: So many keys of a durable dataset are in one list.
MAX_TABLE_ENTRIES = 1_000
#: How many hosts may be to have all of a dataset.
MAX_REPLICAS = 1_000
#: How many workers or resources the options of a task may name.
MAX_NAMED = 10_000
#: So many variables of the environment a nanny may set for workers, of so many bytes together.
MAX_ENVIRONMENT = 1_000
MAX_ENVIRONMENT_NBYTES = 16 << 10
#: The versions of how many packages are asked for together: to look one up takes a while.
MAX_PACKAGES = 100
MAX_THREADS = 1 << 16
#: The number of a worker on its host.
MAX_INDEX = (1 << 31) - 1
#: Of plain data in a message, which is for people: how deep, and how many things in all.
MAX_PLAIN_DEPTH = 8
MAX_PLAIN_ITEMS = 20_000
MAX_PLAIN_TEXT_LENGTH = 1 << 16
#: What users leave with the scheduler: so many dictionaries inside of each other, and items in all of one value.
MAX_RECORD_DEPTH = 16
MAX_RECORD_LEAVES = 10_000
#: So many topics have events.
MAX_TOPICS = 10_000
#: How many clients a scheduler serves at a time.
MAX_CLIENTS = 10_000
#: How many locks, and how many leases of semaphores, are held or waited for at a time.
MAX_LEASES = 100_000
#: How many semaphores there are at a time, and how many events are set.
MAX_SEMAPHORES = 10_000
MAX_EVENTS = 100_000
#: How many queues with a limited size there are, how many items all queues have, and how many bytes of these.
MAX_QUEUES = 10_000
MAX_QUEUED_ITEMS = 1_000_000
MAX_QUEUED_NBYTES = 256 << 20
#: How many variables there are, and how many bytes of their values.
MAX_VARIABLES = 10_000
MAX_VARIABLES_NBYTES = 256 << 20
