"""The second process: get the accounts by their name, and compute with them."""

from __future__ import annotations

import sys

from holdfast import Client


def main(address: str, place: str | None = None) -> None:
    with Client(address) as client:
        print("datasets:", ", ".join(client.list_datasets(durable=place)))
        negative = client.get_dataset("negative_accounts", durable=place)
        print(negative.head(5, npartitions=-1))
        print("in all:", negative.balance.sum().compute())


if __name__ == "__main__":
    main(*sys.argv[1:])
