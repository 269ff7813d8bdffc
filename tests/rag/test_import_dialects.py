"""JSON of speech services, captions of many kinds, tables: texts, speakers, times are read, or refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chat.rag.ingest.formats import parse
from chat.rag.ingest.json_dialects import DIALECTS
from chat.rag.ingest.parsed_file import FileUnreadable, ParsedFile

Line = tuple[str, str, float | None, float | None]


def lines(parsed: ParsedFile) -> list[Line]:
    """Return (speaker, text, start, end) of the only recording, of which nothing was left out."""
    assert (parsed.problems, parsed.remarks, parsed.notes) == ([], [], [])
    [transcript] = parsed.transcripts
    return [(entry.speaker, entry.text, entry.start_secs, entry.end_secs) for entry in transcript.segments]


def of_json(data: object) -> list[Line]:
    return lines(parse(json.dumps(data), Path("a.json")))


def word(text: str, start: object, end: object, **fields: object) -> dict[str, object]:
    return {"word": text, "start": start, "end": end, **fields}


TWO: list[Line] = [("A", "Hello there.", 0.5, 1.5), ("B", "Yes", 2.0, 2.5)]
AWS_ITEMS = [
    {"start_time": "0.5", "end_time": "0.9", "type": "pronunciation", "alternatives": [{"content": "Hello"}]},
    {"start_time": "1.0", "end_time": "1.5", "type": "pronunciation", "alternatives": [{"content": "there"}]},
    {"type": "punctuation", "alternatives": [{"content": "."}]},
    {"start_time": "2.0", "end_time": "2.5", "type": "pronunciation", "alternatives": [{"content": "Yes"}]},
]
DEEPGRAM_WORDS = [
    word("hello", 0.5, 0.9, punctuated_word="Hello", speaker="A"),
    word("there", 1.0, 1.5, punctuated_word="there.", speaker="A"),
    word("yes", 2.0, 2.5, punctuated_word="Yes", speaker="B"),
]
DATA: dict[str, dict[str, Any]] = {
    "Podcast 2.0": {
        "version": "1.0.0",
        "segments": [
            {"speaker": "A", "startTime": 0.5, "endTime": 1.5, "body": "Hello there."},
            {"speaker": "B", "startTime": 2, "endTime": 2.5, "body": "Yes"},
        ],
    },
    "AssemblyAI": {
        "id": "x",
        "audio_duration": 3,
        "text": "Hello there. Yes",
        "utterances": [
            {"speaker": "A", "text": "Hello there.", "start": 500, "end": 1500, "words": []},
            {"speaker": "B", "text": "Yes", "start": 2000, "end": 2500},
        ],
    },
    "AssemblyAI without utterances": {
        "audio_duration": 3,
        "utterances": None,
        "words": [
            {"text": "Hello", "start": 500, "end": 900, "speaker": "A"},
            {"text": "there.", "start": 1000, "end": 1500, "speaker": "A"},
            {"text": "Yes", "start": 2000, "end": 2500, "speaker": "B"},
        ],
    },
    "Deepgram words": {"results": {"channels": [{"alternatives": [{"words": DEEPGRAM_WORDS}]}]}},
    "Deepgram utterances": {
        "results": {
            "utterances": [
                {"transcript": "Hello there.", "start": 0.5, "end": 1.5, "speaker": "A"},
                {"transcript": "Yes", "start": 2.0, "end": 2.5, "speaker": "B"},
            ]
        }
    },
    "Deepgram paragraphs": {
        "results": {
            "channels": [
                {
                    "alternatives": [
                        {
                            "paragraphs": {
                                "paragraphs": [
                                    {
                                        "speaker": "A",
                                        "sentences": [{"text": "Hello there.", "start": 0.5, "end": 1.5}],
                                    },
                                    {"speaker": "B", "sentences": [{"text": "Yes", "start": 2.0, "end": 2.5}]},
                                ]
                            }
                        }
                    ]
                }
            ]
        }
    },
    "AWS": {
        "jobName": "j",
        "results": {
            "transcripts": [{"transcript": "Hello there. Yes"}],
            "speaker_labels": {
                "segments": [
                    {
                        "speaker_label": "A",
                        "items": [
                            {"start_time": "0.5", "speaker_label": "A"},
                            {"start_time": "1.0", "speaker_label": "A"},
                        ],
                    },
                    {"speaker_label": "B", "items": [{"start_time": "2.0", "speaker_label": "B"}]},
                ]
            },
            "items": AWS_ITEMS,
        },
    },
    "AWS of today": {
        "results": {
            "items": AWS_ITEMS,
            "audio_segments": [
                {"transcript": "Hello there.", "start_time": "0.5", "end_time": "1.5", "speaker_label": "A"},
                {"transcript": "Yes", "start_time": "2.0", "end_time": "2.5", "speaker_label": "B"},
            ],
        }
    },
    "Speechmatics": {
        "results": [
            {
                "type": "word",
                "start_time": start,
                "end_time": end,
                "alternatives": [{"content": text, "speaker": speaker}],
            }
            if text != "."
            else {
                "type": "punctuation",
                "start_time": start,
                "end_time": end,
                "alternatives": [{"content": text, "speaker": speaker}],
            }
            for text, start, end, speaker in [
                ("Hello", 0.5, 0.9, "A"),
                ("there", 1.0, 1.5, "A"),
                (".", 1.5, 1.5, "A"),
                ("Yes", 2.0, 2.5, "B"),
            ]
        ]
    },
    "Google": {
        "results": [
            {"alternatives": [{"transcript": "Hello there. Yes"}]},
            {
                "alternatives": [
                    {
                        "words": [
                            {"word": "Hello", "startTime": "0.500s", "endTime": "0.9s", "speakerTag": "A"},
                            {"word": "there.", "startTime": "1s", "endTime": "1.5s", "speakerTag": "A"},
                            {"word": "Yes", "startTime": "2s", "endTime": "2.5s", "speakerTag": "B"},
                        ]
                    }
                ]
            },
        ]
    },
    "Rev AI": {
        "monologues": [
            {
                "speaker": "A",
                "elements": [
                    {"type": "text", "value": "Hello", "ts": 0.5, "end_ts": 0.9},
                    {"type": "punct", "value": " "},
                    {"type": "text", "value": "there", "ts": 1.0, "end_ts": 1.5},
                    {"type": "punct", "value": "."},
                ],
            },
            {"speaker": "B", "elements": [{"type": "text", "value": "Yes", "ts": 2.0, "end_ts": 2.5}]},
        ]
    },
    "Azure": {
        "recognizedPhrases": [
            {
                "speaker": "A",
                "offsetInTicks": 5_000_000,
                "durationInTicks": 10_000_000,
                "nBest": [{"display": "Hello there."}],
            },
            {"speaker": "B", "offsetInTicks": 20_000_000, "durationInTicks": 5_000_000, "nBest": [{"display": "Yes"}]},
        ]
    },
    "Azure without ticks": {
        "recognizedPhrases": [
            {"speaker": "A", "offset": "PT0.5S", "duration": "PT1S", "nBest": [{"display": "Hello there."}]},
            {"speaker": "B", "offset": "PT2S", "duration": "PT0.5S", "nBest": [{"display": "Yes"}]},
        ]
    },
    "Azure, fast": {
        "durationMilliseconds": 2500,
        "combinedPhrases": [{"text": "Hello there. Yes"}],
        "phrases": [
            {"speaker": "A", "offsetMilliseconds": 500, "durationMilliseconds": 1000, "text": "Hello there."},
            {"speaker": "B", "offsetMilliseconds": 2000, "durationMilliseconds": 500, "text": "Yes"},
        ],
    },
    "Gladia": {
        "result": {
            "transcription": {
                "utterances": [
                    {"text": "Hello there.", "start": 0.5, "end": 1.5, "speaker": "A"},
                    {"text": "Yes", "start": 2.0, "end": 2.5, "speaker": "B"},
                ]
            }
        }
    },
    "ElevenLabs": {
        "text": "Hello there. Yes",
        "words": [
            {"text": "Hello", "start": 0.5, "end": 0.9, "type": "word", "speaker_id": "A"},
            {"text": " ", "start": 0.9, "end": 1.0, "type": "spacing", "speaker_id": "A"},
            {"text": "there.", "start": 1.0, "end": 1.5, "type": "word", "speaker_id": "A"},
            {"text": "Yes", "start": 2.0, "end": 2.5, "type": "word", "speaker_id": "B"},
        ],
    },
    "Fireflies": {
        "title": "T",
        "sentences": [
            {"speaker_name": "A", "text": "Hello there.", "start_time": 0.5, "end_time": 1.5},
            {"speaker_name": "B", "text": "Yes", "start_time": 2.0, "end_time": 2.5},
        ],
    },
}


CHANNELS = {
    "Deepgram": {
        "results": {
            "channels": [
                {"alternatives": [{"words": [word("yes.", 0.5, 0.9), word("bye.", 3.0, 3.5)]}]},
                {"alternatives": [{"words": [word("no.", 2.0, 2.5)]}]},
            ]
        }
    },
    "Azure": {
        "recognizedPhrases": [
            {"channel": channel, "offset": start, "duration": "PT0.5S", "nBest": [{"display": text}]}
            for channel, start, text in ((0, "PT0.4S", "yes."), (0, "PT3S", "bye."), (1, "PT2S", "no."))
        ]
    },
    "AWS": {
        "results": {
            "items": [
                {
                    "type": "pronunciation",
                    "start_time": start,
                    "end_time": end,
                    "channel_label": f"channel {channel}",
                    "alternatives": [{"content": text}],
                }
                for channel, start, end, text in (
                    (0, "0.5", "0.9", "yes."),
                    (1, "2.0", "2.5", "no."),
                    (0, "3.0", "3.5", "bye."),
                )
            ]
        }
    },
}


@pytest.mark.parametrize("name", CHANNELS)
def test_a_channel_per_person(name: str) -> None:
    assert [(speaker, text) for speaker, text, _, _ in of_json(CHANNELS[name])] == [
        ("channel 0", "yes."),
        ("channel 1", "no."),
        ("channel 0", "bye."),
    ]


@pytest.mark.parametrize("name", DATA)
def test_speakers_and_times(name: str) -> None:
    assert of_json(DATA[name]) == TWO


@pytest.mark.parametrize(
    "data",
    [
        {"text": "x", "chunks": [{"timestamp": [0.0, 1.5], "text": " one"}, {"timestamp": [1.5, None], "text": "two"}]},
        {
            "transcription": [
                {"offsets": {"from": 0, "to": 1500}, "text": " one"},
                {"offsets": {"from": 1500}, "text": "two"},
            ]
        },
        {"result": [word("one", 0.0, 1.5), word("two", 3.1, None)], "text": "one two"},
    ],
    ids=["Hugging Face", "whisper.cpp", "Vosk"],
)
def test_without_speakers(data: object) -> None:
    first, second = of_json(data)
    assert first == ("", "one", 0.0, 1.5)
    assert second[:2] == ("", "two")


def test_facts_of_the_recording() -> None:
    data = {"metadata": {"created": "2024-03-05T10:00:00.000Z", "duration": 5.0}, **DATA["Deepgram words"]}
    [transcript] = parse(json.dumps(data), Path("a.json")).transcripts
    assert transcript.recorded_at
    assert (transcript.recorded_at.isoformat(), transcript.duration_secs) == ("2024-03-05T10:00:00+00:00", 5.0)
    assert parse(json.dumps(DATA["AWS"]), Path("a.json")).transcripts[0].title == "j"


@pytest.mark.parametrize("data", [{"foo": [1], "bar": 2}, {"results": {"x": 1}}, {"utterances": []}, {"text": 7}, {}])
def test_an_unknown_form_is_refused_with_its_fields(data: dict[str, object]) -> None:
    with pytest.raises(FileUnreadable) as refusal:
        parse(json.dumps(data), Path("a.json"))
    assert any(name in str(refusal.value) for name in (*data, "unknown form"))


NAMES = [
    *("results", "utterances", "words", "channels", "alternatives", "items", "transcript", "text", "start", "end"),
    *("result", "chunks", "timestamp", "transcription", "offsets", "monologues", "elements", "recognizedPhrases"),
    *("nBest", "sentences", "word"),
]
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(ANY)
def test_any_object_is_read_or_refused(data: object) -> None:
    try:
        parse(json.dumps(data), Path("a.json"))
    except FileUnreadable as refusal:
        assert str(refusal)


def test_names_of_dialects_are_distinct() -> None:
    assert len({dialect.name for dialect in DIALECTS}) == len(DIALECTS)


TTML = """<?xml version="1.0" encoding="UTF-8"?>
<tt xmlns="http://www.w3.org/ns/ttml" xmlns:ttm="http://www.w3.org/ns/ttml#metadata" xml:lang="en">
 <head><metadata><ttm:title>Talk</ttm:title><ttm:agent xml:id="a"><ttm:name>A</ttm:name></ttm:agent></metadata></head>
 <body><div><p begin="00:00:00.500" end="1.5s" ttm:agent="a">Hello<br/>
   <span>there</span>.</p><p begin="2000ms" dur="0.5s">B: Yes</p></div></body></tt>"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.sbv", "0:00:00.500,0:00:01.500\n>> A: Hello\nthere.\n\n0:00:02.000,0:00:02.500\nB: Yes\n"),
        ("a.ttml", TTML),
        ("a.dfxp", TTML),
        ("a.txt", TTML),
        ("a.csv", 'Speaker,Start,End,Text\nA,0.5,1.5,"Hello there."\nB,00:00:02,2.5,Yes\n'),
        ("a.tsv", "start_time\tend_time\tname\tTranscript\n0.5\t1.5\tA\tHello there.\n\n2\t2.5\tB\tYes\n"),
        ("a.csv", "\ufeffspeaker;start;end;text\r\nA;0,5;1,5;Hello there.\r\nB;2;2,5;Yes\r\n"),
        (
            "a.ass",
            "[Events]\nFormat: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
            "Dialogue: 0,0:00:00.50,0:00:01.50,D,A,0,0,0,,{\\i1}Hello\\Nthere.{\\i0}\n"
            "Dialogue: 0,0:00:02.00,0:00:02.50,D,,0,0,0,,B: Yes\n",
        ),
    ],
)
def test_other_captions_and_tables(name: str, text: str) -> None:
    assert lines(parse(text, Path(name))) == TWO


@pytest.mark.parametrize(
    "header",
    [
        "Beginn;Ende;Sprecher;Text",
        "Inicio;Fin;Hablante;Texto",
        "开始时间;结束时间;说话人;内容",
        "Start (s);End (s);Who;Text",
    ],
)
def test_columns_in_other_languages(header: str) -> None:
    table = f"{header}\n0.5;1.5;A;Hello there.\n2.0;2.5;B;Yes\n"
    assert lines(parse(table, Path("a.csv"))) == TWO


def test_lyrics() -> None:
    parsed = parse("[ti:Talk]\n[00:01.50]one\n[00:02.00][00:09.00]<00:02.10>two\nthree\n", Path("a.lrc"))
    assert parsed.transcripts[0].title == "Talk"
    starts = {(text, start) for _, text, start, _ in lines(parsed)}
    assert starts == {("one", 1.5), ("two", 2.0), ("two", 9.0), ("three", None)}


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.rttm", "SPEAKER x 1 0.0 1.0 <NA> <NA> a <NA> <NA>\n", "RTTM"),
        ("a.csv", "a,b\n1,2\n", 'no column "text" \\(a, b\\)'),
        ("a.txt", "<!DOCTYPE html><p>x", "markup"),
        ("a.rtf", "{\\rtf1 x}", "markup"),
        ("a.ttml", "<tt><p>", "is not XML"),
        ("a.ttml", "<svg></svg>", "<svg>"),
    ],
)
def test_refused_by_name(name: str, text: str, reason: str) -> None:
    with pytest.raises(FileUnreadable, match=reason):
        parse(text, Path(name))
