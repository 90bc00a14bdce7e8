"""From chunks, which come late and overlap, to one smooth stream of commands."""

from genima.chunks.stream import ChunkStream, Mode

__all__ = ["ChunkStream", "Mode"]
