// Replaces the parts of a page that say how often they change by those of the page as it is now.
// A part with the focus, and a page out of sight, stay as they are.

function replaceParts(text) {
  const page = new DOMParser().parseFromString(text, "text/html");
  for (const part of document.querySelectorAll("[data-live-secs]")) {
    const next = page.getElementById(part.id);
    if (next && next.innerHTML !== part.innerHTML && !part.contains(document.activeElement)) {
      const open = [...part.querySelectorAll("details")].map((one) => one.open);
      part.replaceChildren(...next.childNodes);
      [...part.querySelectorAll("details")].forEach((one, index) => { one.open = one.open || Boolean(open[index]); });
      if (!next.dataset.liveSecs) delete part.dataset.liveSecs;
    }
  }
}

async function refresh() {
  if (!document.hidden) {
    try {
      const response = await fetch(location.href, { headers: { Accept: "text/html" } });
      // A page of another address is that of the sign-in.
      if (response.ok && !response.redirected) replaceParts(await response.text());
    } catch {
      // The service does not answer just now; the next round may find it again.
    }
  }
  const first = document.querySelector("[data-live-secs]");
  if (first) setTimeout(refresh, Number(first.dataset.liveSecs) * 1000);
}

const part = document.querySelector("[data-live-secs]");
if (part) setTimeout(refresh, Number(part.dataset.liveSecs) * 1000);
