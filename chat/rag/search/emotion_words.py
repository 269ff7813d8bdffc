"""Words for emotions, by the label of the emotion, as questions and recognisers use them."""

from chat.rag.words import words

EMOTION_WORDS = {
    label: frozenset(words(forms))
    for label, forms in {
        "angry": """
            angry anger mad furious annoyed irritated wütend ärgerlich sauer verärgert enojado enojada enfadado enfadada
            furioso furiosa fâché fâchée énervé énervée furieux arrabbiato arrabbiata zangado irritado غاضب غاضبة злится
        """,
        "sad": """
            sad sadness unhappy depressed disappointed traurig enttäuscht triste tristes decepcionado decepcionada déçu
            déçue deluso deluse حزين حزينة грустный
        """,
        "happy": """
            happy happiness joy joyful glad pleased cheerful delighted excited glücklich fröhlich froh begeistert feliz
            felices contento contenta alegre heureux heureuse contente joyeux felice سعيد سعيدة рад рада
        """,
        "fear": """
            fear fearful afraid scared anxious worried nervous frightened ängstlich besorgt nervös verängstigt miedo
            preocupado preocupada nervioso nerviosa inquiet inquiète peur nerveux preoccupato خائف خائفة قلق قلقة
        """,
        "surprise": """
            surprise surprised astonished amazed shocked überrascht erstaunt schockiert sorprendido sorprendida surpris
            étonné étonnée sorpreso surpreso متفاجئ متفاجئة
        """,
        "disgust": "disgust disgusted appalled angewidert disgustado asqueado dégoûté dégoûtée disgustato",
        "calm": """
            calm relaxed ruhig gelassen entspannt tranquilo tranquila relajado calme détendu tranquillo calmo هادئ هادئة
        """,
    }.items()
}
# In scripts without spaces, where words are not divided.
EMOTION_SIGNS = {
    "angry": ("生气", "愤怒", "怒って", "怒り", "화가", "화난"),
    "sad": ("难过", "伤心", "悲し", "슬프", "슬퍼"),
    "happy": ("高兴", "开心", "嬉し", "喜ん", "楽し", "기쁘", "기뻐", "행복"),
    "fear": ("害怕", "担心", "不安", "心配", "怖が", "걱정", "무서"),
    "surprise": ("惊讶", "吃惊", "驚い", "驚き", "놀라"),
    "disgust": ("厌恶", "嫌悪"),
    "calm": ("平静", "冷静", "落ち着", "차분"),
}


def labels_in(text: str) -> set[str]:
    """Return the labels of the emotions that ``text`` names, in all their words: recognisers choose different ones."""
    present = set(words(text))
    return {
        name
        for label, forms in EMOTION_WORDS.items()
        if present & forms or any(sign in text for sign in EMOTION_SIGNS[label])
        for name in (label, *forms)
    }
