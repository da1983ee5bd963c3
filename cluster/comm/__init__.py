"""The wire: frames, the authenticated opening, connections. See `docs/architecture.md`, "The wire"."""
