"""First image of each camera in an episode."""

from __future__ import annotations

from pathlib import Path

from genima.data.episodes.bag import BagReader, view_of
from genima.data.episodes.errors import EpisodeError
from genima.data.episodes.frames import decode
from genima.errors import GenimaError
from genima.types import Image


def first_images(folder: Path) -> dict[str, Image]:
    """Return the first image (h, w, 3) of every view; the bag is read only up to these.

    Raises:
        EpisodeError: when the bag cannot be read, has no image, or one that cannot be decoded.
    """
    images: dict[str, Image] = {}
    with BagReader(folder) as bag:
        topics = {topic: view for topic in bag.types if (view := view_of(topic)) is not None}
        for message in bag.messages(topics):
            view = topics[message.topic]
            if view not in images:
                try:
                    images[view] = decode(bag.understood(message))
                except EpisodeError:
                    raise
                except GenimaError as error:
                    raise EpisodeError(folder, str(error), message.topic) from None
            if len(images) == len(set(topics.values())):
                break
    if not images:
        raise EpisodeError(folder, "no camera was recorded")
    return images
