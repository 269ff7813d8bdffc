"""The example meetings imported into a real service with the real model, and the README's question to them."""

import httpx
import pytest

from tests.live_stack import PROJECT, LiveStack

pytestmark = pytest.mark.real_model


def test_the_question_about_the_deadline(real_stack: LiveStack) -> None:
    done = real_stack.run("import_memories", str(PROJECT / "examples" / "meetings"))
    assert done.returncode == 0, done.stderr
    body = {
        "messages": [{"role": "user", "content": "What did Sarah say about the deadline?"}],
        "use_rag": True,
        "rag_top_k": 5,
        "max_tokens": 300,
    }
    answer = httpx.post(f"{real_stack.url}/chat", json=body, timeout=100).json()
    assert answer["response"].strip()
    assert answer["rag_context_used"] == len(answer["sources"]) >= 1
    assert answer["usage"]["prompt_tokens"] > 100
    texts = " ".join(source["text"] for source in answer["sources"])
    assert "deadline" in texts
    assert "Sarah" in {source["speaker"] for source in answer["sources"]}
