// Filters of the report's sentences. Without this script the page shows all of them and no filters.
(() => {
  const form = document.getElementById("filters");
  if (!form) return;
  const count = document.getElementById("count");
  const nothing = document.getElementById("nothing");
  const squeeze = (text) => text.toLowerCase().replace(/\s+/g, " ").trim();
  const cards = [...document.querySelectorAll("article[data-outcome]")].map((card) => ({
    card,
    outcome: card.dataset.outcome,
    types: new Set(card.dataset.types.split(" ")),
    text: squeeze(
      [card.dataset.id, card.dataset.words, ...[...card.querySelectorAll(".passages li")].map((li) => li.textContent)].join(" "),
    ),
  }));
  const apply = () => {
    const wanted = new FormData(form);
    const text = squeeze(wanted.get("text"));
    const type = wanted.get("type");
    const outcome = wanted.get("outcome");
    let shown = 0;
    for (const each of cards) {
      const passes =
        (!outcome || each.outcome === outcome) && (!type || each.types.has(type)) && (!text || each.text.includes(text));
      each.card.hidden = !passes;
      shown += passes;
    }
    count.textContent = `${shown} of ${cards.length} sentences`;
    nothing.hidden = shown > 0;
  };
  for (const event of ["input", "change"]) form.addEventListener(event, apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  form.hidden = false;
  apply();
})();
