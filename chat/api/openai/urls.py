"""Routes of OpenAI's and llama-server's interfaces; as in llama-server, ``v1/`` may be left out."""

from django.urls import URLPattern, re_path

from chat.api.openai import chat_views, completion_views, model_views, text_views

urlpatterns: list[URLPattern] = [
    re_path(r"^(?:v1/)?chat/completions/?$", chat_views.chat_completions, name="openai-chat"),
    re_path(r"^(?:v1/)?completions/?$", completion_views.completions, name="openai-completions"),
    re_path(r"^(?:v1/)?embeddings/?$", text_views.embeddings, name="openai-embeddings"),
    re_path(r"^tokenize/?$", text_views.tokenize, name="tokenize"),
    re_path(r"^detokenize/?$", text_views.detokenize, name="detokenize"),
    re_path(r"^apply-template/?$", text_views.apply_template, name="apply-template"),
    re_path(r"^(?:v1/)?models/?$", model_views.list_models, name="openai-models"),
    re_path(r"^(?:v1/)?models/(?P<name>(?s:.+?))/?$", model_views.model, name="openai-model"),
]
