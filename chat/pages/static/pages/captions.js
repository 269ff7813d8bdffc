// Transcripts from caption files (SubRip, WebVTT): their lines with speakers and seconds.

const TIMES = /^(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})\s*-->\s*(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})/;
const VOICE = /^<v(?:\.[^ >]*)? ([^>]+)>/;
const NAME = /^(?:\[([^\]]{1,60})\]\s*|(\p{Lu}[\p{L}\d_.' -]{0,40}):\s+)/u;

// The segments of a file, null for a text that is no captions.
export function parseCaptions(text) {
  const segments = [];
  for (const block of text.replace(/\r\n?/g, "\n").split(/\n{2,}/)) {
    const lines = block.split("\n");
    const at = lines.findIndex((line) => TIMES.test(line));
    if (at < 0) continue;
    const segment = segmentOf(lines[at].match(TIMES), lines.slice(at + 1).join(" ").trim());
    if (segment.text) segments.push(segment);
  }
  return segments.length ? segments : null;
}

function segmentOf(times, line) {
  const voice = line.match(VOICE);
  const name = voice ? null : line.match(NAME);
  const said = (voice ? line.slice(voice[0].length) : line.slice(name?.[0].length ?? 0)).replace(/<[^<>]*>/g, "").trim();
  return {
    text: said,
    speaker: (voice?.[1] ?? name?.[1] ?? name?.[2] ?? "").trim(),
    start_time: seconds(times.slice(1, 5)),
    end_time: seconds(times.slice(5, 9)),
  };
}

function seconds([hours, minutes, whole, thousandths]) {
  return Number(hours ?? 0) * 3600 + Number(minutes) * 60 + Number(whole) + Number(thousandths) / 1000;
}
