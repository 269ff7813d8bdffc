"""Words that name no subject, in the languages that questions are most often asked in; in their index form.

Small lists of question words, pronouns, articles and auxiliaries, of greetings and of thanks; no general ones.
"""

from collections.abc import Iterable

from chat.rag.words import words

ENGLISH = """
a about again ah all also am an and any anyone anything are as at be because been but by can could did do
does doing done for from get give got had has have he her hers him his how i if in into is it its just
know like make me mean mention mentioned might my no not of oh okay on or our really remember right said
say saying says shall she should so some somebody someone something talk talked tell than that the their
them then there these they thing things think this those to told uh um up us very was we well were what
when where which who whom whose why will with would yeah yes you your s t re ve ll d m
discuss discussed discusses discussing discussion explain explained describe summarize summarise summary
opinion thought thoughts think thinks
"""
GERMAN = """
aber alle als also am an auch auf aus bei bis bist da dann das dass dein dem den denn der des dich die
dir doch du ein eine einem einen einer er es euch für gab gesagt gibt haben hat hatte hatten hier ich ihm
ihn ihnen ihr im in ist ja kann kein keine können man mein mich mir mit nach nein nicht noch nur oder
sagen sagt sagte sein sich sie sind so über um und uns unser vom von war waren warum was welche welchem
welchen welcher welches wem wen wer werden weshalb wie wieso wieviel will wir wird wo woher wohin womit
wurde wurden zu zum zur besprach besprochen diskutiert diskutierten dachte denkt meinte meint meinung erkläre
erklärt beschreibe fasse zusammen zusammenfassung wurdest hast habt darf muss müssen soll sollen wollen wollte
könnte konnte würde
"""
SPANISH = """
a al cómo con cuál cuáles cuándo cuánta cuántas cuánto cuántos de del dijo dónde el ella ellos en era es
esa ese eso esta este esto fue ha había han hay la las le les lo los me mi mis muy no nos o para pero por
que quién quiénes se ser sí sin sobre son su sus te tu tus un una unas unos y ya yo qué ni nuestro nuestra
puede pueden podemos podía va van vamos iba tiene tienen tenía hace hacen hizo hacer debe deben está están estaba
estaban era eran será había hubo he has hemos habló hablaron habla dijeron dice opina opinión piensa resume resumen
explica describe
"""
FRENCH = """
a ai au aux avec c ce ces cet cette combien comment d dans de des dit du elle elles en est et eu il ils j
je l la le les leur leurs lui m ma mais me mes mon n ne nous où on ont ou par pas plus pour pourquoi qu
quand que quel quelle quelles quels qui quoi s sa sans se ses son sont sur t ta te tes ton tu un une vous
y était être peut peux peuvent pouvait va vont vas vais allait fait font faire fera doit doivent devait faut sera
seront serait aura avait avaient avez avons as suis sommes êtes étaient soit ça cela cette est ce quoi dit disent
parlé parle pense pensent avis discuté résume résumé explique décris
"""
JAPANESE = """
です ます まし した する して いる ある なに どう どこ 誰 なぜ いつ とい いう こと でし しょ ょう から
まで のは んで 何 言っ った って は何 は誰 すか 何と と言 何を を言
"""
CHINESE = """
什么 为什 是什 谁 是谁 哪里 哪个 哪些 怎么 多少 么时 时候 有什 了什 了吗 的 了 是 在 有 我 你 他 她 我们
他们 这 那 吗 呢 吧 和 都 也 不 说 说了 关于
"""
KOREAN = "무엇 누가 언제 어디 어떻 떻게 얼마 마나 왜 뭐"
ARABIC = """
من ما ماذا متى أين كيف لماذا كم هل أي في على إلى عن مع هذا هذه ذلك التي الذي كان كانت هو هي أن إن لا لم
لن قد و ثم أو يا قال قالت
"""
GREETINGS = """
hello hi hey thanks thank lot please good morning evening night bye goodbye welcome cheers hallo danke bitte
guten morgen abend tag tschüss vielen dank moin servus hola gracias por favor buenos buenas días tardes
noches adiós bonjour bonsoir salut merci beaucoup s'il plaît au revoir coucou ありがとう こんにちは
おはよう こんばんは 你好 谢谢 您好 早上好 再见 شكرا مرحبا صباح الخير مساء السلام عليكم 안녕하세요
감사합니다
"""
LANGUAGES = [frozenset(words(text)) for text in (ENGLISH, GERMAN, SPANISH, FRENCH, JAPANESE, CHINESE, KOREAN, ARABIC)]
COURTESIES = frozenset(words(GREETINGS))
# Stop words of English, for questions about hints, which are understood in English.
STOP_WORDS = LANGUAGES[0]


def stop_words_for(question: Iterable[str]) -> frozenset[str]:
    """Return the stop words of the language that most of the question's are of: "hat" is one in German alone."""
    question = set(question)
    counts = [len(language & question) for language in LANGUAGES]
    best = max(counts)
    languages = [language for language, n in zip(LANGUAGES, counts, strict=True) if n == best]
    return COURTESIES.union(*languages)
