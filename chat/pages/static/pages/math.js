// Formulas in TeX are shown as they were written: Markdown would take their backslashes, stars and underscores.

// Of a formula; what is not closed within as many characters is plain text.
const MOST_CHARS = 4000;
const BLANK_LINE = /\n[^\S\n]*\n/;
// "$5 and 10$" is money: a formula in single dollars has a sign of one, or is a short name.
const FORMULA = /[\\^_={}<>+]|^[^\s\d]{1,3}$/;

// The text up to the closing sign, undefined where there is none soon.
function textBetween(source, open, close) {
  if (!source.startsWith(open)) return undefined;
  const end = source.slice(0, MOST_CHARS).indexOf(close, open.length);
  const text = end < 0 ? "" : source.slice(open.length, end);
  return text.trim() && !BLANK_LINE.test(text) ? text : undefined;
}

function inline(source) {
  for (const [open, close] of [["$$", "$$"], ["\\(", "\\)"], ["\\[", "\\]"]]) {
    const text = textBetween(source, open, close);
    if (text) return open + text + close;
  }
  const text = textBetween(source, "$", "$");
  const isFormula = text && text === text.trim() && !text.includes("\n") && FORMULA.test(text);
  return isFormula && !/^\w/.test(source.slice(text.length + 2)) ? `$${text}$` : undefined;
}

function block(source) {
  for (const [open, close] of [["$$", "$$"], ["\\[", "\\]"]]) {
    const text = textBetween(source, open, close);
    if (text === undefined) continue;
    const raw = open + text + close;
    const [rest] = source.slice(raw.length).split("\n", 1);
    if (!rest.trim()) return { raw: raw + rest, text: text.trim() };
  }
  return undefined;
}

const escaped = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");

export const mathExtension = {
  extensions: [
    {
      name: "formula",
      level: "inline",
      // Not further than a formula may be long, so that a long text is not looked through from each of its places.
      start: (source) => {
        const at = source.slice(0, MOST_CHARS).indexOf("$");
        return at < 0 && source.length > MOST_CHARS ? MOST_CHARS : at;
      },
      tokenizer: (source) => {
        const raw = inline(source);
        return raw && { type: "formula", raw };
      },
      renderer: ({ raw }) => `<code>${escaped(raw)}</code>`,
    },
    {
      name: "formulaBlock",
      level: "block",
      start: (source) => source.slice(0, MOST_CHARS).match(/\n(?:\$\$|\\\[)/)?.index,
      tokenizer: (source) => {
        const found = block(source);
        return found && { type: "formulaBlock", ...found };
      },
      renderer: ({ text }) => `<pre><code class="language-latex">${escaped(text)}\n</code></pre>`,
    },
  ],
};
