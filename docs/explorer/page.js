// What the explorer's page does with the model in gpt.js. MODEL, its card and weights, is put in by `lecture book`.
"use strict";

const EXAMPLES = [
  "ROMEO:\nWhat light", "First Citizen:\nBefore we proceed", "KING RICHARD III:\nNow is the winter", "To be, or not to be", "\n",
];
const SAMPLE = "JULIET:\nGood night, good night! The moon is high,\nAnd all the neural networks are asleep.";
const LONGEST = 2000; // characters whose loss is shown
const FEW = 10; // bars, until all are asked for
const WORST = 6; // nats, the strongest colour
const NAMES = { " ": "space", "\n": "newline" };
const GLYPHS = { " ": "␣", "\n": "↵" };

const $ = (id) => document.getElementById(`x-${id}`);
const named = (character) => NAMES[character] ?? `“${character}”`;
const percent = (p) => (p > 0 && p < 0.001 ? "< 0.1%" : `${(100 * p).toFixed(p < 0.9995 && p > 0 ? 1 : 0)}%`);
const nextFrame = () => new Promise((go) => setTimeout(go)); // a frame would never come in a tab behind others

/** The indices of the `count` largest numbers, the largest first. */
function likeliest(numbers, count) {
  return [...numbers.keys()].sort((a, b) => numbers[b] - numbers[a]).slice(0, count);
}

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** The explorer: a text, its ids, and a Reader that has read as much of their end as fits the model. */
class Explorer {
  constructor(model) {
    this.gpt = new Gpt(model.card, fromBase64(model.weights));
    this.reader = new Reader(this.gpt);
    this.ids = [];
    this.head = { layer: 0, head: 0 };
    this.at = null; // the chosen position in the window; null for its end
    this.bars = FEW;
    this.setUp();
    this.setText(EXAMPLES[0]);
    const weights = (fromBase64(model.weights).length / 1e6).toFixed(1);
    const { n_layer, n_head } = this.gpt;
    $("status").textContent = `The model is here: ${n_layer} layers of ${n_head} heads, ${weights} MB of weights, all in this page.`;
  }

  // ------------------------------------------------------------- what is on the page from the start

  setUp() {
    const { vocab_size, n_head } = this.gpt;
    const shown = (text) => (text === "\n" ? "(a new line)" : text.replace("\n", " "));
    $("example").append(...EXAMPLES.map((text, i) => make("option", { value: i }, shown(text))));
    $("example").onchange = () => this.setText(EXAMPLES[$("example").value]);
    $("text").oninput = () => this.setText($("text").value);
    $("top-k").max = $("top-k").value = vocab_size;
    for (const dial of ["temperature", "top-k"]) $(dial).oninput = () => this.showNext();
    $("write").onclick = () => this.writing ? this.stop() : this.write();
    $("one").onclick = () => this.append(draw(this.probabilities()));
    $("back").onclick = () => this.setText(Array.from($("text").value).slice(0, -1).join(""));
    $("all").onclick = () => {
      this.bars = this.bars === FEW ? vocab_size : FEW;
      $("all").setAttribute("aria-expanded", String(this.bars !== FEW));
      $("all").textContent = this.bars === FEW ? "Show all characters" : "Show the likeliest";
      this.showNext();
    };
    $("heads").style.setProperty("--heads", n_head);
    this.gpt.blocks.forEach((_, layer) => {
      $("heads").append(make("span", {}, `layer ${layer + 1}`));
      for (let head = 0; head < n_head; head++) $("heads").append(this.headButton(layer, head));
    });
    $("pasted").value = SAMPLE;
    $("score").onclick = () => this.score();
  }

  headButton(layer, head) {
    const button = make("button", { type: "button", ariaLabel: `layer ${layer + 1}, head ${head + 1}` }, make("canvas"));
    button.dataset.layer = layer;
    button.dataset.head = head;
    button.onclick = () => {
      this.head = { layer, head };
      this.showAttention();
    };
    return button;
  }

  // ------------------------------------------------------------- the text

  setText(text) {
    if ($("text").value !== text) $("text").value = text;
    const { ids, unknown } = this.gpt.encode(text);
    const leaveOut = () => this.setText(this.gpt.decode(ids));
    $("unknown").replaceChildren(...(unknown.length ? this.refusal(unknown, leaveOut) : []));
    if (unknown.length) this.stop();
    for (const button of ["write", "one"]) $(button).disabled = unknown.length > 0 || ids.length === 0;
    $("back").disabled = text === "";
    if (unknown.length) return this.hide("The text has characters that the model doesn't know.");
    if (!ids.length) return this.hide("The text is empty; the model needs at least one character.");
    this.ids = ids;
    this.read();
    this.show();
  }

  /** What to say of characters outside the vocabulary, with a button that leaves them out. */
  refusal(unknown, leaveOut) {
    const places = unknown.slice(0, 5).map(({ character, place }) => `${named(character)} (character ${place + 1})`);
    const more = unknown.length > 5 ? `, and ${unknown.length - 5} more` : "";
    const known = this.gpt.characters.map((character) => GLYPHS[character] ?? character).join(" ");
    const told = `The model doesn't know ${places.join(", ")}${more}. It has seen nothing but the `;
    return [
      make("p", {}, `${told}${this.gpt.vocab_size} characters of tiny Shakespeare: ${known}`),
      make("button", { type: "button", onclick: leaveOut }, "Leave them out"),
    ];
  }

  /** No numbers for a text that the model can't read. */
  hide(why) {
    this.ids = [];
    $("seen").textContent = why;
    for (const panel of ["bars", "attention"]) $(panel).replaceChildren();
    for (const part of ["caption", "thead", "tbody"]) $("lens").querySelector(part).replaceChildren();
    $("told").textContent = "";
    for (const canvas of $("heads").querySelectorAll("canvas")) canvas.width = canvas.height = 1;
  }

  /** Let the model read the end of the text. */
  read() {
    this.start = windowStart(this.ids.length, this.gpt.block_size);
    this.reader.read(this.ids.slice(this.start));
    this.at = null;
  }

  append(id) {
    this.setText($("text").value + this.gpt.characters[id]);
    $("text").scrollTop = $("text").scrollHeight;
  }

  /** Probabilities of the next character, as the dials have it. */
  probabilities() {
    const logits = this.reader.logitsAt(this.reader.ids.length - 1);
    return softmax(logits, Number($("temperature").value), Number($("top-k").value));
  }

  /** Write until stopped; the maps wait until then, so that the text comes fast. */
  async write() {
    this.writing = true;
    $("write").textContent = "Stop";
    $("write").setAttribute("aria-pressed", "true");
    const began = performance.now();
    for (let written = 1; this.writing; written++) {
      this.ids.push(draw(this.probabilities()));
      this.read();
      $("text").value += this.gpt.characters[this.ids.at(-1)];
      if (written % 4 === 0) {
        $("text").scrollTop = $("text").scrollHeight;
        this.showNext();
        $("speed").textContent = `${Math.round((1000 * written) / (performance.now() - began))} characters a second`;
        await nextFrame();
      }
    }
  }

  stop() {
    if (!this.writing) return;
    this.writing = false;
    $("write").textContent = "Write";
    $("write").setAttribute("aria-pressed", "false");
    this.setText($("text").value);
  }

  // ------------------------------------------------------------- what is shown of it

  show() {
    const { length } = this.ids, { block_size } = this.gpt;
    const seen = `The model sees the last ${length - this.start}: a full window of ${block_size} forgets its first half.`;
    $("seen").textContent = `${length} characters. ${this.start ? seen : ""}`;
    this.showNext();
    this.shown = this.characters($("attention"), $("told"), this.reader.ids, (t) => this.choose(t), this.start);
    this.showAttention();
  }

  showNext() {
    for (const dial of ["temperature", "top-k"]) {
      document.querySelector(`output[for="x-${dial}"]`).textContent = $(dial).value;
    }
    if (!this.ids.length) return;
    const probabilities = this.probabilities(), ids = likeliest(probabilities, this.bars), bars = $("bars");
    while (bars.children.length > ids.length) bars.lastChild.remove();
    while (bars.children.length < ids.length) {
      const button = make("button", { type: "button" }, make("span", { className: "x-glyph" }), " ", make("span"));
      bars.append(make("li", {}, button));
    }
    ids.forEach((id, i) => { // the buttons stay, so the keyboard's place among them does
      const button = bars.children[i].firstChild, character = this.gpt.characters[id], p = probabilities[id];
      button.style.setProperty("--share", p);
      button.firstChild.textContent = GLYPHS[character] ?? character;
      button.lastChild.textContent = percent(p);
      button.ariaLabel = `${NAMES[character] ?? character} ${percent(p)}, append`; // begins with what is seen
      button.onclick = () => this.append(id);
    });
  }

  /** A text as buttons, of which pointer or arrow keys choose one: `choose(t)` is called with it, `told` says more. */
  characters(container, told, ids, choose, offset = 0) {
    const buttons = ids.map((id, t) => this.characterButton(id, offset + t + 1, told));
    const enter = (t) => { // the keyboard is at t now, and comes back to it
      for (const button of buttons) button.tabIndex = -1;
      buttons[t].tabIndex = 0;
      choose(t);
    };
    buttons.forEach((button, t) => {
      button.onpointerenter = () => choose(t);
      button.onfocus = () => enter(t);
      button.onclick = () => button.focus(); // not every browser focuses what is clicked
    });
    container.onkeydown = (event) => {
      const now = buttons.indexOf(document.activeElement), last = buttons.length - 1;
      const to = { ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: last }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      buttons[Math.min(last, Math.max(0, to))].focus();
    };
    const lines = buttons.map((button, t) => (this.gpt.characters[ids[t]] === "\n" ? [button, make("br")] : [button]));
    container.replaceChildren(...lines.flat());
    if (buttons.length) buttons.at(-1).tabIndex = 0;
    return buttons;
  }

  characterButton(id, place, told) {
    const character = this.gpt.characters[id], newline = character === "\n";
    const button = make("button", { type: "button", tabIndex: -1, ariaLabel: `${named(character)}, character ${place}` });
    button.textContent = newline ? GLYPHS[character] : character;
    button.classList.toggle("x-unseen", newline);
    button.setAttribute("aria-describedby", told.id);
    return button;
  }

  choose(t) {
    this.at = t;
    this.showAttention();
  }

  showAttention() {
    const { layer, head } = this.head, { ids } = this.reader, at = this.at ?? ids.length - 1;
    if (!this.ids.length) return;
    this.shown.forEach((button, t) => {
      const weight = t <= at ? this.reader.listens(layer, head, at, t) : this.reader.listens(layer, head, t, at);
      button.style.setProperty("--tint", `var(--x-${t <= at ? "past" : "later"})`);
      button.style.setProperty("--share", (0.75 * Math.sqrt(weight)).toFixed(3));
      button.ariaCurrent = String(t === at);
    });
    $("told").textContent = `Layer ${layer + 1}, head ${head + 1}. ${this.told(at, layer, head)}`;
    for (const button of $("heads").querySelectorAll("button")) this.drawHead(button, at);
    this.showLens(at);
  }

  /** In words: whom the character at t listens to, and who listens to it, the strongest first. */
  told(t, layer, head) {
    const { ids } = this.reader, name = (s) => `${named(this.gpt.characters[ids[s]])} (${this.start + s + 1})`;
    const strongest = (weights) => likeliest(weights, 3).filter((s) => weights[s] >= 0.01)
      .map((s) => `${name(s)} ${percent(weights[s])}`);
    const past = ids.map((_, s) => this.reader.listens(layer, head, t, s));
    const later = ids.map((_, s) => (s > t ? this.reader.listens(layer, head, s, t) : 0));
    const listeners = strongest(later).join(", ") || (t === ids.length - 1 ? "none, it is the last" : "none that gives it 1%");
    return `${name(t)} listens to ${strongest(past).join(", ")}. Its listeners: ${listeners}.`;
  }

  /** A head's map: a row for each character, coloured where it listens; the chosen row and column are marked. */
  drawHead(button, at) {
    const layer = Number(button.dataset.layer), head = Number(button.dataset.head);
    const canvas = button.firstChild, n = this.reader.ids.length, context = canvas.getContext("2d");
    canvas.width = canvas.height = n;
    const picture = context.createImageData(n, n);
    const [r, g, b] = getComputedStyle(button).getPropertyValue("--x-past").split(",").map(Number);
    for (let t = 0; t < n; t++) {
      for (let s = 0; s < n; s++) {
        const marked = t === at || s === at ? 0.12 : 0;
        const alpha = Math.min(1, Math.sqrt(this.reader.listens(layer, head, t, s)) + marked);
        picture.data.set([r, g, b, 255 * alpha], 4 * (t * n + s));
      }
    }
    context.putImageData(picture, 0, 0);
    button.ariaPressed = String(layer === this.head.layer && head === this.head.head);
  }

  showLens(at) {
    const [caption, head, body] = ["caption", "thead", "tbody"].map((part) => $("lens").querySelector(part));
    const { ids } = this.reader, next = ids[at + 1], read = this.gpt.characters[ids[at]];
    const known = next === undefined ? "" : `; in the text it is ${named(this.gpt.characters[next])}`;
    caption.textContent = `After ${named(read)} (character ${this.start + at + 1}), what comes next${known}`;
    const columns = ["1st", "2nd", "3rd", "4th", "5th", ...(next === undefined ? [] : ["the text's own"])];
    head.replaceChildren(make("tr", {}, make("td"), ...columns.map((title) => make("th", { scope: "col" }, title))));
    body.replaceChildren(...this.reader.lens(at).map((probabilities, i) => {
      const shown = likeliest(probabilities, 5).concat(next ?? []), cells = shown.map((id) => {
        const character = this.gpt.characters[id], p = percent(probabilities[id]);
        const cell = make("td", { ariaLabel: `${named(character)} ${p}` }, `${GLYPHS[character] ?? character}  ${p}`);
        cell.style.setProperty("--share", probabilities[id]);
        return cell;
      });
      return make("tr", {}, make("th", { scope: "row" }, i ? `after block ${i}` : "embedding"), ...cells);
    }));
  }

  // ------------------------------------------------------------- the loss of a pasted text

  async score() {
    const text = $("pasted").value, { ids, unknown } = this.gpt.encode(text);
    const leaveOut = () => {
      $("pasted").value = this.gpt.decode(ids);
      this.score();
    };
    const problem = unknown.length ? this.refusal(unknown, leaveOut)
      : ids.length < 2 ? ["Two characters are the least: the first has nothing before it."]
      : ids.length > LONGEST ? [`The text has ${ids.length} characters; expected at most ${LONGEST}.`]
      : [];
    $("refused").replaceChildren(...problem);
    $("losses").replaceChildren();
    $("mean").textContent = $("loss-told").textContent = "";
    if (problem.length) return;
    $("score").disabled = true;
    const losses = await surprises(this.gpt, ids, (done) => {
      $("mean").textContent = `${done + 1} of ${ids.length} characters ...`;
      return nextFrame();
    });
    $("score").disabled = false;
    const mean = losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
    $("mean").textContent = `${mean.toFixed(3)} nats per character, perplexity ${Math.exp(mean).toFixed(2)}`;
    const buttons = this.characters($("losses"), $("loss-told"), ids, (t) => this.showLoss(ids, losses, t));
    buttons.forEach((button, t) => {
      button.style.setProperty("--tint", "var(--x-loss)");
      button.style.setProperty("--share", t ? (0.7 * Math.min(1, losses[t - 1] / WORST)).toFixed(3) : 0);
    });
  }

  showLoss(ids, losses, t) {
    const character = named(this.gpt.characters[ids[t]]);
    $("loss-told").textContent = t
      ? `${character} (character ${t + 1}): ${losses[t - 1].toFixed(2)} nats, the model gave it ${percent(Math.exp(-losses[t - 1]))}.`
      : `${character} is the first character; nothing predicts it.`;
  }
}

window.explorer = new Explorer(MODEL);
