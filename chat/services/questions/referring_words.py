"""English and German words by their function in a question: referring, connecting, temporal or without content."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


CONNECTIVES = _words("and but or so also then und aber oder dann außerdem auch sonst")
MANY = _words("they them their theirs sie ihnen")
PERSONS = MANY | _words("he him his she her hers er ihn ihm ihr ihre ihren ihrem ihrer seine seinen seinem seiner")
THINGS = _words(
    """it its that this these those there
    es das dies diese dieses dort damals dabei dazu darüber darum davon damit daran dafür deswegen danach"""
)
TIMES = _words(
    """today yesterday tomorrow tonight last latest next week weeks month months year years day days ago recently
    morning evening monday tuesday wednesday thursday friday saturday sunday january february march april may june
    july august september october november december
    heute gestern vorgestern morgen letzte letzten letzter letztes nächste nächsten woche wochen monat monate jahr tag
    tage neulich zuletzt montag dienstag mittwoch donnerstag freitag samstag sonntag januar februar märz mai juni juli
    oktober dezember"""
)
# A question of these words alone has no topic: it continues the topic of the question before.
EMPTY = _words(
    """a an the i me my we us our you your what when where who whom whose why how which is are was were be been being do
    does did has have had will would can could should shall might must say says said saying tell tells told talk talked
    mention mentioned mean means meant think about of on in at to for from by with as if not no yes ok okay any anything
    some something someone anyone else more most exactly really again please just only still ever mind much many go on
    happened happen continue explain elaborate
    ein eine einen einem einer der die den dem des ich mir mich mein meine wir uns unser du dir dich dein deine man was
    wann wo wer wem wen wessen warum wieso weshalb weswegen wie wofür wozu woher wohin welche welcher welches welchen
    ist sind war waren sein gewesen wird werden wurde wurden würde hat habe haben hatte hatten kann können könnte konnte
    soll sollen sollte muss müssen sagen sagt sagte sagten gesagt meinen meint meinte gemeint erzählt erzähl erwähnt
    sprechen gesprochen über um zu zum zur von vom mit im in am an auf bei beim für aus nach vor seit nicht kein keine
    ja nein noch nochmal nochmals mehr genau denn doch eigentlich bitte mal nur wirklich etwas irgendetwas jemand
    weiter passiert geschehen erklär erkläre"""
)
