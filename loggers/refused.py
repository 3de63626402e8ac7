"""What a destination will never take, as against one that cannot be reached just now."""

from __future__ import annotations

from collections.abc import Sequence

from boxscore.records import Item, Point


class Refused(Exception):
    """These items will never be taken, however often they are sent; the rest of the call was.

    Any other exception of a logger may be over in a minute: the same call is worth repeating.

    Attributes:
        items: what was refused.
        names: their names, once each.
        reason: why, in the destination's words, without credentials.
    """

    def __init__(self, items: Sequence[Item], reason: str) -> None:
        self.items, self.reason = tuple(items), reason
        self.names = sorted({item.key if isinstance(item, Point) else item.name for item in items})
        super().__init__(f"refused for good: {', '.join(self.names) or 'the call'}: {reason}")
