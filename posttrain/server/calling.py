"""How a server is called, for people to copy."""

from __future__ import annotations

import json
import shlex


def how_to_call(url: str, model: str) -> str:
    """Two ready-made calls to a server at `url`: with curl and with OpenAI's Python client."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "..."}]})
    return f'''curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d {shlex.quote(body)}

from openai import OpenAI

client = OpenAI(base_url="{url}/v1", api_key="none")
answer = client.chat.completions.create(model={json.dumps(model)}, messages=[{{"role": "user", "content": "..."}}])
print(answer.choices[0].message.content)
'''
