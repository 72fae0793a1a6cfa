"""What receivers have read lately: a question about a packet that was asked about before begins at the question.

Keys and values of a context stay as long as there is room, the ones asked for longest ago go first. This is to a packet
what prefix caching is to a text (Kwon et al. 2023): a link makes them anew otherwise, and for short questions that is a
third of the work.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from latentwire.types import Prefix


class Prefixes:
    """Prefixes of one row each. most: bytes that all may take together; 0 keeps none. asked, found: how often one was
    looked for, and was there."""

    def __init__(self, most: int = 0) -> None:
        self.most, self.bytes, self.asked, self.found = most, 0, 0, 0
        self.held: OrderedDict[Hashable, tuple[Prefix, int]] = OrderedDict()
        self.lock = threading.Lock()

    def get(self, key: Hashable) -> Prefix | None:
        """The prefix of that key, if it is still there."""
        with self.lock:
            self.asked += 1
            if key not in self.held:
                return None
            self.found += 1
            self.held.move_to_end(key)
            return self.held[key][0]

    def put(self, key: Hashable, prefix: Prefix) -> None:
        """Keep a prefix, if it fits. What reaches into the model's layers besides (blocks) is not counted, so such a
        prefix is not kept."""
        size = sum(k.nbytes + v.nbytes for k, v in prefix.kv)
        if prefix.blocks or size > self.most:
            return
        with self.lock:
            if key in self.held:
                return
            self.held[key] = prefix, size
            self.bytes += size
            while self.bytes > self.most:
                self.bytes -= self.held.popitem(last=False)[1][1]
