"""The title of a recording, the name of a file and its headings are words of every part. With the real encoder."""

from pathlib import Path

import pytest

from tests.rag.builders import ask, remember, texts
from tests.rag.test_import_memories import imports

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize(
    "question", ["Acme", "acme", "When do we start with Acme?", "What was said in the kickoff of Acme?"]
)
def test_the_title_of_a_recording(question: str) -> None:
    for company in ("Globex", "Acme", "Initech"):
        remember("We start in May.", "The room is booked.", job_id=company, title=f"Kickoff {company}")
    result = ask(question)
    assert result.sources[0].title == "Kickoff Acme"


@pytest.mark.parametrize(
    "question", ["What is the status of Project Falcon?", "Falcon status", "Wie ist der Status von Falcon?"]
)
def test_the_name_of_a_file_and_its_heading(question: str, tmp_path: Path) -> None:
    for project in ("Heron", "Falcon", "Osprey"):
        (tmp_path / f"Project {project}.md").write_text(
            f"## Status\nAll is on time for number {len(project)}.\n\n## Team\nThree.\n"
        )
    imports(tmp_path)
    assert texts(ask(question))[0] == "Status\nAll is on time for number 6."


def test_a_heading_of_a_spoken_file(tmp_path: Path) -> None:
    (tmp_path / "minutes.md").write_text(
        "# Kickoff Acme\n\n**Ann:** We start.\n\n## Budget\n\n**Bob:** It is approved.\n"
    )
    imports(tmp_path)
    found = ask("Budget of Acme").sources
    assert {source.title for source in found} == {"Kickoff Acme"}
    assert "Budget" in [source.text for source in found]
