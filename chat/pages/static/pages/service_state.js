// Where the model is, and whether it can answer: a line at the top of the page.

import { byId } from "./dom.js";
import { t } from "./texts.js";

const EVERY_MS = 20_000;

export function watchService() {
  const look = () => { if (!document.hidden) showState(); };
  setInterval(look, EVERY_MS);
  document.addEventListener("visibilitychange", look);
  look();
}

async function showState() {
  let text;
  let isFault = false;
  try {
    // Its status is 503 where the model cannot answer, with the same body.
    const health = await (await fetch("/health")).json();
    isFault = !health.worker.ok || !health.database.ok || !health.redis.ok;
    text = isFault ? t("serviceDegraded") : t(health.model_on_gpu ? "onGpu" : "onCpu", { model: health.model_name ?? "" });
  } catch {
    isFault = true;
    text = t("serviceAway");
  }
  const line = byId("service-state");
  if (line.textContent !== text) line.textContent = text;
  line.classList.toggle("fault", isFault);
}
