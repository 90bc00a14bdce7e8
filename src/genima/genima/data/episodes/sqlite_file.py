"""SQLite bag files (.db3) of all rosbag2 versions, read in time order."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from pathlib import Path

from genima.data.episodes.mcap_file import LATEST, RECORD_BYTES
from genima.data.episodes.metadata import QOS, TYPE_HASH, Topic
from genima.errors import GenimaError

JOURNALS = ("-wal", "-journal")  # suffixes of the journals of a file that was not closed


class SqliteFile:
    """SQLite file of a bag."""

    def __init__(self, path: Path) -> None:
        """Read its topics and counts.

        Raises:
            GenimaError: for a damaged file, or one that is not a bag's.
            OSError: when it cannot be read.
        """
        with open(path, "rb"):
            self._name = path.name
        for journal in JOURNALS:
            journal_path = path.with_name(path.name + journal)
            if journal_path.exists() and journal_path.stat().st_size:
                raise GenimaError(f"{path.name}: was not closed; its journal {journal_path.name} has the rest")
        uri = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
        try:
            self._database = sqlite3.connect(uri, uri=True)
            self._database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, RECORD_BYTES)
            self._database.execute("PRAGMA trusted_schema = OFF")
            self._read()
        except (sqlite3.Error, OverflowError, ValueError, TypeError) as error:
            raise GenimaError(f"{path.name}: {' '.join(str(error).split())}") from None

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def messages(self, topics: Collection[str]) -> Iterator[tuple[str, int, int, bytes]]:
        """Yield topic, log time, publish time (the same, ns) and data of the messages of some topics, by log time.

        Raises:
            GenimaError: when the file is damaged.
        """
        wanted = {number: name for number, name in self._topics.items() if name in topics}
        marks = ",".join("?" * len(wanted))
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({marks}) ORDER BY timestamp"
        try:
            for number, log_ns, data in self._database.execute(query, list(wanted)):
                if not isinstance(log_ns, int) or not 0 <= log_ns <= LATEST:
                    raise GenimaError(f"{self._name}: a message with time {str(log_ns)[:30]} ns")
                if not isinstance(data, bytes):
                    raise GenimaError(f"{self._name}: a message that is no data")
                yield wanted[number], log_ns, log_ns, data
        except (sqlite3.Error, OverflowError, ValueError) as error:
            raise GenimaError(f"{self._name}: {' '.join(str(error).split())}") from None

    def _read(self) -> None:
        execute = self._database.execute
        tables = dict(execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall())
        for name in ("topics", "messages"):  # views and virtual tables could run forever
            if not str(tables.get(name, "")).upper().startswith("CREATE TABLE"):
                raise GenimaError(f"{self._name}: no file of a bag (it has no table {name})")
        columns = [row[1] for row in execute("PRAGMA table_info(topics)")]
        wanted = ["id", "name", "type", "serialization_format", "offered_qos_profiles", "type_description_hash"]
        available = [column for column in wanted if column in columns]
        if missing := [column for column in wanted[:4] if column not in columns]:
            raise GenimaError(f"{self._name}: no file of a bag (its topics have no {missing[0]})")
        definitions = {}
        if str(tables.get("message_definitions", "")).upper().startswith("CREATE TABLE"):
            rows = execute("SELECT topic_type, encoding, encoded_message_definition FROM message_definitions")
            definitions = {str(msgtype): (str(encoding), str(text)) for msgtype, encoding, text in rows}
        self._topics: dict[int, str] = {}
        self.topics: list[Topic] = []
        for row in execute(f"SELECT {', '.join(available)} FROM topics ORDER BY id"):
            of = dict(zip(available, row, strict=True))
            name, msgtype = str(of["name"]), str(of["type"])
            notes = {QOS: str(of.get("offered_qos_profiles") or "")}
            notes[TYPE_HASH] = str(of.get("type_description_hash") or "")
            encoding, text = definitions.get(msgtype, ("", ""))
            self._topics[int(of["id"])] = name
            topic = Topic(name, msgtype, str(of["serialization_format"]), notes, encoding, text.encode())
            self.topics.append(topic)
        self.counts = dict.fromkeys(self._topics.values(), 0)
        times: list[int] = []
        for number, count, first, last in execute(
            "SELECT topic_id, COUNT(*), MIN(timestamp), MAX(timestamp) FROM messages GROUP BY topic_id"
        ):
            if number not in self._topics:
                raise GenimaError(f"{self._name}: messages of unknown topic {str(number)[:30]}")
            self.counts[self._topics[number]] += count
            times += [int(first), int(last)]
        self.first_ns: int | None = min(times, default=None)
        self.last_ns: int | None = max(times, default=None)
