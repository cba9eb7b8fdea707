// The sentences of an evaluation: filtered, fifty a page. They come as JSON, and text only ever becomes text nodes.
(() => {
  const PAGE = 50;
  const { types, kinds, views, dropped, sentences } = JSON.parse(document.getElementById("shown").textContent);
  const form = document.getElementById("filters");
  const list = document.getElementById("list");
  const pages = document.getElementById("pages");
  const [previous, next] = pages.querySelectorAll("button");
  const outcomes = { gained: "Fewer errors with passages", lost: "More errors with passages", even: "Other errors with passages" };
  const colours = { gained: "fixed", lost: "broke" };
  const number = (value) => value.toLocaleString("en");
  const squeeze = (text) => text.toLowerCase().replace(/\s+/g, " ").trim();

  const element = (tag, className, ...children) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };
  const textual = (tag, className, ...children) => {
    const made = element(tag, className, ...children);
    made.dir = "auto";
    return made;
  };

  const mention = (words, mark) => {
    const { type, kind, confidence } = mark;
    const wrong = kind && kind !== "correct";
    const label = element("span", "label", ` ${type}`);
    if (confidence !== undefined) label.append(" ", element("span", "confidence", `${Math.round(100 * confidence)}%`));
    if (wrong) label.append(" ", element("span", "verdict", `${kind === "missed" ? "" : "✗ "}${kinds[kind]}`));
    const state = kind === "missed" ? " missed" : wrong ? " wrong" : "";
    const text = element("span", "w", mark.text ?? words.slice(mark.start, mark.end).join(" "));
    return element("mark", `mention c${Math.max(0, types.indexOf(type)) % 8}${state}`, text, label);
  };

  const column = (title, words, marks, judged) => {
    const heading = element("h3", "", title);
    if (judged) {
      const right = marks.every((mark) => mark.kind === "correct");
      heading.append(" ", element("span", right ? "ok" : "bad", right ? "✓ right" : "✗ wrong"));
    }
    const text = textual("p", "text");
    const overlapped = [];
    let at = 0;
    for (const mark of marks) {
      if (mark.start < at) {
        overlapped.push(mark);
        continue;
      }
      if (mark.start > at) text.append(element("span", "w", words.slice(at, mark.start).join(" ")), " ");
      text.append(mention(words, mark), " ");
      at = mark.end;
    }
    if (at < words.length) text.append(element("span", "w", words.slice(at).join(" ")));
    const made = element("div", "column", heading, text);
    if (overlapped.length) made.append(textual("p", "text note", "and ", ...overlapped.map((mark) => mention(words, mark))));
    return made;
  };

  const highlighted = (text, wanted) => {
    const line = textual("p", "passage");
    if (!wanted) line.append(text);
    else text.split(wanted).forEach((piece, place) => line.append(place % 2 ? element("b", "", piece) : piece));
    return line;
  };
  const mentionsOf = (sentence) => {
    const marks = [sentence.gold, ...Object.values(sentence.views)].flat();
    const texts = [...new Set(marks.map(({ start, end }) => sentence.words.slice(start, end).join(" ")))]
      .filter((text) => text.length > 1)
      .sort((a, b) => b.length - a.length)
      .map((text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    return texts.length ? new RegExp(`(?<![\\p{L}\\p{N}])(${texts.join("|")})(?![\\p{L}\\p{N}])`, "iu") : null;
  };
  const passageList = (sentence) => {
    const read = sentence.passages.filter((passage) => !passage.dropped).length;
    const rest = sentence.passages.length - read;
    const title = `${read} passage${read === 1 ? "" : "s"} read${rest ? `, ${rest} dropped` : ""}`;
    const wanted = mentionsOf(sentence);
    const items = sentence.passages.map((passage) => {
      const origin = element("p", "provenance");
      if (passage.dropped)
        origin.append(element("span", "why", `not read: ${dropped[passage.dropped] || passage.dropped}`), " ");
      origin.append(element("span", "", passage.source), " ", element("code", "", passage.id));
      if (passage.bm25 !== null) origin.append(" ", element("span", "", `BM25 ${passage.bm25.toFixed(2)}, rank ${passage.rank}`));
      if (passage.rerank !== null) origin.append(" ", element("span", "", `re-rank ${passage.rerank.toFixed(3)}`));
      if (passage.pieces !== null) origin.append(" ", element("span", "", `${passage.pieces} pieces`));
      const item = element("li", passage.dropped ? "dropped" : "");
      if (passage.title) item.append(highlighted(passage.title, wanted));
      item.append(highlighted(passage.text, wanted), origin);
      return item;
    });
    const made = element("details", "passages", element("summary", "", title), element("ol", "", ...items));
    if (sentence.more_passages) made.append(element("p", "note", `${sentence.more_passages} more are not shown.`));
    return made;
  };

  const card = (sentence) => {
    const plainly = sentence.right ? "Right" : "Wrong";
    const badge = element("span", "verdict-badge", outcomes[sentence.outcome] || plainly);
    const auto = sentence.looked_up === null ? "" : sentence.looked_up ? "auto looks it up" : "auto: plain view";
    const header = element("header", "", badge, element("span", "", auto), element("code", "", sentence.id));
    const columns = element("div", "columns", column("True mentions", sentence.words, sentence.gold, false));
    for (const view of ["plain", "context"])
      if (sentence.views[view]) columns.append(column(views[view], sentence.words, sentence.views[view], true));
    const colour = colours[sentence.outcome] || (sentence.right ? "both-right" : "both-wrong");
    const made = element("article", `card ${colour}`, header, columns);
    made.setAttribute("aria-label", `Sentence ${sentence.id}`);
    const cut = sentence.num_words - sentence.words.length;
    if (cut) made.append(element("p", "note", `The last ${cut} words are not shown.`));
    if (sentence.passages.length) made.append(passageList(sentence));
    else if ("context" in sentence.views) made.append(element("p", "note", "No passages."));
    return made;
  };

  const searchable = sentences.map((sentence) =>
    squeeze([sentence.id, ...sentence.words, ...sentence.passages.flatMap(({ title, text, id }) => [title, text, id])].join(" ")),
  );
  const marksIn = (sentence, view) => {
    if (view === "auto") return sentence.views[sentence.looked_up ? "context" : "plain"];
    return view ? sentence.views[view] : Object.values(sentence.views).flat();
  };
  const chosen = () => {
    const wanted = new FormData(form);
    const text = squeeze(wanted.get("text"));
    const [type, kind, view, outcome] = ["type", "kind", "view", "outcome"].map((name) => wanted.get(name));
    return sentences.filter((sentence, place) => {
      if (outcome && sentence.outcome !== outcome) return false;
      if (wanted.has("looked_up") && !sentence.looked_up) return false;
      if (wanted.has("read") && !sentence.passages.some((passage) => !passage.dropped)) return false;
      const marks = marksIn(sentence, view);
      if (wanted.has("errors") && marks.every((mark) => mark.kind === "correct")) return false;
      const passes = (mark) => (!type || mark.type === type || mark.gold_type === type) && (!kind || mark.kind === kind);
      if ((type || kind) && !marks.some(passes)) return false;
      return !text || searchable[place].includes(text);
    });
  };

  let found = [];
  let first = 0;
  const show = () => {
    const shown = found.slice(first, first + PAGE);
    list.replaceChildren(...(shown.length ? shown.map(card) : [element("p", "empty", "No sentence passes these filters.")]));
    pages.hidden = found.length <= PAGE;
    previous.disabled = first === 0;
    next.disabled = first + PAGE >= found.length;
    document.getElementById("place").textContent = `${number(first + 1)} to ${number(first + shown.length)} of ${number(found.length)}`;
    document.getElementById("count").textContent = `${number(found.length)} of ${number(sentences.length)} sentences`;
  };
  const apply = () => {
    found = chosen();
    first = 0;
    show();
  };
  const turn = (step) => {
    first += step;
    show();
    list.focus({ preventScroll: true });
    list.scrollIntoView();
  };
  previous.addEventListener("click", () => turn(-PAGE));
  next.addEventListener("click", () => turn(PAGE));
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  form.hidden = false;
  apply();
})();
