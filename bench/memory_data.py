"""Recordings with known answers, made by a seeded script: facts with questions, and other talk.

Every question has one right line, among lines that differ from it in one thing only: who, when, or how it was felt.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from chat.rag.records import SegmentIn, TranscriptIn

NOW = datetime(2026, 3, 11, 12, tzinfo=UTC)  # a Wednesday
DAYS = 400
CLASSES = ("paraphrase", "exact name", "date", "speaker", "latest", "emotion")
LINES_PER_RECORDING = 20
OTHER_DAYS = (20, 30, 95, 110, 180, 200, 240, 280, 300, 350, 380)  # none is meant by any question

# The lists hold one word each between blanks.
SPEAKERS = """Sarah John Priya Miguel Aisha Tomas Ingrid Kenji Fatima Oliver Chloe Dmitri Leila Marcus Nadia Henrik Yuki
Carlos Amara Stefan Rosa Viktor Helena Omar""".split()
EMOTIONS = "angry happy sad fear surprise neutral".split()
PLACES = """Lisbon Oslo Tallinn Marseille Gdansk Valencia Bergen Cork Turin Ghent Malmo Porto Riga Graz Split
Nantes Basel Aarhus Bilbao Krakow""".split()
FIRST = """harbour northern payroll greenhouse museum airport winter customer satellite library hospital railway bakery
theatre solar river archive kitchen marathon insurance""".split()
SECOND = """lighting training migration heating ticket parking booking survey cleaning catering labelling sensor roof
invoice podcast recruiting storage""".split()
THIRD = "contract project budget schedule prototype audit report workshop".split()
SYLLABLES = "za ve rin tol mex qua bri san dor fel kis lum nar pex ruv".split()
# A statement, and a question for it in other words; {p} is a place, {n} a number.
PARAPHRASES = [
    (
        "The car gave up on the motorway outside {p}, so we waited {n} hours for the mechanic to tow us",
        "vehicle breakdown near {p}",
    ),
    (
        "My doctor in {p} wants me to cut down on salt and to walk {n} minutes every single evening",
        "What medical advice was given in {p}?",
    ),
    (
        "We signed the lease for the flat in {p}, it costs {n} euros a month and has a balcony",
        "How much is the rent of the apartment in {p}?",
    ),
    (
        "The pupils in {p} failed the mathematics exam, only {n} of them passed it this time",
        "How did the students do in the test in {p}?",
    ),
    (
        "Our flight to {p} was cancelled because of fog and we slept {n} hours on the floor of the terminal",
        "Why were the air travellers to {p} stranded?",
    ),
    (
        "Burglars broke into the shop in {p} at night and took {n} laptops from the back room",
        "What was stolen during the robbery in {p}?",
    ),
    (
        "Grandmother turned {n} in {p} and the whole family sang for her until midnight",
        "Whose birthday party took place in {p}?",
    ),
    (
        "The chef in {p} burnt the soup, and {n} guests went home without having eaten",
        "What went wrong at the restaurant in {p}?",
    ),
    (
        "Heavy rain flooded the cellar in {p}, the pumps ran for {n} days without a pause",
        "Which basement had water damage in {p}?",
    ),
    (
        "The orchestra in {p} played so badly that {n} people asked for their money back",
        "Who wanted a refund for the concert in {p}?",
    ),
    (
        "They are hiring {n} nurses in {p} because the old ones are all retiring this summer",
        "Which staff shortage is there in {p}?",
    ),
    (
        "The dog ran away in {p} and was found {n} kilometres further on beside a lake",
        "What became of the lost pet in {p}?",
    ),
]
OPINIONS = [
    "Regarding the {t}, I would rather spend {n} thousand on it now than argue about it for another year",
    "If you ask me, the {t} needs {n} more people, otherwise nobody here will ever see the end of it",
    "For the {t} we settled on option {n}, since the other ones were too slow",
    "Honestly, the {t} went better than planned, we are {n} percent ahead and nobody had to stay late",
    "The supplier called about the {t} and offered us {n} units",
]
TALK = [
    "I was walking through {p} with {s} and we ended up in a cafe for {n} hours talking about {f}",
    "The {f} people never answer the phone, I tried {n} times simply went {p} to speak with them myself",
    "Could you send me the slides of {s} again, I think page {n} has the picture of the {e} in {p}",
    "My neighbour bought a {e} from somebody in {p} and paid {n} euros for it",
    "There is a {f} exhibition in {p} with {n} paintings, and {s} promised to take the children there at the weekend",
    "We should order {n} more chairs for the {f} room before {s} comes back from {p}",
    "Every time the {e} is switched on the lights in the {f} room flicker, {s} counted it {n} times",
    "It took {n} minutes to find a parking space in {p}, {s} noticed that the {e} was still at home",
    "In {p} they have a {e} in every {f} office, which {s} says saves them about {n} hours",
    "Remind me to water the plants beside the {e}, {s} is in {p} for {n} days",
]
THINGS = (
    "printer kettle projector ladder camera bicycle heater microphone drill scanner lamp radio tent suitcase".split()
)


@dataclass
class Line:
    text: str
    speaker: str
    emotion: str
    said_at: datetime


@dataclass
class Question:
    kind: str
    text: str
    answer: str


@dataclass
class Data:
    lines: list[Line] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)


def make(n_lines: int, *, n_questions: int = 40, seed: int = 1) -> Data:
    """``n_questions`` of each class, hidden in ``n_lines`` lines."""
    maker = Maker(random.Random(seed))
    for number in range(n_questions):
        maker.paraphrase(number)
        maker.exact_name()
        maker.by_date(number)
        maker.by_speaker()
        maker.latest()
        maker.by_emotion()
    while len(maker.data.lines) < n_lines:
        maker.talk()
    maker.check()
    maker.rng.shuffle(maker.data.lines)
    return maker.data


class Maker:
    """Lines and questions of one seed; every topic, name and fact is used once."""

    def __init__(self, rng: random.Random) -> None:
        self.rng, self.data = rng, Data()
        self.topics = [f"{a} {b} {c}" for a in FIRST for b in SECOND for c in THIRD]
        rng.shuffle(self.topics)
        self.facts = [(text, question, place) for text, question in PARAPHRASES for place in PLACES]
        rng.shuffle(self.facts)

    def add(self, text: str, *, speaker: str = "", emotion: str = "", said_at: datetime | None = None) -> str:
        speaker, emotion = speaker or self.rng.choice(SPEAKERS), emotion or self.rng.choice(EMOTIONS)
        self.data.lines.append(Line(text + ".", speaker, emotion, said_at or self.moment()))
        return text + "."

    def ask(self, kind: str, text: str, answer: str) -> None:
        self.data.questions.append(Question(kind, text, answer))

    def moment(self, day: int | None = None) -> datetime:
        back = day if day is not None else self.rng.randint(1, DAYS)
        return NOW.replace(hour=9) - timedelta(days=back) + timedelta(minutes=self.rng.randint(0, 170))

    def opinion(self, topic: str) -> str:
        return self.rng.choice(OPINIONS).format(t=topic, n=self.rng.randint(2, 99_999))

    def paraphrase(self, number: int) -> None:
        text, question, place = self.facts[number]
        self.ask("paraphrase", question.format(p=place), self.add(text.format(p=place, n=self.rng.randint(11, 99))))

    def exact_name(self) -> None:
        name = "".join(self.rng.choices(SYLLABLES, k=3)).capitalize() + f"-{self.rng.randint(10, 99)}"
        opinion_text = self.opinion(self.topics.pop()) + f", at least {name} thinks so"
        self.ask("exact name", f"What do we have on {name}?", self.add(opinion_text))

    def by_date(self, number: int) -> None:
        topic = self.topics.pop()
        exact = self.rng.randint(40, 69)
        statements, day = [
            (f"on {(NOW - timedelta(days=exact)).date()}", exact),
            ("yesterday", 1),
            ("on Monday", 2),
            ("in October", 145),
            ("last week", 9),
        ][number % 5]
        answer = self.add(self.opinion(topic), said_at=self.moment(day))
        for other in self.rng.sample(OTHER_DAYS, 9):
            self.add(self.opinion(topic), said_at=self.moment(other))
        self.ask("date", f"What did we discuss {statements} concerning our {topic}?", answer)

    def by_speaker(self) -> None:
        topic = self.topics.pop()
        speaker, *others = self.rng.sample(SPEAKERS, 10)
        answer = self.add(self.opinion(topic), speaker=speaker)
        for other in others:
            self.add(self.opinion(topic), speaker=other)
        self.ask("speaker", f"What is {speaker}'s view of our {topic}?", answer)

    def latest(self) -> None:
        topic = self.topics.pop()
        days = sorted(self.rng.sample(range(2, DAYS), 10))
        texts = [self.add(self.opinion(topic), said_at=self.moment(day)) for day in days]
        self.ask("latest", f"What is the latest concerning our {topic}?", texts[0])

    def by_emotion(self) -> None:
        topic, (emotion, *others) = self.topics.pop(), self.rng.sample(EMOTIONS, 6)
        question = {"fear": "worried", "neutral": "neutral", "surprise": "surprised"}.get(emotion, emotion)
        answer = self.add(self.opinion(topic), emotion=emotion)
        for other in (others * 2)[:9]:
            self.add(self.opinion(topic), emotion=other)
        self.ask("emotion", f"Who sounded {question} concerning our {topic}?", answer)

    def talk(self) -> None:
        rng = self.rng
        self.add(
            rng.choice(TALK).format(
                p=rng.choice(PLACES),
                s=rng.choice(SPEAKERS),
                f=rng.choice(FIRST),
                e=rng.choice(THINGS),
                n=rng.randint(2, 9999),
            )
        )

    def check(self) -> None:
        """No answer contains its question, and none is there twice."""
        texts = [line.text for line in self.data.lines]
        for question in self.data.questions:
            assert question.text.casefold() not in question.answer.casefold(), question
            assert texts.count(question.answer) == 1, question


def recordings(data: Data) -> Iterator[TranscriptIn]:
    """The lines in recordings, each line with its own hour."""
    for start in range(0, len(data.lines), LINES_PER_RECORDING):
        lines = data.lines[start : start + LINES_PER_RECORDING]
        segments = tuple(
            SegmentIn(
                text=line.text, speaker=line.speaker, emotion=line.emotion, start_secs=8.0 * n, said_at=line.said_at
            )
            for n, line in enumerate(lines)
        )
        yield TranscriptIn(job_id=f"bench-{start}", segments=segments, recorded_at=lines[0].said_at)
