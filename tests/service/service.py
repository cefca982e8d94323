"""A service of our own in a process of its own, on a free port, and OpenAI's client for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
from openai.types.fine_tuning import FineTuningJob

PATIENCE_S = 240
ENDED = ("succeeded", "failed", "cancelled")


@dataclass
class Service:
    """`model` is the name of the bare model that it serves."""

    process: subprocess.Popen[str]
    url: str
    model: str
    data: Path

    @property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url, api_key="none", max_retries=0)

    def job(self, rows: list[dict[str, Any]], *, validation: list[dict[str, Any]] | None = None, **asked: Any) -> FineTuningJob:
        """A new job over these rows."""
        files = {"training_file": self.upload(rows)}
        if validation is not None:
            files["validation_file"] = self.upload(validation)
        return self.client.fine_tuning.jobs.create(**{"model": self.model, **files, **asked})

    def upload(self, rows: list[dict[str, Any]]) -> str:
        return self.client.files.create(file=("rows.jsonl", lines(rows)), purpose="fine-tune").id

    def ended(self, job: str) -> FineTuningJob:
        return self.until(lambda: self.client.fine_tuning.jobs.retrieve(job), lambda found: found.status in ENDED)

    def until(self, look: Callable[[], Any], seen: Callable[[Any], bool]) -> Any:
        """What `look` gives as soon as it is what is waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while not seen(found := look()):
            assert time.monotonic() < deadline, (found, self.log())
            time.sleep(0.05)
        return found

    def log(self) -> str:
        path = self.data / "workers.log"
        return path.read_text()[-4000:] if path.exists() else "no worker ever started"

    def answer(self, model: str, text: str, **asked: Any) -> str:
        messages: Any = [{"role": "user", "content": text}]
        reply = self.client.chat.completions.create(model=model, messages=messages, **asked)
        return reply.choices[0].message.content or ""

    def events(self, job: str) -> list[str]:
        """What was said of a job, in order."""
        return [event.message for event in self.client.fine_tuning.jobs.list_events(job, limit=100)][::-1]


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@contextmanager
def service(model: Path, data: Path, *options: str) -> Iterator[Service]:
    """Stopped as Ctrl-C stops it, unless it has ended by then."""
    command = [str(Path(sys.executable).with_name("posttrain")), "serve", str(model), "--port", "0", "--json", "--data", str(data)]
    threads = {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True, env=os.environ | threads,
                          cwd=data.parent) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.read(1)
            while True:
                try:
                    told = json.loads(said)
                    break
                except ValueError:
                    more = process.stdout.readline()
                    assert more, f"it ended: {process.wait()}"
                    said += more
            yield Service(process, told["base_url"], told["models"][0], data)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                process.wait(60)
