"""From chunks, which come late and overlap, to one smooth stream of commands."""

from genima.chunks.stream import ChunkStream

__all__ = ["ChunkStream"]
