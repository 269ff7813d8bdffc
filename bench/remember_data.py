"""Scripted conversations for ``bench.remember``: facts that the user states, small talk around them, and questions in
other words, in English, German and Spanish."""

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Fact:
    """A statement with its question. ``key`` is what a right answer has (in lower case), ``wrong`` what it must not
    have: the value before ``correction``."""

    statement: str
    question: str
    key: str
    correction: str = ""
    wrong: str = ""


@dataclass(frozen=True)
class Talk:
    """``turns``: what user and assistant say, in order; ``unanswerable``: questions about which nothing was said."""

    language: str
    turns: list[tuple[str, str]]
    facts: list[Fact]
    unanswerable: list[str]


FACTS = {
    "en": [
        Fact("My dentist is Dr. Osei.", "Who looks after my teeth?", "osei"),
        Fact("I keep the spare key under the marigold pot.", "Where is the second key hidden?", "marigold"),
        Fact("My daughter Ottilie plays the cello.", "Which instrument does my child play?", "cello"),
        Fact("We decided to paint the kitchen teal.", "Which color did we choose for the kitchen?", "teal"),
        Fact("My locker at the gym is number 482.", "What is the number of my gym locker?", "482"),
        Fact("I am allergic to walnuts.", "Which food must I avoid?", "walnut"),
        Fact("Our cat is called Quillon.", "What is the name of my pet?", "quillon"),
        Fact("I prefer trains to planes when I travel.", "How do I like to travel best?", "train"),
        Fact("The plumber charges 90 euros an hour.", "What does an hour of the plumber cost?", "90"),
        Fact(
            "My sister's wedding is on 17 June.",
            "On which day does my sister get married?",
            "18",
            "No wait, the wedding of my sister is on 18 June, not on the 17th.",
            "17",
        ),
        Fact(
            "We meet the architect in Bremen.",
            "In which city do we see the architect?",
            "kassel",
            "Actually, the architect wants to meet us in Kassel instead of Bremen.",
            "bremen",
        ),
        Fact(
            "The new sofa costs 740 euros.",
            "What is the price of the new couch?",
            "690",
            "Correction: the new sofa costs 690 euros, not 740.",
            "740",
        ),
    ],
    "de": [
        Fact("Mein Zahnarzt heißt Dr. Osei.", "Wer kümmert sich um meine Zähne?", "osei"),
        Fact("Den Ersatzschlüssel habe ich unter dem Blumentopf.", "Wo liegt der zweite Schlüssel?", "blumentopf"),
        Fact("Meine Tochter Ottilie spielt Cello.", "Welches Instrument spielt mein Kind?", "cello"),
        Fact("Wir haben entschieden, die Küche türkis zu streichen.", "Welche Farbe bekommt die Küche?", "türkis"),
        Fact("Mein Spind im Studio hat die Nummer 482.", "Welche Nummer hat mein Schrank beim Sport?", "482"),
        Fact("Ich bin gegen Walnüsse allergisch.", "Welches Essen vertrage ich nicht?", "walnüss"),
        Fact("Unsere Katze heißt Quillon.", "Wie heißt mein Haustier?", "quillon"),
        Fact("Auf Reisen fahre ich lieber mit dem Zug als zu fliegen.", "Wie reise ich am liebsten?", "zug"),
        Fact("Der Klempner nimmt 90 Euro pro Stunde.", "Was kostet eine Stunde beim Klempner?", "90"),
        Fact(
            "Die Hochzeit meiner Schwester ist am 17. Juni.",
            "An welchem Tag heiratet meine Schwester?",
            "18",
            "Nein, Moment, die Hochzeit meiner Schwester ist am 18. Juni, nicht am 17.",
            "17",
        ),
        Fact(
            "Wir treffen die Architektin in Bremen.",
            "In welcher Stadt sehen wir die Architektin?",
            "kassel",
            "Die Architektin will uns doch lieber in Kassel treffen statt in Bremen.",
            "bremen",
        ),
        Fact(
            "Das neue Sofa kostet 740 Euro.",
            "Welchen Preis hat die neue Couch?",
            "690",
            "Korrektur: das neue Sofa kostet 690 Euro, nicht 740.",
            "740",
        ),
    ],
    "es": [
        Fact("Mi dentista es el doctor Osei.", "¿Quién cuida mis dientes?", "osei"),
        Fact("La llave de repuesto está debajo de la maceta.", "¿Dónde está la segunda llave?", "maceta"),
        Fact("Mi hija Ottilie toca el violonchelo.", "¿Qué instrumento toca mi niña?", "violonchelo"),
        Fact("Decidimos pintar la cocina de turquesa.", "¿Qué color elegimos para la cocina?", "turquesa"),
        Fact("Mi taquilla del gimnasio es la 482.", "¿Qué número tiene mi armario del gimnasio?", "482"),
        Fact("Soy alérgica a las nueces.", "¿Qué alimento debo evitar?", "nuez|nueces"),
        Fact("Nuestro gato se llama Quillon.", "¿Cómo se llama mi mascota?", "quillon"),
        Fact("Para viajar prefiero el tren al avión.", "¿Cómo me gusta más viajar?", "tren"),
        Fact("El fontanero cobra 90 euros por hora.", "¿Cuánto cuesta una hora del fontanero?", "90"),
        Fact(
            "La boda de mi hermana es el 17 de junio.",
            "¿Qué día se casa mi hermana?",
            "18",
            "No, espera, la boda de mi hermana es el 18 de junio, no el 17.",
            "17",
        ),
        Fact(
            "Vemos a la arquitecta en Burgos.",
            "¿En qué ciudad nos reunimos con la arquitecta?",
            "toledo",
            "En realidad la arquitecta quiere vernos en Toledo en vez de Burgos.",
            "burgos",
        ),
        Fact(
            "El sofá nuevo cuesta 740 euros.",
            "¿Qué precio tiene el sofá nuevo?",
            "690",
            "Corrección: el sofá nuevo cuesta 690 euros, no 740.",
            "740",
        ),
    ],
}
NOTED = {
    "en": "Thanks, I will keep that in mind.",
    "de": "Danke, das merke ich mir.",
    "es": "Gracias, lo tendré en cuenta.",
}
UNANSWERABLE = {
    "en": [
        "What is the name of my boss?",
        "Which car do I drive?",
        "When is my birthday?",
        "How much rent do I pay?",
    ],
    "de": ["Wie heißt mein Chef?", "Welches Auto fahre ich?", "Wann habe ich Geburtstag?", "Wie viel Miete zahle ich?"],
    "es": ["¿Cómo se llama mi jefe?", "¿Qué coche tengo?", "¿Cuándo es mi cumpleaños?", "¿Cuánto alquiler pago?"],
}
SMALL_TALK = {
    "en": [
        ("How do I boil an egg?", "Put it into boiling water for seven minutes and cool it under the tap."),
        (
            "Why is the sky blue?",
            "Air scatters the short waves of sunlight more than the long ones, and those are blue.",
        ),
        ("What is a good name for a band?", "How about The Paper Lanterns? It is short and easy to remember."),
        ("How long does rice take?", "White rice takes about fifteen minutes, brown rice about forty."),
        ("What is compost?", "Kitchen and garden waste that small animals and fungi have turned into earth."),
        ("How do bees make honey?", "They collect nectar, thicken it in the hive and close the cells with wax."),
        ("What does a comma do?", "It separates parts of a sentence that would be hard to read together."),
        ("How far is the moon?", "It is about 384,000 kilometres away, which light needs more than a second for."),
        ("Can I freeze bread?", "Yes. Slice it first, and you can toast the slices without thawing them."),
        (
            "What is a haiku?",
            "A short poem from Japan, in English often of three lines with five, seven and five syllables.",
        ),
        ("How do I clean a pan?", "Soak it in warm water with a little baking soda and wipe it after an hour."),
        ("Why do cats purr?", "Mostly because they feel well, but sometimes to calm themselves when they are ill."),
    ],
    "de": [
        ("Wie koche ich ein Ei?", "Sieben Minuten in kochendem Wasser, danach kurz abschrecken."),
        ("Warum ist der Himmel blau?", "Die Luft streut die kurzen Wellen des Sonnenlichts stärker als die langen."),
        ("Wie heißt eine gute Band?", "Wie wäre es mit Papierlaternen? Das ist kurz und bleibt im Kopf."),
        ("Wie lange braucht Reis?", "Weißer Reis braucht etwa fünfzehn Minuten, brauner etwa vierzig."),
        ("Was ist Kompost?", "Abfälle aus Küche und Garten, aus denen Tiere und Pilze Erde gemacht haben."),
        ("Wie entsteht Honig?", "Bienen sammeln Nektar, dicken ihn im Stock ein und verschließen die Waben mit Wachs."),
        ("Was macht ein Komma?", "Es trennt Teile eines Satzes, die zusammen schwer zu lesen wären."),
        ("Wie weit ist der Mond?", "Etwa 384.000 Kilometer, für die das Licht mehr als eine Sekunde braucht."),
        ("Kann ich Brot einfrieren?", "Ja. Am besten in Scheiben, die man direkt toasten kann."),
        ("Was ist ein Haiku?", "Ein kurzes Gedicht aus Japan, meist mit drei Zeilen."),
        (
            "Wie reinige ich eine Pfanne?",
            "Mit warmem Wasser und etwas Natron einweichen und nach einer Stunde auswischen.",
        ),
        ("Warum schnurren Katzen?", "Meistens, weil es ihnen gut geht, manchmal auch, um sich zu beruhigen."),
    ],
    "es": [
        ("¿Cómo cuezo un huevo?", "Siete minutos en agua hirviendo y luego un poco de agua fría."),
        ("¿Por qué el cielo es azul?", "El aire dispersa más las ondas cortas de la luz del sol que las largas."),
        ("¿Qué nombre le pongo a una banda?", "¿Qué tal Farolillos de Papel? Es corto y fácil de recordar."),
        ("¿Cuánto tarda el arroz?", "El arroz blanco tarda unos quince minutos y el integral unos cuarenta."),
        ("¿Qué es el compost?", "Restos de la cocina y del jardín que animales y hongos convierten en tierra."),
        (
            "¿Cómo se hace la miel?",
            "Las abejas recogen néctar, lo espesan en la colmena y cierran las celdas con cera.",
        ),
        ("¿Para qué sirve una coma?", "Separa partes de una frase que juntas serían difíciles de leer."),
        ("¿A qué distancia está la luna?", "A unos 384.000 kilómetros, que la luz recorre en más de un segundo."),
        ("¿Puedo congelar el pan?", "Sí. Córtalo antes en rebanadas y podrás tostarlas sin descongelar."),
        ("¿Qué es un haiku?", "Un poema corto de Japón, casi siempre de tres versos."),
        ("¿Cómo limpio una sartén?", "Déjala en agua tibia con un poco de bicarbonato y pásale un paño en una hora."),
        (
            "¿Por qué ronronean los gatos?",
            "Casi siempre porque están bien, y a veces para calmarse cuando están enfermos.",
        ),
    ],
}
REFUSALS = {
    "en": r"don'?t (?:know|have)|do not (?:know|have)|not (?:mention|sa|know|provid|specif|stat)"
    r"|no (?:information|mention)"
    r"|haven'?t|hasn'?t|didn'?t|cannot|can'?t|unable|sorry|unknown|not (?:sure|aware|clear)",
    "de": r"weiß (?:ich )?nicht|nicht (?:bekannt|erwähnt|gesagt|genannt|angegeben|sicher|bestimm|mögl)"
    r"|keine (?:info|angab|ahnung)"
    r"|leider|kann (?:ich )?(?:das |dir |ihnen )?nicht|tut mir leid|unbekannt|entschuldig",
    "es": r"no (?:lo )?s[eé]|no (?:tengo|puedo|ha|has|se |mencion|dij|está|hay|especific|proporcion)"
    r"|lo siento|desconoc|no sabemos",
}


def talk_of(language: str, *, n_turns: int, seed: int) -> Talk:
    """Return a conversation with all facts in its first three quarters, corrections well behind what they correct."""
    rng = random.Random(f"{language}/{seed}")
    facts = list(FACTS[language])
    rng.shuffle(facts)
    n_said = sum(2 if fact.correction else 1 for fact in facts)
    places = sorted(rng.sample(range(1, n_turns * 3 // 4), n_said))
    statements = [fact.statement for fact in facts]
    for fact in facts:
        if fact.correction:
            statements.insert(rng.randint(statements.index(fact.statement) + 1, len(statements)), fact.correction)
    said = dict(zip(places, statements, strict=True))
    small = SMALL_TALK[language]
    turns = []
    for number in range(n_turns):
        question, answer = small[number % len(small)]
        turns.append((said[number], NOTED[language]) if number in said else (question, answer))
    return Talk(language=language, turns=turns, facts=facts, unanswerable=UNANSWERABLE[language])
