"""A broker in memory, as an updater sees one: what is retained comes when it is asked for."""

from collections import deque
from collections.abc import Iterable


class Shelf:
    """Delivers at once what is retained under a topic that is subscribed to, until told not to."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.subscribed: set[str] = set()
        self.asked: list[str] = []  # every subscription in its order
        self.delivered: deque[tuple[str, bytes]] = deque()  # for whoever polls
        self.away = False
        self.most = 0  # subscriptions at one time

    def subscribe(self, topics: Iterable[str], *, anew: bool = False) -> None:
        for topic in topics:
            if anew or topic not in self.subscribed:
                self.subscribed.add(topic)
                self.asked.append(topic)
                if not self.away and topic in self.retained:
                    self.delivered.append((topic, self.retained[topic]))
        self.most = max(self.most, len(self.subscribed))

    def unsubscribe(self, topics: Iterable[str]) -> None:
        self.subscribed -= set(topics)

    def publish(self, topic: str, payload: bytes) -> None:
        """Retain it and deliver it to who has subscribed."""
        self.retained[topic] = payload
        if topic in self.subscribed and not self.away:
            self.delivered.append((topic, payload))

    def back(self) -> None:
        """The broker is there again, and sends what is retained once more."""
        self.away = False
        self.delivered.extend(
            (topic, self.retained[topic]) for topic in sorted(self.subscribed & set(self.retained))
        )
