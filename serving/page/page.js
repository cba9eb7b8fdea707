// The page at `/`: one text, asked of both views. Text only ever becomes text nodes, and never a URL.
(() => {
  const NO_DEADLINE = 101; // the slider's last place; below it 20 to 5000 ms, by equal factors
  const KEY = "ctxner-key";
  const MENTIONS = 200; // marked in passages at most
  const NAMES = { plain: "Plain view", context: "Context view" };
  const LEADS = { plain: "Reads the text alone.", context: "Reads passages beside each sentence." };
  const STAGES = { plain: "plain view", retrieve: "look up, re-rank", context: "context view", total: "server, in all", trip: "round trip" };
  const REASONS = {
    confident: "the plain view was sure",
    no_hits: "nothing to read was found, or none of it fitted",
    deadline: "with passages the answer would have come after the deadline",
    overload: "too much was waiting for passages or for the context view",
    retriever_unavailable: "nothing can be looked up now: there is no index here, or its search does not answer",
    tagger_unavailable: "the context view's model does not run now",
  };
  const DROPPED = {
    near_duplicate: "nearly the sentence itself or a better passage",
    below_depth: "there were enough better ones",
    piece_budget: "did not fit beside the sentence",
    no_pieces: "nothing that the model can read",
  };
  const [form, text, passages, deadline, chosen, key, served, status, results, views] = [
    "ask", "text", "passages", "deadline", "chosen", "key", "served", "status", "results", "views",
  ].map((id) => document.getElementById(id)); // prettier-ignore
  const types = []; // a type keeps its colour
  let running = null;

  const element = (tag, className, ...children) => {
    const made = document.createElement(tag);
    if (className) made.className = className;
    made.append(...children);
    return made;
  };
  const written = (tag, className, ...children) => Object.assign(element(tag, className, ...children), { dir: "auto" });
  const count = (number, word) => `${number.toLocaleString("en")} ${word}${number === 1 ? "" : "s"}`;
  const listed = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");
  const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en")} ms`;
  const percent = (confidence) => `${Math.round(100 * confidence)}%`;
  const colour = (type) => {
    if (!types.includes(type)) types.push(type);
    return `c${types.indexOf(type) % 8}`;
  };

  // Asking
  const headers = () => {
    const own = sessionStorage.getItem(KEY);
    return own ? { authorization: `Bearer ${encodeURI(own)}` } : {}; // a header is ASCII, and so are keys
  };
  const inWords = (status, problem, after) => {
    const again = after ? ` Try again in ${count(Number(after), "second")}.` : " Try again later.";
    const known = {
      401: headers().authorization ? "This API key is not valid here." : "This server wants an API key.",
      413: `Too long for this server: ${problem.message}.`,
      422: `The server cannot take this: ${problem.message}.`,
      429: `This key has asked too often.${again}`,
      503: `No answer now: ${(problem.message || "nobody answers").replace(/; try again later$/, "")}.${again}`,
    };
    return known[status] || `The server failed (${status}).${problem.request_id ? ` Its log knows this as ${problem.request_id}.` : ""}`;
  };
  const fetched = async (path, options) => {
    let response;
    try {
      response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers }, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      return { problem: "The server cannot be reached." };
    }
    const body = await response.json().catch(() => null);
    if (response.ok) return body || { problem: "The server's answer cannot be read." };
    if (response.status === 401) askForKey();
    return { problem: inWords(response.status, body || {}, response.headers.get("retry-after")) };
  };
  const askForKey = () => {
    document.getElementById("key-field").hidden = false;
    if (form.contains(document.activeElement)) key.focus();
  };
  const ask = async (view, body, signal) => {
    const started = performance.now();
    const content = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal };
    const answer = await fetched("v1/tag", content);
    return { view, ...answer, trip: performance.now() - started };
  };
  const describe = async () => {
    const found = await fetched("v1/models", {});
    served.dataset.known = found.problem ? "" : "yes";
    if (found.problem) return served.replaceChildren(found.problem);
    const { plain, context, retriever } = found;
    const model = context || plain || {};
    for (const type of model.types || []) colour(type);
    const parts = [];
    if (model.version) parts.push(["model ", element("code", "", model.version)]);
    if (plain?.version && plain.version !== model.version) parts.push(["plain view ", element("code", "", plain.version)]);
    if (model.types) parts.push([`finds ${listed(model.types)}`]);
    if (retriever) parts.push(["index ", element("code", "", retriever.version)], [count(retriever.passages, "passage")]);
    else parts.push(["no index: the context view reads documents at hand only"]);
    served.replaceChildren(...parts.map((part) => element("span", "", ...part)));
  };

  // Comparing
  const overlaps = (one, two) => one.start < two.end && two.start < one.end;
  const isSame = (one, two) => one.start === two.start && one.end === two.end && one.type === two.type;
  const verdict = (entity, others) => {
    if (!others || others.some((own) => isSame(own, entity))) return null;
    const other = others.find((own) => overlaps(own, entity));
    if (!other) return ["only here"];
    const bounds = other.start === entity.start && other.end === entity.end ? [] : ["other bounds"];
    const type = other.type === entity.type ? [] : [other.type];
    return ["≠ ", element("span", "unseen", "the other view: "), [...bounds, ...type].join(", ")];
  };
  const pairs = (plain, context) => {
    const lone = (own, others) => !others.some((other) => overlaps(own, other));
    const found = [
      ...plain.flatMap((one) => context.filter((two) => overlaps(one, two) && !isSame(one, two)).map((two) => [one, two])),
      ...plain.filter((own) => lone(own, context)).map((own) => [own, null]),
      ...context.filter((own) => lone(own, plain)).map((own) => [null, own]),
    ];
    return found.sort((a, b) => (a[0] || a[1]).start - (b[0] || b[1]).start);
  };

  // Showing
  const mention = (entity, difference) => {
    const label = element("span", "label", ` ${entity.type} `, element("span", "confidence", percent(entity.confidence)));
    if (difference) label.append(" ", element("span", "verdict", ...difference));
    return element("mark", `mention ${colour(entity.type)}${difference ? " differs" : ""}`, element("span", "w", entity.text), label);
  };
  // Offsets are in Unicode code points, as Python counts; JavaScript's strings are UTF-16.
  const marked = (points, entities, others) => {
    const line = written("p", "text");
    let at = 0;
    for (const entity of entities) {
      if (entity.start < at) continue;
      line.append(points.slice(at, entity.start).join(""), mention(entity, verdict(entity, others)));
      at = entity.end;
    }
    line.append(points.slice(at).join(""));
    return line;
  };
  const answeredBy = (answer) => {
    const { plain = 0, context = 0 } = answer.views;
    const total = plain + context;
    if (!total) return "There is no word in this text.";
    const whole = total === 1 ? "the sentence" : `all ${count(total, "sentence")}`;
    if (answer.view === "plain") return `Answered ${whole}.`;
    if (!plain) return `Answered ${whole}, with passages.`;
    const why = Object.entries(answer.reasons).map(([name, number]) => `${REASONS[name] || name}${total > 1 ? ` (${number})` : ""}`);
    const instead = total === plain ? whole : `${plain} of ${count(total, "sentence")}`;
    return `The plain view answered ${instead} instead: ${why.join("; ")}.`;
  };
  const costs = (answer, most) => {
    const rows = [...Object.entries(answer.timings_ms).sort((a, b) => (a[0] === "total") - (b[0] === "total")), ["trip", answer.trip]];
    const made = rows.map(([stage, value]) => {
      const bar = element("span", "");
      bar.style.width = `${Math.min(100, (100 * value) / most)}%`;
      const track = element("span", "bar", bar);
      track.ariaHidden = "true";
      return element("div", stage in { total: 1, trip: 1 } ? "whole" : "", element("dt", "", STAGES[stage] || stage), element("dd", "", track, ms(value)));
    });
    return element("dl", "costs", ...made);
  };
  const viewCard = (answer, other, points, most) => {
    const made = element("article", "view", element("h3", "", NAMES[answer.view]));
    made.id = `${answer.view}-view`;
    if (answer.problem) made.append(element("p", "problem", answer.problem));
    else {
      const [{ entities }] = answer.results;
      const isOther = answer.view === "context" && answer.views.plain;
      made.append(element("p", isOther ? "who instead" : "who", answeredBy(answer)));
      made.append(marked(points, entities, other.results?.[0].entities));
      if (!entities.length) made.append(element("p", "note", "Nothing is named here, says this view."));
      made.append(element("h4", "", "What it cost"), costs(answer, most));
    }
    made.children[0].append(element("span", "what", LEADS[answer.view]));
    return made;
  };
  const differenceTable = (rows) => {
    const cell = (own) => (own ? element("td", "", mention(own, null)) : element("td", "none", "nothing"));
    const body = rows.map(([plain, context]) => element("tr", "", cell(plain), cell(context)));
    const columns = Object.values(NAMES).map((name) => Object.assign(element("th", "", name), { scope: "col" }));
    return element("table", "differences", element("thead", "", element("tr", "", ...columns)), element("tbody", "", ...body));
  };
  const passage = (own, pattern) => {
    const highlighted = (string) => (pattern ? string.split(pattern) : [string]).map((piece, place) => (place % 2 ? element("b", "", piece) : piece));
    const origin = element("p", "provenance");
    if (own.dropped) origin.append(element("span", "why", `not read: ${DROPPED[own.dropped] || own.dropped}`));
    origin.append(element("span", "", own.source));
    if (own.bm25_score !== undefined && own.source !== "given") origin.append(element("span", "", `BM25 ${own.bm25_score.toFixed(2)}`));
    if (own.rerank_score !== undefined) origin.append(element("span", "", `re-rank ${own.rerank_score.toFixed(3)}`));
    const made = element("li", own.dropped ? "dropped" : "");
    if (own.title) made.append(written("p", "title", ...highlighted(own.title)));
    made.append(written("p", "passage", ...highlighted(own.text)), origin);
    return made;
  };
  const mentionPattern = (entities) => {
    const texts = [...new Set(entities.map((own) => own.text))].slice(0, MENTIONS).sort((a, b) => b.length - a.length);
    const safe = texts.map((own) => own.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"));
    return safe.length ? new RegExp(`(?<![\\p{L}\\p{N}])(${safe.join("|")})(?![\\p{L}\\p{N}])`, "iu") : null;
  };
  const folded = (summary, ...children) => element("details", "", element("summary", "", ...summary), ...children);
  const sentenceCard = (own, points, pattern, isOpen) => {
    const all = own.passages || [];
    const [read, rest] = [all.filter((one) => !one.dropped), all.filter((one) => one.dropped)];
    const quote = written("span", "quote", points.slice(own.start, own.end).join(""));
    const told = own.reason ? REASONS[own.reason] || own.reason : `${count(read.length, "passage")} read`;
    const made = folded([quote, element("span", "note", `${NAMES[own.view]}: ${told}`)]);
    made.className = "sentence";
    made.open = isOpen;
    const list = (some) => element("ol", "", ...some.map((one) => passage(one, pattern)));
    if (own.view === "context") made.append(list(read));
    const found = own.view === "context" ? rest : all;
    if (found.length) made.append(folded([`${count(found.length, "passage")} found and not read`], list(found)));
    if (!all.length) made.append(element("p", "note", "No passages."));
    return made;
  };
  const show = (answers, points) => {
    const [plain, context] = answers;
    const most = Math.max(...answers.map((own) => own.trip));
    views.replaceChildren(viewCard(plain, context, points, most), viewCard(context, plain, points, most));
    const problems = answers.filter((own) => own.problem);
    const [before, after] = answers.map((own) => own.results?.[0].entities || []);
    const rows = problems.length ? [] : pairs(before, after);
    const same = before.length ? "Both views find the same." : "Neither view finds anything.";
    const agree = context.views?.context ? same : "Nothing was read, so there is nothing to compare: the plain view gave both answers.";
    document.getElementById("differences").hidden = problems.length > 0;
    document.getElementById("compared").replaceChildren(rows.length ? differenceTable(rows) : element("p", "empty", agree));
    document.getElementById("read").hidden = Boolean(context.problem);
    if (!context.problem) {
      const { sentences } = context.results[0];
      const pattern = mentionPattern([...before, ...after]);
      const cards = sentences.map((own) => sentenceCard(own, points, pattern, sentences.length <= 3));
      document.getElementById("sentences").replaceChildren(...(cards.length ? cards : [element("p", "empty", "No sentence, no passages.")]));
    }
    results.hidden = false;
    const told = answers.map((own) => `${NAMES[own.view]}: ${own.problem || `${own.results[0].entities.length} found in ${ms(own.trip)}.`}`);
    status.textContent = problems.length === 2 && plain.problem === context.problem ? plain.problem : told.join(" ");
    status.className = problems.length ? "bad" : "";
    if (!problems.length) status.append(` ${count(rows.length, "difference")}.`);
  };

  // Acting
  const deadlineMs = () => (Number(deadline.value) === NO_DEADLINE ? null : Number((20 * 250 ** (deadline.value / 100)).toPrecision(2)));
  const tellDeadline = () => {
    const own = deadlineMs();
    chosen.textContent = own === null ? "none" : `${own.toLocaleString("en")} ms`;
    deadline.setAttribute("aria-valuetext", own === null ? "none" : `${own} milliseconds`);
  };
  const submit = async () => {
    running?.abort();
    const own = (running = new AbortController());
    const value = text.value;
    if (!value.trim()) {
      status.textContent = "There is no text yet.";
      return text.focus();
    }
    if (key.value.trim()) sessionStorage.setItem(KEY, key.value.trim());
    status.className = "";
    status.textContent = "Tagging …";
    results.ariaBusy = "true";
    const paragraphs = passages.value.split(/\n\s*\n/).map((part) => part.trim()).filter(Boolean); // prettier-ignore
    const body = { texts: [value], deadline_ms: deadlineMs(), return_passages: true };
    const given = paragraphs.length ? { passages: [paragraphs.map((part) => ({ text: part }))] } : {};
    try {
      // One after the other: neither waits for the other, so each is timed as if alone.
      const answers = [await ask("plain", { ...body, view: "plain" }, own.signal)];
      answers.push(await ask("context", { ...body, ...given, view: "context" }, own.signal));
      if (own.signal.aborted) return;
      show(answers, [...value]);
      if (!served.dataset.known && !answers[0].problem) describe();
    } catch (error) {
      if (error.name !== "AbortError") throw error;
    } finally {
      if (running === own) results.ariaBusy = "false";
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    submit();
  });
  deadline.addEventListener("input", tellDeadline);
  if (/Mac|iP(hone|ad)/.test(navigator.platform)) form.querySelector("kbd").textContent = "⌘ ↵";
  tellDeadline();
  describe();
})();
