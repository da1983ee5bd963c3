"""Datasets as files, which outlive the store: knows objects as bytes, and nothing of clusters.

==========================  ========================================================================
``place.py``                what a place is: a directory, or somewhere that fsspec opens; its errors
``local.py``                a directory of this host, written so that it survives a power cut
``elsewhere.py``            S3, and whatever else fsspec opens
``objects.py``              objects by their content: written once, checked when they are read
``manifest.py``             what a publication says of its datasets, and how that is written
``catalogue.py``            all publications of a place: which dataset a name means
``sweeping.py``             who is writing to a place, and how what nothing refers to is deleted
``opening.py``              a place by its path or URL, and the marker by which it is known
==========================  ========================================================================

What lies in a place::

    holdfast-place.json                  the marker: the version of the format, and a random id
    objects/<SHA-256>                    flat encodings, and lists of them; never changed
    datasets/<n>-<publication>-<hash>    manifests; never changed, and deleted when newer ones say otherwise
    writers/<publication>                who is about to publish: its objects are in no manifest yet
    sweeping/<id>                        somebody is deleting what nothing refers to

A file appears there whole and safe, or not at all. A publication is its manifest: whatever happens before that is there
changes nothing, and nothing that happens after it can undo it.
"""
