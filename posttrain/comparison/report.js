"use strict";
// The browser of rows.  Every text enters the page as textContent: nothing a row says is ever markup.
(() => {
  const data = JSON.parse(document.getElementById("rows-data").textContent);
  const list = document.getElementById("rows-list");
  const more = document.getElementById("rows-more");
  const found = document.getElementById("rows-found");
  const pick = Object.fromEntries(["right", "wrong", "slice", "search"].map(name => [name, document.getElementById("rows-" + name)]));
  const page = 12;
  let matching = [], shown = 0;

  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  // Right; or, where grades are compared, graded above the mean of the row.
  const good = (row, attempt) => data.scored_by === "grade"
    ? attempt.outcome > row.attempts.reduce((sum, each) => sum + each.outcome, 0) / row.attempts.length
    : attempt.outcome === 1;
  const option = (select, value, text) => { const o = make("option", "", text); o.value = value; select.append(o); };

  data.candidates.forEach((candidate, i) => { option(pick.right, i, candidate.name); option(pick.wrong, i, candidate.name); });
  [...new Set(data.rows.flatMap(row => row.slices))].sort().forEach(name => option(pick.slice, name, name));

  const messages = attempt => {
    const asked = make("details", "asked");
    asked.append(make("summary", "", "what it was asked"));
    asked.addEventListener("toggle", () => {
      if (asked.childElementCount > 1) return;
      attempt.messages.forEach(([role, text]) => {
        asked.append(make("div", "role", role));
        const said = make("div", "said", data.texts[text]);
        said.tabIndex = 0;
        asked.append(said);
      });
    });
    return asked;
  };

  const verdict = (row, attempt) => data.scored_by === "grade" ? attempt.outcome.toFixed(2) : good(row, attempt) ? "✓ right" : "✗ wrong";
  const tally = row => {
    const outcomes = row.attempts.map(attempt => attempt.outcome);
    if (data.scored_by === "grade") return `grades ${Math.min(...outcomes).toFixed(2)} to ${Math.max(...outcomes).toFixed(2)}`;
    return `${outcomes.filter(outcome => outcome === 1).length} of ${outcomes.length} right`;
  };

  const inside = row => {
    const box = make("div", "inside"), grid = make("dl");
    if (row.target !== null) grid.append(make("dt", "", "wanted"), make("dd", "said", row.target));
    row.attempts.forEach((attempt, i) => {
      const name = make("dt");
      name.append(make("span", good(row, attempt) ? "right" : "wrong", verdict(row, attempt) + " "));
      name.append(make("span", data.candidates[i].kind, data.candidates[i].name));
      const said = make("dd");
      said.append(make("div", "said", attempt.error ? "failed: " + attempt.error : data.texts[attempt.answer] || "(nothing)"));
      if (attempt.messages.length) said.append(messages(attempt));
      grid.append(name, said);
    });
    box.append(grid);
    return box;
  };

  const line = row => {
    const details = make("details", "row"), summary = make("summary");
    summary.append(make("span", "text", row.text));
    summary.append(make("span", "tally", tally(row) + (row.slices.length ? " · " + row.slices.join(", ") : "")));
    details.append(summary);
    details.addEventListener("toggle", () => { if (details.open && details.childElementCount === 1) details.append(inside(row)); });
    return details;
  };

  const showMore = () => {
    const fresh = matching.slice(shown, shown + page).map(line);
    list.append(...fresh);
    const focus = shown ? fresh[0] : null;
    shown += fresh.length;
    more.hidden = shown >= matching.length;
    if (focus) focus.querySelector("summary").focus();
  };

  const filter = () => {
    const { right, wrong, slice, search } = pick, words = search.value.toLowerCase();
    matching = data.rows.filter(row =>
      (right.value === "" || good(row, row.attempts[right.value])) &&
      (wrong.value === "" || !good(row, row.attempts[wrong.value])) &&
      (slice.value === "" || row.slices.includes(slice.value)) &&
      (!words || [row.text, row.target || "", ...row.attempts.map(a => data.texts[a.answer])].join("\n").toLowerCase().includes(words)));
    list.replaceChildren();
    shown = 0;
    const drawn = data.rows.length < data.differing ? ` (${data.rows.length} drawn of ${data.differing} where candidates differ)` : "";
    found.textContent = `${matching.length} row${matching.length === 1 ? "" : "s"}${drawn}`;
    showMore();
  };

  // Arrow keys walk the rows, as in a list; Enter and Space open one (the browser's own behaviour of <summary>).
  list.addEventListener("keydown", event => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !event.target.matches(".row > summary")) return;
    const all = [...list.querySelectorAll(".row > summary")], next = all[all.indexOf(event.target) + step];
    if (next) { next.focus(); event.preventDefault(); }
  });
  Object.values(pick).forEach(control => control.addEventListener("input", filter));
  more.addEventListener("click", showMore);
  const winner = data.candidates.findIndex(c => c.name === list.dataset.right), loser = data.candidates.findIndex(c => c.name === list.dataset.wrong);
  if (winner >= 0 && loser >= 0 && winner !== loser) { pick.right.value = winner; pick.wrong.value = loser; }
  filter();
})();
