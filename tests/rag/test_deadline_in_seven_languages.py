"""One line is asked for in other words, among others of each speaker, in seven languages."""

import pytest

from chat.rag.models import Passage
from tests.rag.builders import ask, line, remember, texts

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.databases]

# Question, speaker and line; then the other lines of this speaker, and those of the other.
EXAMPLES = {
    "en": (
        "What did Sarah say about the deadline?",
        ("Sarah", "The demo for the Zephyr board has to be finished by Friday the 14th."),
        [
            "I had lunch with my brother at the new Thai place.",
            "My laptop battery lasts barely an hour these days.",
            "The plants in the hallway need water again.",
            "I liked the film more than the book.",
            "Somebody took my umbrella from the stand.",
        ],
        "Maria",
        [
            "The budget for the third quarter is approved.",
            "I will be late because of the dentist.",
            "The coffee machine makes a strange noise.",
            "We should invite the new neighbours.",
            "My daughter plays the trumpet now.",
        ],
    ),
    "de": (
        "Was hat Sarah über den Abgabetermin gesagt?",
        ("Sarah", "Die Demo für das Zephyr-Board muss bis Freitag, den 14., fertig sein."),
        [
            "Ich war mit meinem Bruder beim neuen Thailänder essen.",
            "Mein Akku hält kaum noch eine Stunde.",
            "Die Pflanzen im Flur brauchen wieder Wasser.",
            "Der Film hat mir besser gefallen als das Buch.",
            "Jemand hat meinen Regenschirm mitgenommen.",
        ],
        "Maria",
        [
            "Das Budget für das dritte Quartal ist genehmigt.",
            "Ich komme später, ich muss zum Zahnarzt.",
            "Die Kaffeemaschine macht ein komisches Geräusch.",
            "Wir sollten die neuen Nachbarn einladen.",
            "Meine Tochter spielt jetzt Trompete.",
        ],
    ),
    "es": (
        "¿Qué dijo Sarah sobre la fecha límite?",
        ("Sarah", "La demo de la placa Zephyr tiene que estar terminada el viernes 14."),
        [
            "Comí con mi hermano en el nuevo restaurante tailandés.",
            "La batería de mi portátil apenas dura una hora.",
            "Las plantas del pasillo necesitan agua otra vez.",
            "Me gustó más la película que el libro.",
            "Alguien se llevó mi paraguas.",
        ],
        "María",
        [
            "El presupuesto del tercer trimestre está aprobado.",
            "Llegaré tarde por el dentista.",
            "La cafetera hace un ruido raro.",
            "Deberíamos invitar a los nuevos vecinos.",
            "Mi hija toca ahora la trompeta.",
        ],
    ),
    "fr": (
        "Qu'a dit Sarah à propos de la date limite ?",
        ("Sarah", "La démo de la carte Zephyr doit être terminée avant le vendredi 14."),
        [
            "J'ai déjeuné avec mon frère au nouveau restaurant thaï.",
            "La batterie de mon portable tient à peine une heure.",
            "Les plantes du couloir ont encore besoin d'eau.",
            "J'ai préféré le film au livre.",
            "Quelqu'un a pris mon parapluie.",
        ],
        "Maria",
        [
            "Le budget du troisième trimestre est approuvé.",
            "Je serai en retard à cause du dentiste.",
            "La machine à café fait un drôle de bruit.",
            "On devrait inviter les nouveaux voisins.",
            "Ma fille joue maintenant de la trompette.",
        ],
    ),
    "ja": (
        "締め切りについて美咲は何と言った？",
        ("美咲", "ゼファー基板のデモは14日の金曜日までに仕上げないといけない。"),
        [
            "弟と新しいタイ料理の店で昼ご飯を食べた。",
            "パソコンの電池が一時間しか持たない。",
            "廊下の植物にまた水をやらないと。",
            "本より映画のほうが好きだった。",
            "誰かが私の傘を持って行った。",
        ],
        "健太",
        [
            "第三四半期の予算が承認された。",
            "歯医者で遅くなる。",
            "コーヒーメーカーから変な音がする。",
            "新しい隣の人を招待しよう。",
            "娘がトランペットを始めた。",
        ],
    ),
    "zh": (
        "关于截止日期，李娜说了什么？",
        ("李娜", "西风板的演示必须在14号星期五之前完成。"),
        [
            "我和弟弟在新开的泰国餐厅吃了午饭。",
            "我的电脑电池只能用一个小时。",
            "走廊里的植物又该浇水了。",
            "我觉得电影比书好看。",
            "有人拿走了我的雨伞。",
        ],
        "王强",
        [
            "第三季度的预算批准了。",
            "我要看牙医，会迟到。",
            "咖啡机发出奇怪的声音。",
            "我们应该邀请新邻居。",
            "我女儿现在学小号。",
        ],
    ),
    "ar": (
        "ماذا قالت سارة عن الموعد النهائي؟",
        ("سارة", "يجب أن ينتهي العرض التجريبي للوحة زفير قبل يوم الجمعة الرابع عشر."),
        [
            "تناولت الغداء مع أخي في المطعم التايلاندي الجديد.",
            "بطارية حاسوبي لا تدوم أكثر من ساعة.",
            "النباتات في الممر تحتاج إلى الماء مرة أخرى.",
            "أعجبني الفيلم أكثر من الكتاب.",
            "أخذ أحدهم مظلتي.",
        ],
        "ماريا",
        [
            "تمت الموافقة على ميزانية الربع الثالث.",
            "سأتأخر بسبب طبيب الأسنان.",
            "آلة القهوة تصدر صوتاً غريباً.",
            "يجب أن ندعو الجيران الجدد.",
            "ابنتي تعزف الآن على البوق.",
        ],
    ),
}

# Lines of the same speaker with times that are no deadline.
OF_TODAY = {
    "en": ["Lunch was great today.", "Yesterday the train was late again."],
    "de": ["Das Mittagessen war heute großartig.", "Gestern kam der Zug wieder zu spät."],
    "es": ["La comida de hoy estuvo buenísima.", "Ayer el tren volvió a llegar tarde."],
    "fr": ["Le déjeuner était délicieux aujourd'hui.", "Hier le train était encore en retard."],
    "ja": ["今日の昼ご飯はおいしかった。", "昨日また電車が遅れた。"],
    "zh": ["今天的午饭很好吃。", "昨天火车又晚点了。"],
    "ar": ["كان الغداء رائعاً اليوم.", "أمس تأخر القطار مرة أخرى."],
}


@pytest.mark.parametrize(("n_of_today", "n_others"), [(1, 0), (2, 0), (1, 4), (2, 5)])
@pytest.mark.parametrize("language", EXAMPLES)
def test_a_line_about_today_is_no_deadline(language: str, n_of_today: int, n_others: int) -> None:
    question, (speaker, wanted), _, other_speaker, more = EXAMPLES[language]
    others = [line(text, other_speaker) for text in more[:n_others]]
    of_today = [line(text, speaker) for text in OF_TODAY[language][:n_of_today]]
    remember(line(wanted, speaker), *others, *of_today)
    assert texts(ask(question, only_related=False))[0] == wanted
    assert texts(ask(question))[0] == wanted


@pytest.mark.parametrize("language", EXAMPLES)
def test_the_line_is_first_and_shown(language: str) -> None:
    question, (speaker, wanted), others, other_speaker, more = EXAMPLES[language]
    lines = [line(text, speaker) for text in others] + [line(text, other_speaker) for text in more]
    remember(*lines[0::2], line(wanted, speaker), *lines[1::2])
    assert texts(ask(question, only_related=False))[0] == wanted
    assert texts(ask(question))[0] == wanted
    assert wanted in ask(question, with_neighbours=True).sources[0].text


def test_the_line_is_found_among_those_of_all_languages() -> None:
    for language, (_, (speaker, wanted), others, other_speaker, more) in EXAMPLES.items():
        lines = [line(text, speaker) for text in others] + [line(text, other_speaker) for text in more]
        remember(*lines, line(wanted, speaker), job_id=language)
    assert Passage.objects.count() == 11 * len(EXAMPLES)
    for question, (_, wanted), *_ in EXAMPLES.values():
        assert wanted in texts(ask(question, only_related=False))
