"""A Chromium that keeps what its pages request and what it complains about, and the chat page as a user handles it."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import NoSuchElementException, StaleElementReferenceException
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from tests.live_stack import wait_until

PATIENCE_SECS = 20.0
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--window-size=1280,860",
)


class Browser(webdriver.Chrome):
    """Chromium with its own profile."""

    def __init__(self, binary: str, *, language: str = "en-US", arguments: tuple[str, ...] = ()) -> None:
        options = Options()
        options.binary_location = binary
        for argument in (*ARGUMENTS, f"--lang={language}", *arguments):
            options.add_argument(argument)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        super().__init__(options=options, service=Service(shutil.which("chromedriver")))

    def logged(self, kind: str) -> list[dict[str, Any]]:
        """Return the entries of a log since the last call."""
        entries: list[dict[str, Any]] = self.get_log(kind)  # type: ignore[no-untyped-call]
        return entries

    def requested_hosts(self) -> set[str]:
        """Return the hosts of all requests since the last call."""
        events = (json.loads(entry["message"])["message"] for entry in self.logged("performance"))
        urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in urls if urlsplit(url).scheme in ("http", "https", "ws", "wss")}

    def complaints(self) -> list[str]:
        """Return errors and warnings of the console since the last call, violations of the policy among them."""
        entries = self.logged("browser")
        return [entry["message"] for entry in entries if entry["level"] in ("SEVERE", "WARNING")]

    def resize(self, width: int, height: int, *, is_phone: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}
        self.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def set_media(self, **features: str) -> None:
        """Set media features, such as prefers_color_scheme="dark"."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})


@contextmanager
def running_browser(binary: str, **options: Any) -> Iterator[Browser]:  # noqa: ANN401  those of Browser
    browser = Browser(binary, **options)
    try:
        yield browser
    finally:
        browser.quit()


class ChatPage:
    """The chat page in one tab."""

    def __init__(self, browser: Browser, url: str) -> None:
        self.browser, self.url = browser, url

    def open(self, path: str = "/") -> "ChatPage":
        self.browser.get(self.url + path)
        # The last script gives the button its title.
        self.until(lambda: self.all("#send[title]") != [], what="the scripts have run")
        return self

    def all(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """Return the last element that matches, once there is one."""
        self.until(lambda: bool(self.all(selector)), what=f"{selector} is there")
        return self.all(selector)[-1]

    def click(self, selector: str) -> None:
        self.one(selector).click()

    def until(self, happened: Callable[[], bool], *, what: str) -> None:
        def looked() -> bool:
            try:
                return happened()
            except (StaleElementReferenceException, NoSuchElementException):
                return False

        wait_until(looked, timeout_secs=PATIENCE_SECS, what=what)

    def ask(self, text: str, *, wait: bool = True) -> None:
        """Type a question and send it with Enter."""
        self.browser.execute_script("for (const one of document.querySelectorAll('.answer')) one.dataset.seen = ''")
        field = self.one("#question")
        field.send_keys(text.replace("\n", Keys.SHIFT + Keys.ENTER + Keys.SHIFT), Keys.ENTER)
        self.until(lambda: bool(self.all(".answer:not([data-seen])")), what="an answer begins")
        if wait:
            self.wait_for_end()

    def wait_for_end(self) -> None:
        self.until(
            lambda: not self.all(".answer.running") and bool(self.all(".answer:last-child .actions")),
            what="the answer has ended",
        )

    def answer(self) -> str:
        """Return the text of the last answer."""
        return self.one(".answer .markdown").text

    def texts(self, selector: str) -> list[str]:
        """Return the texts of all elements that match, at one moment."""
        script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.innerText.trim())"
        texts: list[str] = self.browser.execute_script(script, selector)
        return texts

    def answers(self) -> list[str]:
        return self.texts(".answer .markdown")

    def questions(self) -> list[str]:
        return self.texts(".question .bubble")

    def conversations(self) -> list[str]:
        return self.texts("#conversations li a")

    def listed(self, part: str) -> str:
        """Return the title of the listed conversation that has these words, once there is one."""
        self.until(lambda: any(part in title for title in self.conversations()), what=f"{part} is listed")
        return next(title for title in self.conversations() if part in title)

    def choose(self, title: str, action: str) -> None:
        """Run an action of a conversation's menu."""
        script = """
            const items = [...document.querySelectorAll("#conversations li")];
            const item = items.find((one) => one.querySelector("a")?.innerText.trim() === arguments[0]);
            item?.querySelector(".icon-button").click();
            return [...document.querySelectorAll(".menu button")].find((one) => one.innerText === arguments[1]);
        """
        self.listed(title)
        self.browser.execute_script(script, title, action).click()

    def toast(self) -> str:
        return self.one(".toast").text

    def run(self, script: str, *arguments: object) -> Any:  # noqa: ANN401  what the script returns
        return self.browser.execute_script(script, *arguments)

    def give_files(self, selector: str, kind: str, files: dict[str, str]) -> None:
        """Drop files on an element, or paste them into it: ``kind`` is "drop" or "paste"."""
        self.run(
            """
            const data = new DataTransfer();
            for (const [name, text] of Object.entries(arguments[2])) data.items.add(new File([text], name));
            const options = { bubbles: true, cancelable: true, dataTransfer: data, clipboardData: data };
            const kinds = { drop: DragEvent, paste: ClipboardEvent };
            const [area, kind] = [document.querySelector(arguments[0]), arguments[1]];
            area.dispatchEvent(new kinds[kind](kind, options));
            """,
            selector,
            kind,
            files,
        )

    def script_next_answer(self) -> None:
        """Let the test write the lines of the next answer, with ``push``."""
        self.run(
            """
            const fetchReally = window.fetch;
            window.fetch = (path, options) => {
              if (path !== "/chat/stream") return fetchReally(path, options);
              window.fetch = fetchReally;
              const lines = new ReadableStream({ start: (stream) => { window.scripted = stream; } });
              return Promise.resolve(new Response(lines));
            };
            """
        )

    def push(self, **line: Any) -> None:  # noqa: ANN401  fields of a line
        text = f"data: {json.dumps({'id': 0, **line})}\n\n"
        self.run("window.scripted.enqueue(new TextEncoder().encode(arguments[0]))", text)
