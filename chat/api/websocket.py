"""The WebSocket of the chat: several answers over one socket, each frame a line of a stream with a type."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import ExitStack, aclosing, asynccontextmanager
from functools import partial
from typing import Any

from channels.generic.websocket import AsyncJsonWebsocketConsumer
from django.conf import settings

from chat.access.websocket_authentication import credentials_of
from chat.access.websocket_scope import accepted_subprotocol
from chat.access.websocket_watch import CredentialWatch
from chat.api.body_parsing import LONG_BODY_BYTES, json_object
from chat.api.chat_views import existing
from chat.api.middleware.json_errors import body_too_large
from chat.api.turn_requests import read_key
from chat.errors import ChatError, InvalidJson, InvalidRequest, TooManyRequests, quoted
from chat.schemas.chat_bodies import chat_request
from chat.schemas.decoding import decode
from chat.schemas.error_bodies import as_chat_error, error_object
from chat.schemas.stream_types import MAX_REQUEST_ID_CHARS, ResumeFrame
from chat.services import turns
from chat.services.turns import Turn
from chat.streaming.admission import among_long_bodies, in_arrival_order
from chat.streaming.background import in_thread
from chat.streaming.events import WireLine, lines, resumed, start
from chat.streaming.open_sockets import sockets
from inference.runtime import log_context

Frame = dict[str, Any]

MAX_RUNNING = 16  # answers on one socket at a time
CREDENTIALS_ENDED = 4401


class ChatConsumer(AsyncJsonWebsocketConsumer):  # type: ignore[misc]
    """The socket of a caller. A frame with an error is answered with an error; the socket stays open."""

    async def connect(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None
        self._place = ExitStack()
        try:
            self._credentials = await in_thread(credentials_of, self.scope)
            self._place.enter_context(sockets.counted(self._credentials.caller))
        except ChatError as error:
            # Refused before it is accepted, which the client sees as status 403 with the reason in the body.
            await self.close(reason=error.message)
            return
        self._watch = CredentialWatch(self._credentials, is_busy=lambda: bool(self._running), notify=self._notify)
        await self.accept(subprotocol=accepted_subprotocol(self.scope))
        if self._credentials.check is not None:
            self._watching = asyncio.create_task(self._close_at_end())

    async def disconnect(self, code: int) -> None:
        self._place.close()
        tasks = [*self._running] + ([self._watching] if self._watching else [])
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None, **kwargs: object) -> None:
        # Channels handles one frame after the other; the task of an answer keeps the id that it was started with.
        log_context.bind(request=log_context.new_request_id())
        async with self._reported({}) as about:
            raw = text_data.encode() if text_data is not None else bytes_data or b""
            is_long = len(raw) > LONG_BODY_BYTES
            async with among_long_bodies(is_long=is_long):
                frame = await in_thread(read_frame, raw) if is_long else read_frame(raw)
            about |= read_request_id(frame)
            await self._watch.check()
            await self._handle(frame, about, is_long=is_long)
        if self._watch.is_withdrawn:
            await self.close(code=CREDENTIALS_ENDED)

    async def _handle(self, frame: Frame, about: Frame, *, is_long: bool) -> None:
        match frame.get("type"):
            case "chat":
                # As a task: a cancel has to be read while the answer is sent.
                self._run(self._chat(frame, about, is_long))
            case "resume":
                self._run(self._resume(frame, about))
            case "cancel":
                await self._cancel(frame)
            case unknown:
                raise InvalidRequest(f'type must be "chat", "resume" or "cancel", not {quoted(unknown)}', field="type")

    async def _chat(self, frame: Frame, about: Frame, is_long: bool) -> None:
        async with self._reported(about):
            await self._send_lines(await self._start(frame, is_long=is_long), about)

    async def _start(self, frame: Frame, *, is_long: bool) -> Turn:
        async with in_arrival_order(is_long=is_long):
            caller, request = self._credentials.caller, await in_thread(chat_request, frame)
            key = read_key(frame.get("idempotency_key"), field="idempotency_key")
            begin = partial(
                turns.start_turn, caller=caller, request=request, idempotency_key=key, request_digest=request.digest
            )
            return await start(begin, caller=caller, stops=True, is_long=is_long)

    async def _resume(self, frame: Frame, about: Frame) -> None:
        async with self._reported(about):
            after, generation_id = read_after(frame), existing(str(frame.get("generation_id")))
            turn, stops = await in_thread(resumed, caller=self._credentials.caller, generation_id=generation_id)
            await self._send_lines(turn, about, after=after, stops=stops)

    async def _cancel(self, frame: Frame) -> None:
        generation_id = existing(str(frame.get("generation_id")))
        await in_thread(turns.cancel, caller=self._credentials.caller, generation_id=generation_id)

    async def _send_lines(self, turn: Turn, about: Frame, *, after: int = 0, stops: bool = True) -> None:
        source = lines(turn, caller=self._credentials.caller, after=after, stops=stops)
        about = about | {"generation_id": str(turn.generation_id)}
        # Several answers share the socket: every frame names its generation.
        async with aclosing(source):
            async for line in source:
                await self.send_json({"type": type_of(line)} | line | about)

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        if len(self._running) >= MAX_RUNNING:
            work.close()
            raise TooManyRequests(f"{MAX_RUNNING} answers are under way on this socket", code="socket_limit")
        # Channels hands over one frame at a time: an answer awaited here would keep its own cancel waiting.
        task = asyncio.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    @asynccontextmanager
    async def _reported(self, about: Frame) -> AsyncIterator[Frame]:
        """Answer an error of a frame with an error frame."""
        try:
            yield about
        except Exception as error:  # noqa: BLE001
            body = error_object(as_chat_error(error))
            await self.send_json({"type": "error", "token": "", "done": True, "error": body} | about)

    async def _close_at_end(self) -> None:
        await self._watch.until_ended()
        await self.close(code=CREDENTIALS_ENDED)

    async def _notify(self) -> None:
        message = "the credentials have expired: running answers end, new frames are refused; connect again"
        notice = {"code": "token_expired", "message": message}
        await self.send_json({"type": "notice", "token": "", "done": False, "notice": notice})

    @classmethod
    async def encode_json(cls, content: Frame) -> str:
        return json.dumps(content, allow_nan=False)


def read_frame(raw: bytes) -> Frame:
    """Decode a client's frame. Raises BodyTooLarge, InvalidEncoding, InvalidJson, InvalidRequest."""
    if len(raw) > settings.REQUEST_MAX_BYTES:
        raise body_too_large(settings.REQUEST_MAX_BYTES)
    if not raw:
        raise InvalidJson("the frame is empty")
    return json_object(raw)


def read_request_id(frame: Frame) -> Frame:
    """Return the client's id of its frame, which is repeated in every frame about it."""
    request_id = frame.get("request_id")
    if not isinstance(request_id, str):
        return {}
    # It is sent again with every token.
    if len(request_id) > MAX_REQUEST_ID_CHARS:
        raise InvalidRequest(f"request_id must have at most {MAX_REQUEST_ID_CHARS} characters", field="request_id")
    return {"request_id": request_id}


def read_after(frame: Frame) -> int:
    """Return the line to resume after. Raises InvalidRequest."""
    # The request id was read before, from frames of any kind.
    return decode(ResumeFrame, {name: value for name, value in frame.items() if name != "request_id"}).after


def type_of(line: WireLine) -> str:
    if "error" in line:
        return "error"
    if line["done"]:
        return "done"
    if "status" in line:
        return "status"
    return "started" if "generation_id" in line else "token"
