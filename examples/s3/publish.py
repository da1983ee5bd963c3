"""The first process: read CSV files from S3, keep the accounts that are overdrawn, publish them."""

from __future__ import annotations

import sys

import dask.dataframe as dd

from holdfast import Client


def main(address: str) -> None:
    with Client(address) as client:
        accounts = dd.read_csv("s3://my-bucket/*.csv")
        negative = accounts[accounts.balance < 0].persist()
        print(negative.head(5, npartitions=-1))
        client.publish_dataset(negative_accounts=negative, durable="s3://my-bucket/published")


if __name__ == "__main__":
    main(*sys.argv[1:])
